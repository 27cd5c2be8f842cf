"""What `offbeat show` says of a trace, and of the run of real processes that left it, in sentences."""

import json
import math
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from offbeat.core.settings import declared
from offbeat.core.system.named import Own, without_folder
from offbeat.core.system.reading import content, reading
from offbeat.engines.live.launcher.metrics import LINES
from offbeat.engines.live.settings import RunSettings
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.loading import usual
from offbeat.results.scores import megabytes_text
from offbeat.results.values import value_text

FIRST = {
    "algorithm": "{}", "task": "task {}", "topology": "on the graph {}", "lr": "lr {}", "seed": "seed {}",
    "until": "until {}",
}  # fmt: skip
UNSAID = {*FIRST, "agents", "checkpoint_every"}


def sentences(path: Path) -> Group:
    """What was run, how many steps each agent made, the asynchrony that was measured, the last losses."""
    trace = Trace.load(path)
    with reading(path, "a trace that offbeat wrote"):
        asked = _asked(trace.settings)
    stale, sent = trace.staleness(), float(trace.transmissions["bytes"].sum()) / 1e6
    end = float(trace.events["time"].max()) if len(trace.events) else 0.0
    steps = ", ".join(f"{k}: {n:,}" for k, n in enumerate(trace.updates().tolist()))
    oldest = "D is -: what it mixes comes as mail, whose age is not measured"
    if stale.D is not None:
        oldest = f"no model that is mixed is older than D = {stale.D:,}"
    lines = [
        *asked,
        f"Steps of agents: {steps}.",
        f"{len(trace.events):,} events, {len(trace.writes):,} writes, {len(trace.transmissions):,} "
        f"transmissions, {megabytes_text(sent, math.nan)} MB.",
        f"Every agent writes within B = {stale.B:,} iterations; {oldest}.",
        *_losses(path.parent / LINES, trace.agents),
    ]
    head = Text(f"{path}: a trace of {trace.agents} agents to time {end:g}", style="bold")
    return Group(head, *map(Text, lines))


def _asked(settings: Mapping[str, Any]) -> list[str]:
    """What was run, and what of it was not as usual; nothing of a trace that does not say."""
    known = {**settings, **settings.get("experiment", {})}
    if not known:
        return []
    shown = {name: without_folder(str(known[name])) for name in FIRST if known.get(name) is not None}
    if (own := Own.parse(shown.get("algorithm", ""))) is not None:
        shown["algorithm"] = own.short
    what = ", ".join(FIRST[name].format(value) for name, value in shown.items()).replace(", on ", " on ")
    unit = f"; a unit of time is {known['unit']:g} s" if "unit" in known else ""
    said = [f"Run: {what}{unit}."]
    if "script" in known:
        said.append(f"The script: {shlex.join(map(str, known['script']))}")
    settings_of, whole = {**declared(Experiment), **declared(RunSettings)}, usual() | known
    others = [
        f"{name} {value_text(value)}"
        for name, value in known.items()
        if value is not None and name in settings_of.keys() - UNSAID and not settings_of[name].is_usual(whole)
    ]
    said += [f"Not as usual: {', '.join(others)}."] * bool(others)
    said += [f"Checkpoints: every {known['checkpoint_every']}."] * bool(known.get("checkpoint_every"))
    return said + ["It went on from its checkpoints."] * bool(known.get("resume"))


def _losses(path: Path, agents: int) -> list[str]:
    """What each agent logged last; nothing where no agent logged a loss, or no file says so."""
    if not path.is_file():
        return []
    last = dict[int, float]()
    with reading(path, "the metrics of a live run, a JSON object in each line"):
        for line in reversed(content(path).decode().splitlines()):
            row = json.loads(line)
            if row["loss"] is not None:
                last.setdefault(int(row["agent"]), float(row["loss"]))
            if len(last) == agents:
                break
    each = (f"{k}: {f'{last[k]:.4g}' if k in last else '-'}" for k in range(agents))
    return [f"Last losses that agents logged: {', '.join(each)}."] * bool(last)
