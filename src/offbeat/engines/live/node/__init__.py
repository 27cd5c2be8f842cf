"""One agent of a live run: its handlers, the exchange of models, its log and its checkpoints.

`driver` says who may call handlers when, `performer` performs what they ask for, `transport` carries
messages, `guard` keeps out numbers that are not finite. Imports `engines/live/shm`.
"""
