"""What agents meet: delays, losses, crashes and stragglers; graphs and their mixing matrices.

A new distribution of delays is a row of `delays.FAMILIES`, a new graph a row of `graphs.TOPOLOGIES`, a new
case a row of `world.CASES`. Imports only `core`.
"""
