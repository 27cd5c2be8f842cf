"""The report: one HTML page that needs nothing else, not even a network."""

from importlib import resources
from string import Template

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from offbeat.results.figures import bars, curves, exploded, graph
from offbeat.results.markup import escaped, linked, table
from offbeat.results.reproduce import again
from offbeat.results.table import cells, gap_known, headline, notes
from offbeat.results.timeline import shown, timelines
from offbeat.results.values import VERSION, ComparisonValues


def page(comparison: ComparisonValues) -> str:
    """The whole page as one string."""
    shelf = Shelf()
    if not comparison.runs:
        return _document("No run was finished", "<h1>No run was finished</h1>", shelf)
    title = headline(comparison)
    body = [
        f"<h1>{escaped(title)}</h1>",
        _about(comparison),
        "<h2>Results</h2>", *_results(comparison),
        "<h2>Learning</h2>", *_learning(comparison, shelf),
        "<h2>Communication and consensus</h2>", *_communication(comparison, shelf),
        "<h2>What the agents did</h2>", *_agents(comparison, shelf),
        "<h2>Run it again</h2>", *again(comparison),
    ]  # fmt: skip
    return _document(title, "\n".join(body), shelf)


def _about(comparison: ComparisonValues) -> str:
    unit = comparison.runs[0].settings.get("unit")
    where = "one simulated world" if unit is None else "real processes with the delays of one emulated world"
    real = "" if unit is None else f", {1000 * unit:g} ms"
    return (
        f"<p>Algorithms for decentralized SGD, compared in {where}: all meet the same delays, crashes and "
        "minibatches, and published models the same losses. The unit of time is the mean time of one "
        f"gradient of an agent that is not slow{real}.</p>"
    )


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
    skeleton = Template(resources.files("offbeat.results").joinpath("page.html").read_text("utf-8"))
    return skeleton.substitute(
        title=escaped(title), body=body, version=escaped(VERSION), plotly=get_plotlyjs(),
        figures="{" + figures.replace("<", "\\u003c") + "}",
    )  # fmt: skip


# -- results and figures ---------------------------------------------------------------------------


def _results(comparison: ComparisonValues) -> list[str]:
    heads, rows = cells(comparison)
    best = [index for index, row in enumerate(rows) if row[2] == "1.00x"]
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
    first, seeds = comparison.runs[0], len({run.seed for run in comparison.runs})
    reading = ""
    if seeds > 1:
        reading += f"Lines are medians over {seeds} seeds, bands reach from the smallest to the largest. "
    if any(run.diverged_at is not None for run in comparison.runs):
        reading += "A cross ends the line of an algorithm that diverged. "
    if any(exploded(run) and run.diverged_at is None for run in comparison.runs):
        reading += "A line that ends at the upper border goes on far above it."
    clock = "simulated time" if first.settings.get("unit") is None else "time"
    over = {
        "time": f"over {clock}: what is gained in the same time",
        "updates": "over the gradients applied by all agents: what is gained from the same work",
    }
    what = {"loss": f"{_loss(comparison)}, of the average of all agents’ models"}
    if first.measure == "accuracy":
        what["accuracy"] = "The accuracy of the same average model on the test data"

    def drawn(x: str, y: str) -> str:
        return shelf.put(curves(comparison, x, y), f"{what[y]}, {over[x]}.")

    figures = [drawn("time", y) for y in what]
    if first.measure != "accuracy":
        figures.append(drawn("updates", "loss"))
    parts = [f"<p>{reading}</p>" * bool(reading), _row(*figures)]
    if first.settings["target"] is not None:
        caption = f"{clock.capitalize()} until the average model first met the target, interpolated between "
        caption += "evaluations" + ": median, and smallest to largest over the seeds" * (seeds > 1)
        caption += ". Shorter is better; hatched bars never met it."
        parts.append(shelf.put(bars(comparison), caption))
    if first.measure == "accuracy":
        parts.append(_row(*(drawn("updates", y) for y in what)))
    return parts


def _communication(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    """What was sent for it, and how far apart the agents are."""
    runs, parts = comparison.runs, []
    if any(run.megabytes for run in runs):
        y, score = "loss", _loss(comparison)
        if runs[0].measure == "accuracy":
            y, score = "accuracy", "Test accuracy"
        caption = f"{score} of the average model, over what all agents sent. 1 MB is 10<sup>6</sup> bytes."
        parts.append(shelf.put(curves(comparison, "megabytes", y), caption))
    if any(value for run in runs for value in run.curve.consensus):
        caption = (
            "Consensus: how far the agents’ models are from their average (root mean square); 0 if equal."
        )
        parts.append(shelf.put(curves(comparison, "time", "consensus"), caption))
    return [_row(*parts)] if parts else ["<p>Nothing was sent.</p>"]


def _agents(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    runs, parts = comparison.runs, []
    slow, n, topology = runs[0].settings["straggler"], runs[0].topology.n, runs[0].topology
    # A run that diverged early shows little: of each algorithm the longest.
    held = [run for run in runs if run.trace is not None]
    longest = {run.algorithm: run for run in sorted(held, key=lambda run: run.curve.time[-1])}
    names = dict.fromkeys(run.algorithm for run in runs)
    if traced := {name: longest[name] for name in names if name in longest}:
        first = next(iter(traced.values()))
        rows = len(shown(first))
        caption = (
            f"Who computed (upper bar), sent (lower bar) and waited when, with seed {first.seed}, in the "
            "same window of time. Yellow: alive, but without a gradient to compute."
            + (f" Agent {slow} is the straggler." if slow is not None else "")
            + (" Left blank: a gradient that a crash cut off." if runs[0].settings["crash"] else "")
            + (f" {rows} of {n} agents are shown." if rows < n else "")
        )
        parts.append(shelf.put(timelines(traced), caption))
    if missing := [name for name in names if name not in traced]:
        parts.append(
            f'<p class="soft">No timeline of {escaped(", ".join(missing))}: the trace was not held, '
            "as it is not where it would take too much memory.</p>"
        )
    if n > 1:
        edge = "an edge between those that exchange models"
        if topology.graph.is_directed():
            edge = "an edge from each sender to its receiver"
        caption = f"The communication graph, {escaped(topology.name)}, of {n} agents: {edge}."
        parts.append(f'<div class="pair">{shelf.put(graph(runs[0]), caption)}</div>')
    return parts
