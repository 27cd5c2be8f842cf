"""The process that starts the agents of a run, watches and restarts them, and shows how they are.

It never sits between two agents: if it stops, they go on. `doctor` says whether a machine is fit for it.
"""
