"""The user's own training loop as an agent: `offbeat.join`, `wrap`, `shard`, checkpoints.

`member` is what the script holds, `step` what `optimizer.step` does then, `optimizer_rule` the optimizer as
the agent's local rule; `flat` and `staging` move parameters, `shard` shares the data, `progress` says where
the loops over them are; `saver` says what is saved when, `entry` goes on from it; `export` makes one model of
a run's checkpoints. Imports `engines/live` and `algorithms`.
"""
