"""What the server of worker processes imports, once for all forked from it. All end with their parents."""

import os

from offbeat.cli import compare, sweep
from offbeat.core.system.signals import end_with_parent

__all__ = ["compare", "sweep"]

end_with_parent()
os.register_at_fork(after_in_child=end_with_parent)  # before anything can block
