"""How hyperparameters were tuned, in words and as a table of all that was tried."""

from dataclasses import replace

from offbeat.core.system.named import Own
from offbeat.core.words import headed, option
from offbeat.results.scores import spread_text
from offbeat.results.spread import spread
from offbeat.results.trials import Halving, Tried, Tuning, params_text
from offbeat.results.values import ComparisonValues, RunValues

STABLE = "stable"  # the head of the column that says why not


def lr_tuned(run: RunValues) -> bool:
    """Whether its learning rate was tuned, alone or with others."""
    return isinstance(run.tuning, Tuning) or (run.tuning is not None and "lr" in run.tuning.best.params)


def algorithm_asked(run: RunValues) -> str:
    """What was asked for: the algorithm without the options that were tuned."""
    said, tuning = str(run.settings["algorithm"]), run.tuning
    if not isinstance(tuning, Halving):
        return said
    if (named := Own.parse(said)) is not None:
        options = {name: value for name, value in named.options.items() if name not in tuning.best.params}
        return str(replace(named, options=options))
    name, words = headed(said)
    kept = [each for each in words if option(each)[0] not in tuning.best.params]
    return f"{name}:{'+'.join(kept)}".rstrip(":")


def tuned(comparison: ComparisonValues) -> dict[str, tuple[RunValues, Tuning | Halving]]:
    """Of every algorithm that was tuned, in every world, one run, and how what it was run with was found."""
    found: dict[str, tuple[RunValues, Tuning | Halving]] = {}
    for group, (run, *_) in comparison.groups().items():
        if run.tuning is not None:
            found.setdefault(comparison.label(group, lr=False), (run, run.tuning))
    return found


def tried(comparison: ComparisonValues) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of all that was tried; no rows where nothing was tuned."""
    found = tuned(comparison)
    rungs = any(isinstance(tuning, Halving) for _, tuning in found.values())
    params = dict.fromkeys(name for _, tuning in found.values() for one in _trials(tuning) for name in one[0])
    rows = []
    for label, (run, tuning) in found.items():
        for values, until, one, chosen in _trials(tuning, run.lr):
            loss = "diverged" if one.loss is None else f"{one.loss:.4g}"
            stable = f"no: {one.unstable}" if one.unstable else "yes"
            row = [label, *(f"{values[name]:g}" if name in values else "" for name in params)]
            row += ["" if until is None else f"{until:g}"] * rungs
            rows.append([*row, spread_text(spread(one.values)), loss, stable, "chosen" * chosen])
    heads = ["algorithm", *params, *["until"] * rungs]
    return [*heads, "median [smallest - largest]", "final loss", STABLE, ""], rows


def _trials(
    tuning: Tuning | Halving, lr: float | None = None
) -> list[tuple[dict[str, float], float | None, Tried, bool]]:
    """Of all that was tried: hyperparameters, how far it got if that was not to the end, what it gave, and
    whether it was chosen. Of candidates those that got furthest come first.
    """
    if isinstance(tuning, Tuning):
        return [({"lr": each}, None, one, each == lr) for each, one in tuning.steps.items()]
    order = sorted(range(len(tuning.candidates)), key=lambda k: (-tuning.candidates[k].until, k))
    some = [(tuning.candidates[k], k == tuning.chosen) for k in order]
    return [({**each.params}, each.until, each.tried, chosen) for each, chosen in some]


def how_tuned(comparison: ComparisonValues) -> list[str]:
    """How hyperparameters were tuned, in a sentence or two; and warnings."""
    found = tuned(comparison)
    if not found:
        return []
    first, one = next(iter(found.values()))
    by = one.by
    if by == "loss" and first.target is not None and first.target.is_loss:
        by = "target"
    way = "made nine tenths of the way down to the smallest final one"
    about = {"loss": f"time at which the average model's loss {way}", "target": "time to the target"}
    seeds = f"{len(one.seeds)} seeds that are" if len(one.seeds) > 1 else "a seed that is"
    by = f"Tuned by the median {about.get(by, 'final loss')}, over {seeds} not compared"
    if isinstance(one, Halving):
        said = [f"{by}, by successive halving within {one.budget:g} whole runs for each: {_rungs(found)}."]
        said += [f"{label}: {params_text(t.best.params)}." for label, t in _halved(found) if _more(t)]
    else:
        sizes = sorted({len(tuning.steps) for _, tuning in found.values() if isinstance(tuning, Tuning)})
        count = " to ".join(map(str, dict.fromkeys((sizes[0], sizes[-1]))))
        said = [f"{by}; of {count} learning rates for each, stable ones first."]
    return said + [words for label, (run, tuning) in found.items() for words in _warnings(label, run, tuning)]


def _halved(found: dict[str, tuple[RunValues, Tuning | Halving]]) -> list[tuple[str, Halving]]:
    return [(label, tuning) for label, (_, tuning) in found.items() if isinstance(tuning, Halving)]


def _more(tuning: Halving) -> bool:
    return {*tuning.best.params} != {"lr"}


def _rungs(found: dict[str, tuple[RunValues, Tuning | Halving]]) -> str:
    """'30 candidates until time 13.33, the best 10 until 40, ...'; with names where these differ."""
    texts: dict[str, list[str]] = {}
    for label, tuning in _halved(found):
        steps = list(zip(tuning.left, tuning.rungs, strict=True))
        first = f"{steps[0][0]} candidates until time {steps[0][1]:.4g}"
        rest = [f"the best {count} until {until:.4g}" for count, until in steps[1:]]
        texts.setdefault(", ".join([first, *rest]), []).append(label)
    if len(texts) == 1:
        return next(iter(texts)) + ", stable ones first"
    return "; ".join(f"{', '.join(labels)}: {text}" for text, labels in texts.items())


def _warnings(label: str, run: RunValues, tuning: Tuning | Halving) -> list[str]:
    said = []
    if isinstance(tuning, Halving):
        if why := tuning.best.tried.unstable:
            best = params_text(tuning.best.params)
            said.append(f"None of the candidates was stable for {label}; {best} was not: {why}.")
        return said
    grid = [*tuning.steps]
    if run.lr in (min(grid), max(grid)) and len(grid) > 1:
        said.append(f"{label}'s lr {run.lr:g} is at the edge of the grid; a better one may lie beyond it.")
    if why := tuning.steps[run.lr].unstable:
        said.append(f"None of the learning rates tried was stable for {label}; {run.lr:g} was not: {why}.")
    return said
