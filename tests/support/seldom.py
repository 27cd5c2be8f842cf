"""Importing this: where nobody says how often a run is evaluated, it is 20 times here, and not 200.

Else most of a short run would be its evaluations. So it is in the tests' processes, in the forks of `warm`,
and in the workers of both.
"""

from multiprocessing import forkserver

from offbeat.experiments import ends, experiment

USUALLY = experiment.EVALUATIONS
"""How often it is without this."""

_preload = forkserver.set_forkserver_preload


def _as_here(modules_names: list[str]) -> None:
    _preload([*modules_names, __name__])


for _module in (ends, experiment):
    vars(_module)["EVALUATIONS"] = 20
forkserver.set_forkserver_preload = _as_here
