"""The simulator: agents in a world of delays, losses and crashes, on a heap of events.

`simulator` is the oracle; `ahead` gives the same runs of algorithms that never wait, without a heap.
Imports `core`, `world`, what engines share, and the protocol of a task.
"""
