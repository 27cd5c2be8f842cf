"""The section of the page on what the agents did."""

from offbeat.results.markup import escaped
from offbeat.results.shelf import WORLDS, Shelf, first_worlds
from offbeat.results.timeline import pieces, shown, timelines, window
from offbeat.results.values import ComparisonValues, RunValues, stragglers


def agents(comparison: ComparisonValues, shelf: Shelf) -> list[str]:
    """Timelines, of each world."""
    worlds, parts, missing = first_worlds(comparison), list[str](), dict[str, None]()
    for where, part in worlds:
        named = [(part.label(key, lr=False), runs) for key, runs in part.groups().items()]
        # A run that diverged early shows little: of each algorithm the longest.
        held = [(name, run) for name, runs in named for run in runs if run.trace is not None]
        longest = dict(sorted(held, key=lambda pair: pair[1].curve.time[-1]))
        traced = {name: longest[name] for name, _ in named if name in longest}
        missing |= dict.fromkeys(name for name, _ in named if name not in traced)
        parts += _timelines(traced, where, shelf)
    if missing and all(run.graph is None for run in comparison.runs):
        parts.append('<p class="soft">The runs were loaded from files, without traces: no timelines.</p>')
    elif missing:
        why = "the trace was not held, as it is not where it would take too much memory"
        parts.append(f'<p class="soft">No timeline of {escaped(", ".join(missing))}: {why}.</p>')
    if (count := len(comparison.split())) > WORLDS:
        parts.append(f'<p class="soft">Of {count} worlds, the first {WORLDS} are shown here.</p>')
    return parts


def _timelines(traced: dict[str, RunValues], where: str, shelf: Shelf) -> list[str]:
    """In figures that fit a page of paper, all with the same window of time; where: the world, in HTML."""
    if not traced:
        return []
    run, span = next(iter(traced.values())), window(list(traced.values()))
    slow, rows, n = stragglers(run.settings), len(shown(run)), run.settings["agents"]
    about = (
        f"Who computed (upper bar), sent (lower bar) and waited when, with seed {run.seed}, in the "
        "same window of time. Yellow: alive, but without a gradient to compute."
        + f" Of stragglers ({', '.join(map(str, slow))}) the number is bold." * bool(slow)
        + " Left blank: a gradient that a crash cut off." * bool(run.settings["crash"])
        + f" {rows} of {n} agents are shown." * (rows < n)
    )
    found = []
    for k, piece in enumerate(pieces(traced)):
        caption = about if k == 0 else f"The same of {escaped(', '.join(piece))}."
        found.append(shelf.put(timelines(piece, span), where + caption))
    return found
