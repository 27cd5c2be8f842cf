"""The command line: one file for each command. What it can do, Python can do.

`commands` puts them together. No room imports it.
"""
