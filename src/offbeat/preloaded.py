"""What the server of `offbeat.workers` imports, once for all that are forked from it. It ends with its parent."""

from offbeat import commands, lifeline

__all__ = ["commands"]

lifeline.end_with_parent()
