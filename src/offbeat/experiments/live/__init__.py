"""The simulator's experiments as real processes: the same world, the same table.

`series` makes the runs of `offbeat live` one after another, `folder` is what it leaves and goes on from,
`running` one run as its launcher sees it, `program` what each of its agents does.
"""
