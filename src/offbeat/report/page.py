"""The report: one HTML page that needs nothing else, not even a network."""

from __future__ import annotations

import html
import platform
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from importlib import resources
from math import nan
from string import Template

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.offline import get_plotlyjs

from offbeat.algorithms import ALGORITHMS
from offbeat.errors import OffbeatError
from offbeat.report.figures import bars, curves, exploded, graph
from offbeat.report.table import cells, headline, notes
from offbeat.report.timeline import shown, timelines
from offbeat.results import VERSION, Comparison, Run
from offbeat.tasks import TASKS
from offbeat.topology import build


def page(comparison: Comparison) -> str:
    """The whole page as one string."""
    shelf = Shelf()
    if not comparison.runs:
        return _document("No run was finished", "<h1>No run was finished</h1>", shelf)
    title = headline(comparison)
    body = [
        f"<h1>{_e(title)}</h1>",
        "<p>Algorithms for decentralized SGD, compared in one simulated world: all meet the same delays, losses, "
        "crashes and minibatches. The unit of time is the mean time of one gradient of an agent that is not slow.</p>",
        "<h2>Results</h2>", *_results(comparison),
        "<h2>Learning</h2>", *_learning(comparison, shelf),
        "<h2>Communication and consensus</h2>", *_communication(comparison, shelf),
        "<h2>What the agents did</h2>", *_agents(comparison, shelf),
        "<h2>Run it again</h2>", *_again(comparison),
    ]  # fmt: skip
    return _document(title, "\n".join(body), shelf)


class Shelf:
    """The figures of a page, numbered in the order in which they were put there."""

    def __init__(self) -> None:
        self.figures: dict[str, go.Figure] = {}

    def put(self, figure: go.Figure, caption: str) -> str:
        """The HTML of a figure; the caption is HTML."""
        number = len(self.figures) + 1
        self.figures[f"figure-{number}"] = figure
        return (
            f'<figure><div id="figure-{number}" style="height:{figure.layout.height}px"></div>'
            f"<figcaption><b>Figure {number}.</b> {caption}</figcaption></figure>"
        )


def _document(title: str, body: str, shelf: Shelf) -> str:
    figures = ",".join(f'"{name}":{figure.to_json()}' for name, figure in shelf.figures.items())
    skeleton = Template(resources.files("offbeat.report").joinpath("page.html").read_text("utf-8"))
    return skeleton.substitute(
        title=_e(title), body=body, version=_e(VERSION), plotly=get_plotlyjs(),
        figures="{" + figures.replace("<", "\\u003c") + "}",
    )  # fmt: skip


def _e(text: object) -> str:
    return html.escape(str(text))


