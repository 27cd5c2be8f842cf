"""The report: one HTML page that needs nothing else, not even a network. It ends with how to run it again."""

from importlib import resources
from string import Template

from plotly.offline import get_plotlyjs

from offbeat.results import details
from offbeat.results.again import again
from offbeat.results.agents import agents
from offbeat.results.columns import cells
from offbeat.results.curves import curves
from offbeat.results.headline import headline
from offbeat.results.markup import escaped, linked, table
from offbeat.results.notes import notes
from offbeat.results.ranking import rankings
from offbeat.results.shelf import Shelf, first_worlds, panels_of
from offbeat.results.times import bars
from offbeat.results.values import VERSION, ComparisonValues
from offbeat.results.verdict import verdict
from offbeat.results.who_holds import who_holds
from offbeat.results.wording import gap_known, judged_model
from offbeat.results.worlds import in_words, pictures
from offbeat.tasks.metrics.evaluation import AVERAGE


def page(comparison: ComparisonValues, band: str = "range") -> str:
    """The page. band: what is shown of seeds, see `offbeat.results.summary.BANDS`."""
    if not comparison.runs:
        return document("No run was finished", "<h1>No run was finished</h1>", Shelf())
    shelf = Shelf(panels_of(comparison), band)
    title, unit = headline(comparison), comparison.runs[0].settings.get("unit")
    count = max(1, len({group.world for group in comparison.groups()}))
    worlds = "one {} world" if count == 1 else f"{count} {{}} worlds"
    where = worlds.format("simulated" if unit is None else "emulated")
    where = where if unit is None else f"real processes with the delays of {where}"
    of_each = "" if count == 1 else "in each "
    real = "" if unit is None else f", {1000 * unit:g} ms"
    same = "all meet the same delays, crashes and minibatches, and published models the same losses"
    time = f"The unit of time is the mean time of one gradient of an agent that is not slow{real}"
    body = [
        f"<h1>{escaped(title)}</h1>",
        f"<p>Algorithms for decentralized SGD, compared in {where}: {of_each}{same}. {time}.</p>",
        "<h2>Results</h2>", *_results(comparison, band),
        "<h2>Learning</h2>", *_learning(comparison, shelf),
        "<h2>Communication and consensus</h2>", *_communication(comparison, shelf),
        *_asked(comparison, shelf), *_data(comparison, shelf), *_world(comparison, shelf),
        "<h2>What the agents did</h2>", *agents(comparison, shelf),
        "<h2>Run it again</h2>", *again(comparison, band),
    ]  # fmt: skip
    return document(title, "\n".join(body), shelf)


def document(title: str, body: str, shelf: Shelf) -> str:
    """A whole page of this HTML, with the figures of the shelf."""
    figures = ",".join(f'"{name}":{figure.to_json()}' for name, figure in shelf.figures.items())
    skeleton = Template(resources.files("offbeat.results").joinpath("page.html").read_text("utf-8"))
    return skeleton.substitute(
        title=escaped(title), body=body, version=escaped(VERSION), plotly=get_plotlyjs(),
        figures="{" + figures.replace("<", "\\u003c") + "}",
    )  # fmt: skip


def _results(comparison: ComparisonValues, band: str) -> list[str]:
    heads, rows = cells(comparison, band)
    first = [each.first for each in rankings(comparison, band).values() if len(each.groups) > 1]
    best = [index for index, key in enumerate(comparison.groups()) if key in first]
    return [
        *(f"<p>{escaped(text)}</p>" for text in verdict(comparison, band)),
        table(heads, rows, "results", best),
        *(f'<p class="soft">{linked(note)}</p>' for note in notes(comparison, band)),
    ]


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
        return shelf.describe(curves(comparison, shelf.asked(y, x)), f"{what[y]}, {over[x]}.")

    figures = [drawn("time", y) for y in what]
    if first.measure != "accuracy":
        figures.append(drawn("updates", "loss"))
    parts = [shelf.row(*figures)]
    if first.settings["target"] is not None:
        caption = f"{clock.capitalize()} until the target was first met, interpolated between "
        caption += "evaluations. Shorter is better."
        parts.append(shelf.describe(bars(comparison, shelf.asked()), caption))
    if first.measure == "accuracy":
        parts.append(shelf.row(*(drawn("updates", y) for y in what)))
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
        parts.append(shelf.describe(curves(comparison, shelf.asked(y, "megabytes")), caption))
    if any(value for run in runs for value in run.curve.consensus):
        caption = "how far the agents’ models are from their average (root mean square); 0 if equal."
        parts.append(shelf.describe(curves(comparison, shelf.asked("consensus")), f"Consensus: {caption}"))
    return [shelf.row(*parts)] if parts else ["<p>Nothing was sent.</p>"]


def _asked(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    """Figures of what is measured only of some tasks, or where it is asked for."""
    said = details.captions(comparison)
    made = [shelf.describe(curves(comparison, shelf.asked(n)), text) for n, text in said.items()]
    rows = [shelf.row(*made[at : at + 2]) for at in range(0, len(made), 2)]
    for where, part in first_worlds(comparison):
        rows += [shelf.put(figure, where + caption) for figure, caption in details.figures(part)]
    return ["<h2>What else was measured</h2>", *rows] if rows else []


def _data(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    """Who holds what, wherever worlds differ in it."""
    parts, seen = list[str](), list[object]()
    for where, part in first_worlds(comparison):
        run = part.runs[0]
        if run.holdings is None or run.holdings in seen:
            continue
        seen.append(run.holdings)
        caption = f"{where if len(seen) > 1 else ''}How many samples each agent has, with seed {run.seed}"
        caption += "; the area of a bubble is how many of a class." * bool(run.holdings.classes)
        parts.append(shelf.put(who_holds(run), caption))
    return ["<h2>The data</h2>", *parts] if parts else []


def _world(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    said = [f"<p>{escaped(line)}</p>" for line in in_words(comparison)]
    rows = ["".join(shelf.put(*each) for each in row) for row in pictures(comparison)]
    rows = [f'<div class="pair">{row}</div>' for row in rows]
    return ["<h2>The world</h2>", *said, *rows] if said or rows else []
