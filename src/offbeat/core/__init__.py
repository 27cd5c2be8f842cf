"""The contract: what an algorithm's author reads, and what everything else stands on.

`agent` (events and effects), `vector` (linear forms), `rules` (SGD, momentum, AdamW), `errors`; `promises`
checks an agent. Below it, in `core/system`, is what the machine gives. Imports nothing of offbeat but itself.
"""
