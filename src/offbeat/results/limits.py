"""Whether it is known where a run of quadratics ends, and what has to be said of that below a table."""

from offbeat.algorithms import Algorithm, find, row_of
from offbeat.core.settings import Settings
from offbeat.results.values import ComparisonValues, Group, RunValues
from offbeat.theory.limits import OUTER, known, why_unknown
from offbeat.world.changing import CHANGING

MOST = 500
"""Agents of a run whose limit is computed: it takes a linear system of as many equations."""

ROWS = 4  # of a table that a note names, at most

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
    if why := why_unknown(spec) or (known(spec).how == OUTER and f"it is {OUTER}") or known(spec).uncounted:
        return why
    if settings["agents"] > MOST:
        return f"more than {MOST} agents"
    declared, departures = {each.name for each in settings.declared()}, settings.departures()
    said = [name for name in departures if name in declared and name not in HOLDS]
    said += ["cut"] * any(f"{event}".startswith("cut") for event in settings["event"])
    said += ["a graph that changes"] * (str(settings["topology"]).partition(":")[0] in CHANGING)
    said += ["loss by link"] * isinstance(settings["loss"], str)
    said += [name for name in ("faults", "missing") if settings.get(name)]
    return f"with {' and '.join(said)}" if said else ""


def of_limits(comparison: ComparisonValues) -> list[str]:
    """Of which rows no limit is known, why; and of which it is not exact, how."""
    whys: dict[str, list[Group]] = {}
    hows: dict[str, list[Group]] = {}
    for key, (run, *_) in comparison.groups().items():
        if "to_limit" in run.curve.more:
            spec = _ours(run)
            if why := why_not(run.settings, spec):
                whys.setdefault(why, []).append(key)
            elif spec is not None and (how := known(spec).how):
                hows.setdefault(how, []).append(key)
    said = [f"No limit is known of {_names(comparison, keys)}: {why}." for why, keys in whys.items()]
    return said + [f"The limit of {_names(comparison, keys)}: {how}." for how, keys in hows.items()]


def _names(comparison: ComparisonValues, keys: list[Group]) -> str:
    """The algorithms; of one of which it is not every row, those rows."""
    named = dict.fromkeys(key.algorithm for key in keys)
    others = {key.algorithm for key in comparison.groups() if key not in keys}
    rows = [comparison.label(key) for key in keys if key.algorithm in others]
    more = f"; and {len(rows) - ROWS} more rows" * (len(rows) > ROWS)
    return "; ".join([*(name for name in named if name not in others), *rows[:ROWS]]) + more


def _ours(run: RunValues) -> Algorithm | None:
    mine = f"the algorithm {run.algorithm}" in run.settings["own"] or row_of(run.algorithm) is None
    return None if mine else find(run.algorithm)
