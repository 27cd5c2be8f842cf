"""The user's own training loop as an agent: `offbeat.join`, `wrap`, `shard`, checkpoints.

`member` is what the script holds, `step` what `optimizer.step` does then; `sharable` says which parameters
can be shared, `flat` moves them; `shard` shares the data, `progress` says where the loops over them are;
`saver` saves all that, and goes on from it; `export` makes one model of a run's checkpoints. Imports
`engines/live` and `algorithms`.
"""
