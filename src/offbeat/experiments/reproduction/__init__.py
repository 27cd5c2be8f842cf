"""The evaluations of papers, made again: each part of one is a value, a grid with its claims and figures.

`part` says what a part is, `evidence` what claims are asked of; a paper is a file with its parts: `adsgd`.
`running` makes one: its grid is a sweep (`offbeat.experiments.sweep`), its page that of
`offbeat.results.reproduction`.
"""