def _linked(text: str) -> str:
    """Escaped, with links to the papers on arXiv."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">\g<0></a>', _e(text))


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], name: str, best: Sequence[int] = ()) -> str:
    """A table that scrolls in a box of its own; the cells are HTML."""
    head = "".join(f'<th scope="col">{cell}</th>' for cell in heads)
    body = "".join(
        f"<tr{' class=best' if index in best else ''}>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n"
        for index, row in enumerate(rows)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table class="{name}">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )


# -- results and figures ---------------------------------------------------------------------------


def _results(comparison: Comparison) -> list[str]:
    heads, rows = cells(comparison)
    best = [index for index, row in enumerate(rows) if row[2] == "1.00x"]
    return [
        _table([_e(head) for head in heads], [[_e(cell) for cell in row] for row in rows], "results", best),
        *(f'<p class="soft">{_linked(note)}</p>' for note in notes(comparison)),
        '<p class="soft">updates: gradients applied by all agents; consensus: root mean square distance of the agents’ '
        "models from the average model; B and D, the constants of assumption 3.3 of "
        f"{_linked('arXiv:2505.10322')}, measured: every agent writes in every window of B iterations, and no model "
        "that was mixed in was older than D iterations.</p>",
    ]


def _row(*figures: str) -> str:
    """Side by side, or below each other on a narrow screen."""
    return f'<div class="pair">{"".join(figures)}</div>' if len(figures) > 1 else "".join(figures)


def _loss(comparison: Comparison) -> str:
    quadratic = comparison.runs[0].settings["task"] == "quadratic"
    return "The gap to the optimum" if quadratic else "The loss on all training data"


def _learning(comparison: Comparison, shelf: Shelf) -> list[str]:
    """Loss and accuracy over time and updates, and the time to target."""
    first, seeds = comparison.runs[0], len({run.seed for run in comparison.runs})
    reading = f"Lines are medians over {seeds} seeds, bands reach from the smallest to the largest. " * (seeds > 1)
    if any(run.diverged_at is not None for run in comparison.runs):
        reading += "A cross ends the line of an algorithm that diverged. "
    if any(exploded(run) and run.diverged_at is None for run in comparison.runs):
        reading += "A line that ends at the upper border goes on far above it."
    reading = f"<p>{reading}</p>" * bool(reading)
    over = {
        "time": "over simulated time: what is gained in the same time",
        "updates": "over the gradients applied by all agents: what is gained from the same work",
    }

    def loss(x: str) -> str:
        caption = f"{_loss(comparison)}, of the average of all agents’ models, {over[x]}."
        return shelf.put(curves(comparison, x, "loss"), caption)

    def accuracy(x: str) -> str:
        caption = f"The accuracy of the same average model on the test data, {over[x]}."
        return shelf.put(curves(comparison, x, "accuracy"), caption)

    def target() -> list[str]:
        if first.settings["target"] is None:
            return []
        caption = "Simulated time of the first evaluation at which the average model met the target"
        caption += ": median, and smallest to largest over the seeds" * (seeds > 1)
        return [shelf.put(bars(comparison), f"{caption}. Shorter is better; hatched bars never met it.")]

    if first.measure != "accuracy":
        return [reading, _row(loss("time"), loss("updates")), *target()]
    return [
        reading,
        _row(loss("time"), accuracy("time")),
        *target(),
        _row(loss("updates"), accuracy("updates")),
    ]


def _communication(comparison: Comparison, shelf: Shelf) -> list[str]:
    """What was sent for it, and how far apart the agents are."""
    runs, parts = comparison.runs, []
    if any(run.megabytes for run in runs):
        accurate = runs[0].measure == "accuracy"
        caption = (
            f"{'Test accuracy' if accurate else _loss(comparison)} of the average model, over what all agents sent."
        )
        figure = curves(comparison, "megabytes", "accuracy" if accurate else "loss")
        parts.append(shelf.put(figure, f"{caption} 1 MB is 10<sup>6</sup> bytes."))
    if any(value for run in runs for value in run.curve.consensus):
        caption = (
            "Consensus: the root mean square distance of the agents’ models from their average; 0 if all are equal."
        )
        parts.append(shelf.put(curves(comparison, "time", "consensus"), caption))
    return [_row(*parts)] if parts else ["<p>Nothing was sent.</p>"]


def _agents(comparison: Comparison, shelf: Shelf) -> list[str]:
    """The timelines, and the graph."""
    runs = comparison.runs
    traced: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: run.curve.time[-1]):  # a run that diverged early shows little
        if run.trace is not None:
            traced[run.algorithm] = run
    traced = {run.algorithm: traced[run.algorithm] for run in runs if run.algorithm in traced}
    slow, n = runs[0].settings["straggler"], runs[0].topology.n
    parts = []
    if traced:
        first = next(iter(traced.values()))
        rows = len(shown(first))
        caption = (
            f"Who computed (upper bar), sent (lower bar) and waited when, with seed {first.seed}, in the same window "
            "of time. Yellow: alive, but without a gradient to compute."
            + (f" Agent {slow} is the straggler." if slow is not None else "")
            + (" Left blank: a gradient that a crash cut off." if runs[0].settings["crash"] else "")
            + (f" {rows} of {n} agents are shown." if rows < n else "")
        )
        parts.append(shelf.put(timelines(traced), caption))
    if n == 1:
        return parts
    directed = runs[0].topology.graph.is_directed()
    edges = "an edge from each sender to its receiver" if directed else "an edge between those that exchange models"
    caption = f"The communication graph, {_e(runs[0].topology.name)}, of {n} agents: {edges}."
    return [*parts, f'<div class="pair">{shelf.put(graph(runs[0]), caption)}</div>']


# -- run it again ----------------------------------------------------------------------------------


def _again(comparison: Comparison) -> list[str]:
    line, missing = command(comparison)
    how = "<pre><code>" + re.sub(r"(?<= )--[a-z-]+", r"<span>\g<0></span>", _e(line)) + "</code></pre>"
    if missing:
        how = (
            f"<p>The command line has no words for {_e(' and '.join(missing))}. From Python, "
            "<code>offbeat.compare</code> runs this again, with the objects that were given to it and the settings "
            "below.</p>"
        )
    settings = [[_e(name), _e(_text(value))] for name, value in _common(comparison).items()]
    papers = []
    for name in dict.fromkeys(run.algorithm for run in comparison.runs):
        row = ALGORITHMS.get(_base(name))
        said = f"{row.title}; {row.paper}. An agent waits for {row.waits_for}." if row else "not one of offbeat’s own."
        papers.append(f"<li><b>{_e(name)}</b>: {_linked(said)}</li>")
    return [
        how,
        f"<p>Made with offbeat {_e(VERSION)}, Python {platform.python_version()}, PyTorch {_e(torch.__version__)} and "
        f"NumPy {_e(np.__version__)}.</p>",
        "<h3>Settings</h3>", _table(["name", "value"], settings, "settings"),
        *_tuning(comparison),
        "<h3>Runs</h3>", *_runs(comparison),
        "<h3>Algorithms</h3>", f"<ul>{''.join(papers)}</ul>",
    ]  # fmt: skip


def _runs(comparison: Comparison) -> list[str]:
    rows = [
        [_e(run.algorithm), f"{run.lr:g}", str(run.seed), _reached(run.time_to_target), f"{run.updates:,}",
         f"{run.wall_s:.1f}", f'<code title="{_e(run.digest)}">{_e(run.digest[:16])}</code>']
        for run in comparison.runs
    ]  # fmt: skip
    return [
        "<p>The digest is the SHA-256 of the whole trace and the final models; here are its first 16 digits.</p>",
        _table(["algorithm", "step", "seed", "time to target", "updates", "seconds", "digest"], rows, "runs"),
    ]


def _tuning(comparison: Comparison) -> list[str]:
    """What the steps of the grid gave, where they were tuned."""
    rows = []
    for (name, chosen), runs in comparison.groups().items():
        for lr, outcome in (runs[0].tuning or {}).items():
            loss = "diverged" if outcome["loss"] is None else f"{outcome['loss']:.4g}"
            rows.append([_e(name), f"{lr:g}", _reached(outcome["time_to_target"]), loss, "chosen" * (lr == chosen)])
    if not rows:
        return []
    about = "<p>All steps that were tried, in a world of another seed than those compared.</p>"
    return ["<h3>Tuning</h3>", about, _table(["algorithm", "step", "time to target", "loss", ""], rows, "tuning")]


def _reached(time: float | None) -> str:
    return "never" if time is None else f"{time:,.6g}"


def _base(algorithm: str) -> str:
    """An algorithm's name without its options."""
    return algorithm.partition(":")[0]


