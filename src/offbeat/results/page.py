"""The report: one HTML page that needs nothing else, not even a network. It ends with how to run it again."""

import html
import platform
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import resources
from itertools import chain
from math import nan
from string import Template

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.offline import get_plotlyjs

from offbeat.algorithms import ALGORITHMS
from offbeat.core.settings import as_word
from offbeat.results import details
from offbeat.results.curves import curves
from offbeat.results.figure import Figure
from offbeat.results.figures import graph
from offbeat.results.rates import Rate
from offbeat.results.table import (
    VERSUS,
    cells,
    gap_known,
    headline,
    how_tuned,
    judged_model,
    lost_again,
    notes,
    tried,
    tuned,
)
from offbeat.results.timeline import shown, timelines
from offbeat.results.times import bars
from offbeat.results.values import VERSION, ComparisonValues, stragglers, time_text
from offbeat.results.who_holds import who_holds
from offbeat.tasks.metrics.evaluation import AVERAGE


def page(comparison: ComparisonValues) -> str:
    shelf = Shelf()
    if not comparison.runs:
        return _document("No run was finished", "<h1>No run was finished</h1>", shelf)
    title, unit = headline(comparison), comparison.runs[0].settings.get("unit")
    where = "one simulated world" if unit is None else "real processes with the delays of one emulated world"
    real = "" if unit is None else f", {1000 * unit:g} ms"
    same = "all meet the same delays, crashes and minibatches, and published models the same losses"
    time = f"The unit of time is the mean time of one gradient of an agent that is not slow{real}"
    body = [
        f"<h1>{escaped(title)}</h1>",
        f"<p>Algorithms for decentralized SGD, compared in {where}: {same}. {time}.</p>",
        "<h2>Results</h2>", *_results(comparison),
        "<h2>Learning</h2>", *_learning(comparison, shelf),
        "<h2>Communication and consensus</h2>", *_communication(comparison, shelf),
        *_asked(comparison, shelf), *_data(comparison, shelf),
        "<h2>What the agents did</h2>", *_agents(comparison, shelf),
        "<h2>Run it again</h2>", *again(comparison),
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
        place = f'<div id="figure-{number}" style="height:{figure.layout.height}px"></div>'
        return f"<figure>{place}<figcaption><b>Figure {number}.</b> {caption}</figcaption></figure>"

    def describe(self, figure: Figure, caption: str) -> str:
        """The same of a description, whose notes go into the caption."""
        said = " ".join([caption, *map(escaped, figure.notes)])
        return self.put(replace(figure, notes=()).plotly(), said)


def _document(title: str, body: str, shelf: Shelf) -> str:
    figures = ",".join(f'"{name}":{figure.to_json()}' for name, figure in shelf.figures.items())
    skeleton = Template(resources.files("offbeat.results").joinpath("page.html").read_text("utf-8"))
    return skeleton.substitute(
        title=escaped(title), body=body, version=escaped(VERSION), plotly=get_plotlyjs(),
        figures="{" + figures.replace("<", "\\u003c") + "}",
    )  # fmt: skip


def _results(comparison: ComparisonValues) -> list[str]:
    heads, rows = cells(comparison)
    best = [index for index, row in enumerate(rows) if row[heads.index(VERSUS)] == "1.00x"]
    return [
        table(heads, rows, "results", best),
        *(f'<p class="soft">{linked(note)}</p>' for note in notes(comparison)),
        '<p class="soft">updates: gradients applied by all agents; consensus: root mean square distance of '
        "the agents’ models from the average model; B and D, the constants of assumption 3.3 of "
        f"{linked('arXiv:2505.10322')}, measured: every agent writes in every window of B iterations, and no "
        "model that was mixed in was older than D iterations.</p>",
    ]


def _row(*figures: str) -> str:
    """Side by side, or below each other on a narrow screen."""
    return f'<div class="pair">{"".join(figures)}</div>' if len(figures) > 1 else "".join(figures)


def _loss(comparison: ComparisonValues) -> str:
    return "The gap to the optimum" if gap_known(comparison.runs[0]) else "The loss on all training data"


def _learning(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    first = comparison.runs[0]
    clock = "simulated time" if first.settings.get("unit") is None else "time"
    work = "over the gradients applied by all agents: what is gained from the same work"
    over = {"time": f"over {clock}: what is gained in the same time", "updates": work}
    judged = judged_model(first).replace("'", "’")
    what = {"loss": f"{_loss(comparison)}, of {judged}"}
    if first.measure == "accuracy":
        same = "the same average model" if first.settings.get("judge", AVERAGE) == AVERAGE else judged
        what["accuracy"] = f"The accuracy of {same} on the test data"

    def drawn(x: str, y: str) -> str:
        return shelf.describe(curves(comparison, y, x), f"{what[y]}, {over[x]}.")

    figures = [drawn("time", y) for y in what]
    if first.measure != "accuracy":
        figures.append(drawn("updates", "loss"))
    parts = [_row(*figures)]
    if first.settings["target"] is not None:
        caption = f"{clock.capitalize()} until the target was first met, interpolated between "
        caption += "evaluations. Shorter is better."
        parts.append(shelf.describe(bars(comparison), caption))
    if first.measure == "accuracy":
        parts.append(_row(*(drawn("updates", y) for y in what)))
    return parts


def _communication(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    runs, parts = comparison.runs, []
    if any(run.megabytes for run in runs):
        y, score = "loss", _loss(comparison)
        if runs[0].measure == "accuracy":
            y, score = "accuracy", "Test accuracy"
        whose = (
            "average model" if runs[0].settings.get("judge", AVERAGE) == AVERAGE else "model that is judged"
        )
        caption = f"{score} of the {whose}, over what all agents sent. 1 MB is 10<sup>6</sup> bytes."
        parts.append(shelf.describe(curves(comparison, y, "megabytes"), caption))
    if any(value for run in runs for value in run.curve.consensus):
        caption = "how far the agents’ models are from their average (root mean square); 0 if equal."
        parts.append(shelf.describe(curves(comparison, "consensus"), f"Consensus: {caption}"))
    return [_row(*parts)] if parts else ["<p>Nothing was sent.</p>"]


def _asked(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    """Figures of what is measured only where it is asked for."""
    said = details.captions(comparison)
    made = [shelf.describe(curves(comparison, name), caption) for name, caption in said.items()]
    rows = [_row(*made[at : at + 2]) for at in range(0, len(made), 2)]
    rows += [shelf.put(figure, caption) for figure, caption in details.figures(comparison)]
    return ["<h2>What else was measured</h2>", *rows] if rows else []


def _data(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    run = comparison.runs[0]
    if run.holdings is None:
        return []
    caption = f"How many samples each agent has, with seed {run.seed}"
    caption += "; the area of a bubble is how many of a class." * bool(run.holdings.classes)
    return ["<h2>The data</h2>", shelf.put(who_holds(run), caption)]


def _agents(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    runs, parts = comparison.runs, []
    slow, n, differing = stragglers(runs[0].settings), runs[0].settings["agents"], comparison.differing
    named = [(comparison.label(key, lr=False), each) for key, each in comparison.groups().items()]
    # A run that diverged early shows little: of each algorithm the longest.
    held = [(name, run) for name, each in named for run in each if run.trace is not None]
    longest = dict(sorted(held, key=lambda pair: pair[1].curve.time[-1]))
    names = dict.fromkeys(name for name, _ in named)
    if traced := {name: longest[name] for name in names if name in longest}:
        first = next(iter(traced.values()))
        rows = len(shown(first))
        caption = (
            f"Who computed (upper bar), sent (lower bar) and waited when, with seed {first.seed}, in the "
            "same window of time. Yellow: alive, but without a gradient to compute."
            + (
                f" Of stragglers ({', '.join(map(str, slow))}) the number is bold."
                if slow and not differing
                else ""
            )
            + (" Left blank: a gradient that a crash cut off." if runs[0].settings["crash"] else "")
            + (f" {rows} of {n} agents are shown." if rows < n and "agents" not in differing else "")
        )
        parts.append(shelf.put(timelines(traced), caption))
    missing = [name for name in names if name not in traced]
    if missing and runs[0].graph is None:
        parts.append('<p class="soft">The runs were loaded from files, without traces: no timelines.</p>')
    elif missing:
        why = "the trace was not held, as it is not where it would take too much memory"
        parts.append(f'<p class="soft">No timeline of {escaped(", ".join(missing))}: {why}.</p>')
    if n > 1 and not differing.keys() & {"topology", "agents"} and runs[0].has_topology:
        topology = runs[0].topology
        edge = "an edge between those that exchange models"
        if topology.graph.is_directed():
            edge = "an edge from each sender to its receiver"
        caption = f"The communication graph, {escaped(topology.name)}, of {n} agents: {edge}."
        parts.append(f'<div class="pair">{shelf.put(graph(runs[0]), caption)}</div>')
    return parts


def again(comparison: ComparisonValues) -> list[str]:
    several = [command(world) for world in comparison.split().values()]
    missing = [*dict.fromkeys(thing for _, things in several for thing in things)]
    lines = "\n".join(escaped(line) for line, _ in several[:COMMANDS])
    lines += f"\n# and {len(several) - COMMANDS} more" if len(several) > COMMANDS else ""
    how = "<pre><code>" + re.sub(r"(?<= )--[a-z-]+", r"<span>\g<0></span>", lines) + "</code></pre>"
    if missing:
        how = f"<p>The command line has no words for {escaped(' and '.join(missing))}. From Python, "
        how += "<code>offbeat.compare</code> runs this again, with the objects that were given to it and the "
        how += "settings below.</p>"
    papers = []
    for name in dict.fromkeys(run.algorithm for run in comparison.runs):
        said = "not one of offbeat’s own."
        if row := ALGORITHMS.get(name.partition(":")[0]):
            said = f"{row.title}; {row.paper}. An agent waits for {row.waits_for}."
        papers.append(f"<li><b>{escaped(name)}</b>: {linked(said)}</li>")
    settings = [[name, _text(value)] for name, value in _common(comparison).items()]
    heads, rates = tried(comparison)
    tuning = ["<h3>Tuning</h3>", *(f"<p>{escaped(said)}</p>" for said in how_tuned(comparison))]
    rows = []
    for run in comparison.runs:
        met = time_text(run.time_to_target) + ", then diverged" * lost_again(run)
        rows.append([run.algorithm, f"{run.lr:g}", str(run.seed), met, f"{run.updates:,}", run.digest])
    runs = table(["algorithm", "lr", "seed", "time to target", "updates", "digest"], rows, "runs")
    about = "The digest is the SHA-256 of the whole trace and the final models; here are its first 16 digits."
    short = re.sub(r"(?<=>)([0-9a-f]{16})[0-9a-f]{48}(?=<)", r'<code title="\g<0>">\1</code>', runs)
    return [
        how,
        f"<p>Made with offbeat {escaped(VERSION)}, Python {platform.python_version()}, "
        f"PyTorch {escaped(torch.__version__)} and NumPy {escaped(np.__version__)}.</p>",
        "<h3>Settings</h3>", table(["name", "value"], settings, "settings"),
        *([*tuning, table(heads, rates, "tuning")] if rates else []),
        "<h3>Runs</h3>", f"<p>{about}</p>", short,
        "<h3>Algorithms</h3>", f"<ul>{''.join(papers)}</ul>",
    ]  # fmt: skip


def _text(value: object) -> str:
    if isinstance(value, dict):
        return _text([f"{name} {each}" for name, each in value.items()])
    if isinstance(value, list | tuple):
        return "; ".join(map(as_word, value)) or "none"
    return "none" if value is None else as_word(value)


def _common(comparison: ComparisonValues) -> dict[str, object]:
    """All settings but the algorithms and their learning rates; all stragglers, where seeds have own ones."""
    runs = comparison.runs
    told = ("algorithm", "lr", "lr_said", "seed", "own")
    found = {name: value for name, value in runs[0].settings.items() if name not in told}
    found["code"] = {k: v for run in runs for k, v in (run.settings.get("code") or {}).items()}
    if len(slow := list(dict.fromkeys(",".join(map(str, stragglers(run.settings))) for run in runs))) > 1:
        found["straggler"] = slow
    found |= comparison.differing
    return found | {"seeds": ", ".join(map(str, sorted({run.seed for run in runs})))}


def command(comparison: ComparisonValues) -> tuple[str, list[str]]:
    """The command line that makes these runs again, and what it has no words for."""
    lrs, tuned_how = _lrs(comparison), _tuned(comparison)
    first, seeds = comparison.runs[0].settings, sorted({run.seed for run in comparison.runs})
    missing = list(dict.fromkeys(thing for run in comparison.runs for thing in run.settings["own"]))
    missing += ["such a choice of learning rates"] * (lrs is None or tuned_how is None)
    every_own = len({str(run.settings["straggler"]) for run in comparison.runs}) > 1  # every graph's centre
    live = "unit" in first
    task, *others = (first | ({"straggler": None} if every_own else {})).words(live)
    names = ",".join(dict.fromkeys(run.settings["algorithm"] for run in comparison.runs))
    options = [task, ("algorithms", names), *others, *(("lr", lr) for lr in lrs or [])]
    options += [("fault", fault) for fault in first.get("faults", [])] + (tuned_how or [])
    options += [("unit", f"{1000 * first['unit']:g}ms")] if live else []
    options += [("seed", str(seeds[0]))] + [("seeds", str(seeds[-1] - seeds[0] + 1))] * (not live)
    words = [[f"--{name.replace('_', '-')}", *[shlex.quote(value)] * bool(value)] for name, value in options]
    return " ".join(["offbeat live" if live else "offbeat compare", *chain(*words)]), missing


def _tuned(comparison: ComparisonValues) -> list[tuple[str, str]] | None:
    """How learning rates were tuned, as options; None if several ways were used."""
    ways = {(one.by, one.grid, len(one.seeds)) for _, one in tuned(comparison).values()}
    if len(ways) > 1:
        return None
    names = ("tune-by", "tune-grid", "tune-seeds")
    values = [(by, ",".join(map(as_word, grid)), str(count)) for by, grid, count in ways]
    return [option for each in values for option in zip(names, each, strict=True)]


def _lrs(comparison: ComparisonValues) -> list[str] | None:
    """The values of --lr: one for all, or several, or "tuned", and then those of single algorithms."""
    asked: dict[str, tuple[float | str, ...] | str] = {}
    own: dict[str, float | str] = {}
    for (name, lr, _), runs in comparison.groups().items():
        row = ALGORITHMS.get(name.partition(":")[0])
        scale = runs[0].settings["agents"] if row is not None and row.scale_lr_by_n else 1
        bases = (float(f"{lr / scale:.12g}"), lr / scale)
        base_lr: float | str = next((x for x in bases if x * scale == lr), nan)  # nan: only its own
        if said := runs[0].settings.get("lr_said"):
            rate = Rate.of(said).times_n(-1 if scale > 1 else 0)
            base_lr = rate.said if rate.coupled else nan
        before = asked.get(name, ())
        asked[name] = "tuned" if runs[0].tuning is not None or isinstance(before, str) else (*before, base_lr)
        own[name] = said or lr
    many = [rates for rates in asked.values() if len(rates) > 1]
    common = many[0] if many else Counter(asked.values()).most_common(1)[0][0]
    base = common if isinstance(common, str) else ",".join(map(as_word, common))
    others = [name for name, rates in asked.items() if rates != common or "nan" in base]
    if any(len(asked[name]) > 1 for name in others):
        return None
    return [base] * ("nan" not in base) + [f"{name}={as_word(own[name])}" for name in others]


COMMANDS = 12  # lines that run it again, at most: one for each world


def escaped(text: object) -> str:
    return html.escape(str(text))


def linked(text: str) -> str:
    """Escaped, with links to the papers on arXiv."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">\g<0></a>', escaped(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], name: str, best: Sequence[int] = ()) -> str:
    """A table of text that scrolls in a box of its own."""
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in heads)
    body = ""
    for index, row in enumerate(rows):
        line = "".join(f"<td>{escaped(cell)}</td>" for cell in row)
        body += f"<tr{' class=best' * (index in best)}>{line}</tr>\n"
    content = f'<table class="{name}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{content}</div>'
