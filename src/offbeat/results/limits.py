"""Whether it is known where a run of quadratics ends, and what has to be said of that below a table."""

from collections.abc import Sequence

from offbeat.algorithms import Algorithm, find, row_of
from offbeat.core.settings import Settings
from offbeat.results.values import RunValues
from offbeat.theory.limits import OUTER, known, why_unknown
from offbeat.world.changing import CHANGING

MOST = 500
"""Agents of a run whose limit is computed: it takes a linear system of as many equations."""

HOLDS = {
    "task", "agents", "topology", "weights", "case", "straggler", "slowdown", "partition", "skew",
    "dirichlet", "objective", "batch", "reg", "until", "target", "stop_at", "eval_every", "metrics", "judge",
    "per_agent", "loss", "compute", "communication", "speeds", "links", "latency", "bandwidth", "sending",
    "network", "event", "data", "executor", "device",
}  # fmt: skip
"""Settings with which limits are as they are: agents may be slow, and models late or lost. With any other
that is not as usual no limit is known.
"""


def why_not(settings: Settings, spec: Algorithm | None) -> str:
    """Why no limit is known of a run with these settings; empty if one is. spec: None if it is not ours"""
    if spec is None or spec.user_defined:
        return "an algorithm of your own"
    if why := why_unknown(spec) or (known(spec).how == OUTER and f"it is {OUTER}"):
        return why
    if settings["agents"] > MOST:
        return f"more than {MOST} agents"
    declared, departures = {each.name for each in settings.declared()}, settings.departures()
    said = [name for name in departures if name in declared and name not in HOLDS]
    said += ["cut"] * any(f"{event}".startswith("cut") for event in settings["event"])
    said += ["a graph that changes"] * (str(settings["topology"]).partition(":")[0] in CHANGING)
    said += ["loss by link"] * isinstance(settings["loss"], str)
    said += ["faults"] * bool(settings.get("faults"))
    return f"with {' and '.join(said)}" if said else ""


def of_limits(runs: Sequence[RunValues]) -> list[str]:
    """Of which no limit is known, why; and of which it is not exact, how."""
    whys: dict[str, list[str]] = {}
    hows: dict[str, list[str]] = {}
    for run in runs:
        if "to_limit" in run.curve.more:
            spec = _ours(run)
            if why := why_not(run.settings, spec):
                whys.setdefault(why, []).append(run.algorithm)
            elif spec is not None and (how := known(spec).how):
                hows.setdefault(how, []).append(run.algorithm)
    said = [f"No limit is known of {_names(names)}: {why}." for why, names in whys.items()]
    return said + [f"The limit of {_names(names)}: {how}." for how, names in hows.items()]


def _names(names: list[str]) -> str:
    return ", ".join(dict.fromkeys(names))


def _ours(run: RunValues) -> Algorithm | None:
    mine = f"the algorithm {run.algorithm}" in run.settings["own"] or row_of(run.algorithm) is None
    return None if mine else find(run.algorithm)
