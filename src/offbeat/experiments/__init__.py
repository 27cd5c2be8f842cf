"""From settings to results: what is asked for, checked; runs, simulated and live; many of them at once.

`experiment` declares the settings, `runs` makes runs, `comparison` and `sweep` many of them, `memory` says
beforehand what they need. Replays and predictions start from a trace instead. Imports all rooms but
`training` and `cli`.
"""
