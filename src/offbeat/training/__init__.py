"""The user's own training loop as an agent: `offbeat.join`, `wrap`, `shard`, checkpoints.

`member` is what the script holds; `flat` and `staging` move parameters, `shard` and `places` the data,
`saver` says what is saved when. Imports `engines/live` and `algorithms`.
"""
