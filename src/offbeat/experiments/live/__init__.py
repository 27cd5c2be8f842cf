"""The simulator's experiments as real processes: the same world, the same table.

`series` makes the runs of `offbeat live` one after another, and keeps what was asked for in their folder;
`running` is one run as its launcher sees it, `program` what each of its agents does.
"""
