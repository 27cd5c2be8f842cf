"""What processes share: registers that are read in place, mail, the board; each a file in shared memory.

Everything here may have been torn, truncated or planted by somebody else: what is read is checked where it is
read. Imports only `core`.
"""
