"""The command line of predictions."""

import json as json_format
from pathlib import Path
from typing import Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from offbeat.algorithms import ALGORITHMS
from offbeat.cli.options import JSON, QUIET, option, with_settings
from offbeat.cli.outputs import Outputs, check_writable
from offbeat.core.settings import LEARNING, TASK
from offbeat.core.system.files import write_atomically
from offbeat.engines.trace import Trace, folder_of
from offbeat.experiments import predicting
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.loading import run_in
from offbeat.experiments.predicting import AS_IT_WAS, Prediction, Summary
from offbeat.results.values import VERSION, time_text
from offbeat.results.wording import target_name
from offbeat.world.world import CASES

WHAT = "What is predicted"
PANELS = {TASK: WHAT, LEARNING: WHAT}
RECORDED = {"topology": None, "case": None}
SETTINGS = ("topology", "until", "case", "straggler", "slowdown")
HELPS = {
    "topology": "Who hears whom; default: the recorded graph.",
    "until": "When it ends, in the units of the run (of a script: seconds).",
    "case": f"{', '.join(CASES)}: all agents are like the median agent, then the case is applied. "
    "Default: every agent is as slow as it was.",
}
"""Where it is other than in compare."""

TRACE = "A folder that 'offbeat live' or 'offbeat launch' wrote, or its trace.npz."
OTHER = f"One of {', '.join(ALGORITHMS)}, or your own, FILE.py:NAME; default: the recorded one."


@with_settings(Experiment, panels=PANELS, helps=HELPS, last=True, only=SETTINGS, defaults=RECORDED)
def predict(
    asked: dict[str, Any],
    trace: Path = typer.Argument(help=TRACE),
    algorithm: str | None = option(None, WHAT, OTHER),
    lr: float | None = option(None, WHAT, "The learning rate; default: the recorded one."),
    json: Path | None = JSON,
    quiet: bool = QUIET,
) -> None:
    """Say what another algorithm, graph or straggler would give, from the times measured in one live run.

    How long gradients and messages took is measured in the trace, for every agent. The simulator runs with
    these times: first what was recorded, which tells the error of the prediction, then what you ask for.
    Where the task is known (traces of 'offbeat live') it is trained, and you see the time to the target; of a
    script of your own the schedule is predicted: steps, waiting, staleness.

    Example: a run without a straggler tells what one would cost

      offbeat live --algorithms adsgd --until 600 --unit 5ms --out run
      offbeat predict run/adsgd-lr0.01 --algorithm dsgd \\
          --case comp-straggler --slowdown 10
    """
    check_writable(json)
    found = predicting.predict(Trace.load(trace), algorithm, lr=lr, reached=run_in(folder_of(trace)), **asked)
    output = Outputs(quiet)

    def save(path: Path) -> None:
        record = {"offbeat": VERSION, "trace": str(trace), **found.record()}
        write_atomically(path, (json_format.dumps(record, indent=1, allow_nan=False) + "\n").encode())

    output.save(json, save)
    output.show(lambda width: Group(_table(found), *(Text(note, "dim") for note in _notes(found))))
    output.close()


def _table(found: Prediction) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    heads = ["", "algorithm, graph, case", "steps an agent", "steps/s", "error", "waiting", "D", "age"]
    if found.predicted.known:
        run = found.predicted.runs[0]
        heads += [target_name(run), "accuracy" if run.measure == "accuracy" else "loss"]
    for index, head in enumerate(heads):
        table.add_column(head, justify="left" if index < 2 else "right", no_wrap=index != 1)
    rows = {
        "recorded": _cells(found.recorded),
        "predicted": _cells(found.again, f"{found.error:+.1f} %", found.time_error),
        "asked for": _cells(found.predicted),
    }
    for name, cells in rows.items():
        table.add_row(name, *cells[: len(heads) - 1])
    return table


def _cells(s: Summary, error: str = "-", late: float | None = None) -> list[str]:
    mean, low, high = sum(s.steps) / len(s.steps), min(s.steps), max(s.steps)
    spread = f"{low:,}" if low == high else f"{mean:,.0f} [{low:,}-{high:,}]"
    largest = "-" if s.staleness.D is None else str(s.staleness.D)
    age = "-" if s.age is None else f"{s.age:.1f}"
    named = ", ".join((s.algorithm, s.topology, s.case))
    cells = [named, spread, f"{s.per_second:,.1f}", error, f"{100 * s.waiting:.0f} %", largest, age]
    if not s.known:
        return [*cells, "-", "-"]
    middle, first, last = map(time_text, s.times)
    accuracy, loss = s.score("accuracy"), s.score("loss")
    score = "diverged" if loss is None else f"{loss:.4g}"
    time = middle if first == last else f"{middle} [{first}-{last}]"
    cells.append(time if late is None else f"{time} {late:+.0f} %")
    return [*cells, score if accuracy is None else f"{100 * accuracy:.1f} %"]


def _notes(found: Prediction) -> list[str]:
    worst = max(found.errors, key=abs)
    what = "Recorded: what the trace holds; predicted: the same run, simulated with the times measured in it."
    if found.again.case == AS_IT_WAS:
        what += f" {AS_IT_WAS}: every agent with its own times."
    said = [
        what,
        f"error: predicted over recorded steps, minus 1; the largest of one agent is {worst:+.1f} %. "
        f"One unit of time is {found.unit:g} s.",
        "waiting: share of the time without a gradient to compute. Predictions are means of "
        f"{predicting.REPEATS} runs, and medians [smallest-largest] for the time to the target.",
        "D, age: how many iterations old the models were that agents mixed in: the oldest of those that "
        "neighbours read when they like, and the mean of all. -: there is none, or a trace does not tell.",
    ]
    if found.time_error is not None:
        said.append("Beside the predicted time to the target: predicted over recorded time, minus 1.")
    if found.again.known and not found.recorded.known:
        where = "the trace is not in its folder of offbeat live, or the run has not ended"
        said.append(f"What the recorded run reached is not known: {where}.")
    if (counted := sum(found.recorded.steps)) < found.made:
        start, end = found.window
        said.append(
            f"Of {found.made:,} recorded steps {counted:,} are counted: those from {start:.4g} to {end:.4g}, "
            "while all agents were training."
        )
    if found.paused:
        paused = f"{found.paused:.4g} units of the recorded run"
        said.append(f"All agents stood still at once for {paused}; left out.")
    if abs(found.error) > 10:
        said.append("The fitted times do not give the recorded run within 10 %; take it with care.")
    return said
