"""The runtime: one process for each agent, models exchanged in shared memory, no agent waits for another.

`shm` is what lies in shared memory, `node` one agent, `launcher` the process that starts and watches them
all. Imports `core`, `world` and what engines share; knows no algorithm and no task.
"""