def _text(value: object) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, list | tuple):
        return "; ".join(map(_text, value)) or "none"
    return "none" if value is None else str(value)


def _common(comparison: Comparison) -> dict[str, object]:
    """All settings but the algorithms and their steps; several values where the runs differ."""
    runs = comparison.runs
    found: dict[str, object] = {}
    for name in runs[0].settings:
        values = list({_text(run.settings.get(name)): run.settings.get(name) for run in runs}.values())
        found[name] = values[0] if len(values) == 1 else values
    seeds = sorted({run.seed for run in runs})
    return {k: v for k, v in found.items() if k not in ("algorithm", "lr", "seed")} | {
        "seeds": ", ".join(map(str, seeds))
    }


def command(comparison: Comparison) -> tuple[str, list[str]]:
    """The command line that makes these runs again, and what it has no words for."""
    s, steps = _common(comparison), _steps(comparison)
    names = list(dict.fromkeys(run.algorithm for run in comparison.runs))
    first, seeds = comparison.runs[0], sorted({run.seed for run in comparison.runs})
    missing = [f"the algorithm {name}" for name in names if _base(name) not in ALGORITHMS]
    missing += [] if s["task"] in TASKS else [f"the task {s['task']}"]
    missing += [] if _named(first) else [f"the graph {s['topology']}"]
    missing += [f"measured delays of {name}" for name in ("compute", "communication") if s[name] == "empirical"]
    missing += ["such a choice of steps"] if steps is None else []
    if any(s[name] != value for name, value in first.settings.items() if name in s):
        missing.append("several experiments in one")
    split = "skew" if s["dirichlet"] is None else "dirichlet"
    slow = [] if s["case"] == "base" else ["straggler", "slowdown"]
    given = ["agents", "topology", split, "data", "case", *slow, "compute", "communication", "loss", "batch", "reg",
             "until", "target", "eval_every", "executor"]  # fmt: skip
    given = [name for name in given if (name, s[name]) not in (("loss", 0.0), ("executor", "batched"))]
    options = [("task", s["task"]), ("algorithms", ",".join(names)), *((name, s[name]) for name in given)]
    options += [("crash", crash) for crash in first.settings["crash"]] + [("lr", lr) for lr in steps or []]
    options += [("seed", seeds[0]), ("seeds", seeds[-1] - seeds[0] + 1)]
    words = [f"--{k.replace('_', '-')} {shlex.quote(_text(v))}" for k, v in options if v is not None]
    return " ".join(["offbeat compare", *words]), missing


def _named(run: Run) -> bool:
    """Whether the name of its topology makes the same graph with the same weights."""
    try:
        made = build(str(run.settings["topology"]), run.topology.n, run.seed)
    except OffbeatError:
        return False
    return bool((abs(made.w - run.topology.w).max() == 0) and (abs(made.a - run.topology.a).max() == 0))


def _steps(comparison: Comparison) -> list[str] | None:
    """The values of --lr: one for all, or several, or "tuned", and then those of single algorithms."""
    asked: dict[str, tuple[float, ...] | str] = {}
    own: dict[str, float] = {}
    for (name, lr), runs in comparison.groups().items():
        row = ALGORITHMS.get(_base(name))
        scale = runs[0].topology.n if row is not None and row.times_n else 1
        step = next((x for x in (float(f"{lr / scale:.12g}"), lr / scale) if x * scale == lr), nan)  # nan: only its own
        before = asked.get(name, ())
        asked[name] = "tuned" if runs[0].tuning is not None or isinstance(before, str) else (*before, step)
        own[name] = lr
    many = [steps for steps in asked.values() if len(steps) > 1]
    common = many[0] if many else Counter(asked.values()).most_common(1)[0][0]
    base = common if isinstance(common, str) else ",".join(map(_text, common))
    others = [name for name, steps in asked.items() if steps != common or "nan" in base]
    if any(len(asked[name]) > 1 for name in others):
        return None
    return [base] * ("nan" not in base) + [f"{name}={_text(own[name])}" for name in others]
