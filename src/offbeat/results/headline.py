"""What was run, in one line: the headline of a table and of a page."""

from collections.abc import Mapping, Sequence
from typing import Any

from offbeat.core.system.named import without_folder
from offbeat.results.differences import asked_for
from offbeat.results.values import ComparisonValues, stragglers, value_text
from offbeat.tasks.metrics.evaluation import JUDGED

IN_ITS_WORDS = {  # settings that the headline, or the head of a column, says in words of their own
    *(
        "task",
        "model",
        "width",
        "agents",
        "topology",
        "case",
        "straggler",
        "slowdown",
        "until",
        "target",
        "stop_at",
    ),
    *("partition", "skew", "dirichlet", "algorithm", "lr", "lr_said", "seed", "own", "code"),
}
MANY = 5  # stragglers, or values of a setting that differs, that are named; more are only counted
WORDS = {  # what a setting is called in the headline, where it is not by its name
    "batch": "batches of", "reg": "lambda", "eval_every": "evaluated every", "loss": "message loss",
    "compute": "computing", "communication": "sending", "crash": "crash of", "faults": "fault",
    "links": "speeds of links", "sending": "", "event": "", "byzantine": "Byzantine:",
    "augment": "images varied by", "eval_samples": "judged on samples:",
    "metrics": "measuring", "judge": "judged by", "per_agent": "every agent measured",
}  # fmt: skip


def headline(comparison: ComparisonValues) -> str:
    """What was run, in one line: whatever is not as it is by default, and means something, is named."""
    first, differing = comparison.runs[0], comparison.differing
    s, seeds = asked_for(first.settings), sorted({run.seed for run in comparison.runs})
    slow = stragglers(s)
    who = f"agent{'s' * (len(slow) > 1)} {_and(slow)}" if len(slow) <= MANY else f"{len(slow)} agents"
    hub = ", the hub of the star" * (s["topology"] == "star" and 0 in slow)  # where servers are
    slower = f" ({who}{hub}, {s['slowdown']:g} times slower)" * bool(slow)
    which = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    agents = f"{s['agents']} agents on {without_folder(s['topology'])}" if s["agents"] > 1 else "1 agent"
    idle = s.idle()
    shares = _split(s) if s.get("partition") and "partition" not in idle else ""
    agents = agents if "topology" not in differing else f"{s['agents']} agents"
    until = f"to time {s['until']:g}" + " or the target" * (s.get("stop_at") == "target")
    said: dict[tuple[str, ...], str] = {
        ("task",): without_folder(s["task"]), ("model", "width"): _network(s),
        ("case", "straggler", "slowdown"): f"case {s['case']}{slower}",
        ("agents",): agents, ("partition", "skew", "dirichlet"): shares,
        **{(k,): f"{WORDS.get(k, k)} {_said(k, v)}".strip() for k, v in s.departures().items()
           if k not in IN_ITS_WORDS and k not in idle and v != []},
        ("until", "stop_at"): until, (): which,
    }  # fmt: skip
    common = [words for names, words in said.items() if words and not differing.keys() & {*names}]
    return "; ".join([", ".join(common), *_varied(differing)])


def _network(s: Mapping[str, Any]) -> str:
    """The network that is trained, and its width where that is not its usual one."""
    name, width = s.get("model"), s.get("width")
    return f"{name}{f' of width {width}' if width else ''}" if name else ""


def _varied(differing: Mapping[str, Sequence[object]]) -> list[str]:
    """What differs, each with its values, if they are few."""
    some = {name: " | ".join(map(value_text, values)) for name, values in differing.items()}
    many = {name: f"{len(values)} values" for name, values in differing.items() if len(values) > MANY}
    return [f"{WORDS.get(name, name) or name} {words}" for name, words in (some | many).items()]


def _and(agents: Sequence[int]) -> str:
    *before, last = [str(agent) for agent in agents] or [""]
    return f"{', '.join(before)} and {last}" if before else last


def _split(s: Mapping[str, Any]) -> str:
    name, _, parameter = str(s["partition"]).partition(":")
    known = {"skew": f"label skew {parameter}", "dirichlet": f"Dirichlet {parameter}"}
    return known.get(name, f"partition {s['partition']}")


def _said(name: str, value: object) -> str:
    if value is True or name == "judge":
        return JUDGED[str(value)] if name == "judge" else ""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{1000 * value:g} ms" if name == "unit" else f"{value:g}"
    if isinstance(value, list | tuple) and len(value) > MANY:
        return f"{value[0]} and {len(value) - 1} more"
    return " and ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
