"""What processes share: registers that are read in place, mail, the board; each a file in shared memory.

Any of it may have been torn, truncated or planted by somebody else: it is checked where it is read.
"""
