"""The process that starts the agents of a run, watches and restarts them, and shows how they are.

It never sits between two agents: if it stops, they go on. Imports `engines/live/node` for the names of files
    only.
"""
