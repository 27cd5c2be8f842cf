"""What is shown of a run that goes on: a line for every agent, for every other machine, and for all."""

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate

from rich.console import ConsoleDimensions, Group, JustifyMethod
from rich.table import Table
from rich.text import Text

from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.launcher.metrics import EVERY, Metrics, state_of
from offbeat.engines.live.shm.board import Row

PATIENCE, STEPS = 5.0, 10.0  # slow is who has made no step for so many seconds and so many mean steps
SILENT = 2.0  # seconds without an answer from a machine after which it is said

COLUMNS = {"agent": 5, "machine": 7, "state": 18, "steps": 9, "rate": 7, "loss": 9, "age": 7, "waited": 7,
           "restarts": 8, "skipped": 7}  # fmt: skip
"""What a line shows, and how wide that is; a narrow terminal shows the first few."""


@dataclass
class View:
    """The words for a run, look by look.

    Attributes:
        about: which of several runs this is, and how far; the line for all begins with it
        entered: when the run began to be seen, in seconds of the monotonic clock
    """

    about: str = ""
    entered: float = field(default_factory=time.monotonic)
    _paces: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    _counted: dict[int, tuple[float, int, float]] = field(default_factory=dict)

    def line(self, launcher: Launcher, metrics: Metrics) -> str:
        """The run in one line: before all have joined how long that has taken, then the run's own time."""
        board = launcher.board
        states = Counter(state_of(launcher, i) for i in range(board.n))
        counts = ", ".join(f"{count} {state}" for state, count in states.items())
        counts += "".join(f", {each}" for each in self._silent(launcher))
        said = f"{self.about}; " if self.about else ""
        if not board.zero:
            return f"{said}{time.monotonic() - self.entered:,.0f} s since the start, no step yet: {counts}"
        seconds = (time.monotonic_ns() - board.zero) / 1e9
        steps, skipped = (int(board.rows[:, row].sum()) for row in (Row.STEPS, Row.SKIPPED))
        said += f"{seconds:,.0f} s: {counts}, {steps:,} steps"
        said += f", {skipped:,} skipped (not finite)" if skipped else ""
        rates = [row["rate"] for row in metrics.rows if row["rate"] is not None]
        return f"{said}, {sum(rates):,.1f}/s" if rates else said

    def state(self, launcher: Launcher, i: int) -> str:
        """Where an agent is, in a few words."""
        state, row, now = state_of(launcher, i), launcher.board.rows[i], time.monotonic_ns()
        if state == "restarting":
            return f"restarting in {max(0.0, launcher.again[i] - now / 1e9):.0f} s"
        if state != "running":
            return state
        first, last, steps = (int(row[k]) for k in (Row.FIRST, Row.LAST, Row.STEPS))
        entered = max(launcher.board.zero, int(launcher.children.running[i].started * 1e9))
        if i not in self._paces or self._paces[i][0] != first:
            self._paces[i] = first, steps, last  # a new life
        _, steps_then, then = self._paces[i]
        mean = (last - then) / (steps - steps_then) if steps > steps_then else first - entered
        silent = (now - (last or entered)) / 1e9
        return f"no step for {silent:.0f} s" if silent > max(PATIENCE, STEPS * mean / 1e9) else state

    def drawing(self, launcher: Launcher, metrics: Metrics, size: ConsoleDimensions) -> Group:
        """All of it, in a terminal of this size: of agents and columns as many as it has room for."""
        width, height = size
        columns = {name: wide for name, wide in COLUMNS.items() if name != "machine" or not launcher.here}
        ends = accumulate(wide + 2 for wide in columns.values())
        names = [name for name, end in zip(columns, ends, strict=True) if end <= width] or ["agent"]
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for name in names:
            justify: JustifyMethod = "left" if name in ("agent", "state") else "right"
            table.add_column(name, justify=justify, no_wrap=True, min_width=min(4, width))
        links = [Text(line) for line in self._links(launcher)]
        n, room = launcher.board.n, max(0, height - 3)
        states = [self.state(launcher, i) for i in range(n)]
        shown = sorted(sorted(range(n), key=lambda i: states[i] == "running")[:room])
        for i in shown:
            cells = _cells(launcher, metrics, i) | {"state": states[i]}
            table.add_row(*(Text(cells[name], overflow="ellipsis") for name in names))
        more = [*links, *unfinished(launcher, shown)][: max(0, room - len(shown))]
        for line in more:
            line.no_wrap, line.overflow = True, "ellipsis"
        below = self.line(launcher, metrics) + (f" ({n - room} agents not shown)" if n > room else "")
        return Group(*([table] if room else []), *more, Text(below, no_wrap=True, overflow="ellipsis"))

    def _silent(self, launcher: Launcher) -> list[str]:
        links = launcher.children.links
        return [f"{each.name} silent for {each.age:.0f} s" for each in links.values() if each.age > SILENT]

    def _links(self, launcher: Launcher) -> list[str]:
        """A line for every machine: when it last answered, and how much comes from there."""
        lines, now = [], time.monotonic()
        for machine, link in launcher.children.links.items():
            then, received, rate = self._counted.get(machine, (now, link.received, 0.0))
            if now - then >= EVERY:
                then, received, rate = now, link.received, (link.received - received) / (now - then)
            self._counted[machine] = then, received, rate
            lines.append(f"{link.name}: heard {_seconds(link.age)} ago, {rate / 1e6:,.1f} MB/s from there")
        return lines


def _cells(launcher: Launcher, metrics: Metrics, i: int) -> dict[str, str]:
    """What a line shows of an agent, but for its state."""
    row, rows = metrics.rows[i] if i < len(metrics.rows) else {}, launcher.board.rows[i]
    loss, rate, children = row.get("loss"), row.get("rate"), launcher.children
    return {
        "agent": str(i), "machine": "" if launcher.here else str(children.machine(i)),
        "steps": f"{int(rows[Row.STEPS]):,}", "rate": "-" if rate is None else f"{rate:.1f}/s",
        "loss": "-" if loss is None else f"{loss:.4g}", "age": _seconds(row.get("age")),
        "waited": _seconds(row.get("waited")), "restarts": str(launcher.restarts[i]),
        "skipped": str(int(rows[Row.SKIPPED])),
    }  # fmt: skip


def labelled(agent: int, line: str) -> Text:
    """A line of an agent's output, with its number before it."""
    return Text.assemble((f"[{agent}] ", f"color({agent % 6 + 1})"), line)


def unfinished(launcher: Launcher, agents: Iterable[int]) -> list[Text]:
    """Of each of these agents the line of output that has not ended yet, a progress bar mostly."""
    running = launcher.children.running
    newest = [(i, running[i].output.newest) for i in agents if i in running]
    return [labelled(i, line) for i, line in newest if line.strip()]


def _seconds(x: float | None) -> str:
    if x is None:
        return "-"
    return f"{1000 * x:.0f} ms" if x < 1 else f"{x:.1f} s" if x < 120 else f"{x / 60:.0f} min"
