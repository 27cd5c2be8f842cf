"""What the server of worker processes imports, once for all that are forked from it. All end with their
parents.
"""

import os

from offbeat.cli import commands
from offbeat.core.system import lifeline

__all__ = ["commands"]

lifeline.end_with_parent()
os.register_at_fork(after_in_child=lifeline.end_with_parent)  # before anything can block
