"""What the server of worker processes imports, once for all forked from it. All end with their parents."""

import os
from importlib import import_module

from offbeat.core.system.signals import end_with_parent

end_with_parent()  # first of all: what is left takes seconds
os.register_at_fork(after_in_child=end_with_parent)  # before anything can block

for _name in ("compare", "sweep"):
    import_module(f"offbeat.cli.{_name}")
