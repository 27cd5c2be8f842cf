"""offbeat: asynchronous decentralized SGD, simulated exactly and reproducibly.

    import offbeat

    result = offbeat.compare(task="digits", case="combined", target=0.9)
    print(result)                        # the table
    result.save_report("report.html")    # the page

Read `offbeat.core.agent` (the contract), `offbeat.algorithms.adsgd` (an algorithm) and
`offbeat.engines.sim.simulator`, in that order, and you have understood the system.
"""

import sys
from itertools import pairwise

# `python -m offbeat` puts the current folder, which may be anybody's, first on the path: nothing of ours is
# there.
if (
    sys.argv[:1] == ["-m"]
    and not sys.flags.safe_path
    and next(name for word, name in pairwise(sys.orig_argv) if word[0] + word[-1] == "-m").split(".")[0]
    == "offbeat"
):
    sys.path.pop(0)

from importlib.metadata import version
from typing import Any

import lazy_loader

_lazily, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(__name__)
    return _lazily(name)
