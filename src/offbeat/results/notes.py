"""What needs saying below a table: its columns, who is first, what diverged, how rates were tuned."""

from collections import Counter
from collections.abc import Sequence
from math import isinf

from offbeat.algorithms import ALGORITHMS, find, row_of
from offbeat.results import holdings
from offbeat.results.columns import VERSUS, columns
from offbeat.results.evaluations import missed
from offbeat.results.limits import of_limits
from offbeat.results.ranking import rankings, seeds_text
from offbeat.results.scores import over_seeds
from offbeat.results.significance import who_is_first
from offbeat.results.tuned import how_tuned, lr_tuned
from offbeat.results.values import FAR, ComparisonValues, time_text, value_text
from offbeat.results.wording import error_of, judged_model, lost_again, rate_text
from offbeat.tasks.metrics.evaluation import AVERAGE

SHORTHANDS = "skew", "dirichlet"  # of a partition, which is what is recorded
TOLD_OF_RATES = 2  # settings that differ, with which tuned learning rates are told


def notes(
    comparison: ComparisonValues, band: str = "range", chosen: Sequence[str] | None = None
) -> list[str]:
    """Of a table with these columns, see `offbeat.results.columns`."""
    runs, said = comparison.runs, list[str]()
    names = dict.fromkeys(run.algorithm for run in runs)
    said += _without_effect(comparison)
    if (held := holdings.line(runs)) is not None:
        said.append(held)
    if any(run.measure == "accuracy" for run in runs):
        plain = all(run.settings.get("judge", AVERAGE) == AVERAGE for run in runs)
        judged = "the average model" if plain else " or ".join(dict.fromkeys(map(judged_model, runs)))
        said.append(f"accuracy, loss: of {judged}; worst: accuracy of the worst agent's own model.")
    if len({run.seed for run in runs}) > 1:
        said += [of_seeds(comparison, band), *_not_alike(comparison, band), *who_is_first(comparison, band)]
    if any(run.stopped_at is not None for run in runs):
        said.append(
            "A run that met its target ended at that evaluation: loss, updates and all else are of that time."
        )
    if (fewer := missed(runs)) is not None:
        said.append(fewer)
    ours = {run.algorithm for run in runs if f"the algorithm {run.algorithm}" not in run.settings["own"]}
    ours = {name for name in ours if row_of(name)}
    if forms := [f"{name} {form}" for name in names if name in ours and (form := find(name).form)]:
        said.append("; ".join(forms) + ".")
    for run in runs:
        if run.diverged_at is not None:
            which = f"{run.algorithm} with lr {run.lr:g}, seed {run.seed},"
            met = f" met its target at time {time_text(run.time_to_target)}, then" * lost_again(run)
            ended = run.curve.time[-1] <= run.diverged_at
            far = f"from then on its loss was more than {FAR:,.0f} times that of the start"
            how = "its run ended there" if ended else far
            said.append(f"{which}{met} diverged by time {run.diverged_at:g}; {how}.")
        if run.error is not None:
            said.append(error_of(run))
    said += _stood_still(comparison)
    lossy = [run for run in runs if run.settings["loss"] and run.settings["agents"] > 1]
    if lossless := dict.fromkeys(run.algorithm for run in lossy if run.staleness.D is None):
        by, send = ", ".join(lossless), "sends" if len(lossless) == 1 else "send"
        said.append(f"Lost are messages of registers alone; what {by} {send} as mail always arrives.")
    said += of_limits(comparison)
    if any(run.settings["crash"] for run in runs):
        known = [(name, ALGORITHMS[name]) for name in names if name in ALGORITHMS]
        said += [f"{name} {row.note}." for name, row in known if "return" not in row.tolerates]
    tuned_too = any(map(lr_tuned, runs))
    coupled = any(run.settings.get("lr_said") for run in runs)
    if tuned_too or coupled or len({run.lr for run in runs}) > 1:
        said.append(f"Learning rates{' (tuned)' * tuned_too}: {_rates(comparison)}.")
    said += how_tuned(comparison)
    if comparison.interrupted:
        made = Counter(run.algorithm for run in runs)
        counts = ", ".join(f"{name} {made[name]} of {count}" for name, count in comparison.planned.items())
        counts = f" ({counts})" * bool(counts)
        said.append(f"Not all runs were made: these are those that were finished{counts}.")
    return [*said, *legend(comparison, band, chosen)]


def _stood_still(comparison: ComparisonValues) -> list[str]:
    """Who made no update any more in the last quarter of a run, or longer, though messages went on."""
    said = []
    for key, runs in comparison.groups().items():
        going = [run.curve for run in runs if run.error is None and run.diverged_at is None]
        since = [last for curve in going if (last := curve.last_update) < 0.75 * curve.time[-1]]
        if since:
            many = f" in {len(since)} of {len(runs)} runs" * (len(runs) > 1)
            who, asks = comparison.label(key), "does it wait for somebody who is lost, or slow?"
            said.append(f"{who} made no update after time {min(since):g}{many}, and did not end: {asks}")
    return said


def _without_effect(comparison: ComparisonValues) -> list[str]:
    """What was set in all runs, to other values than usual, and means nothing in any; shorthands apart."""
    found = []
    for run in comparison.runs:
        idle = {*run.settings.idle()} - {*SHORTHANDS}
        found.append({name: value for name, value in run.settings.departures().items() if name in idle})
    names = [name for name in (found[0] if found else {}) if all(each.get(name) for each in found)]
    named = ", ".join(f"{name} {value_text(found[0][name])}" for name in names)
    return [f"Without effect here: {named}."] if named else []


def of_seeds(comparison: ComparisonValues, band: str) -> str:
    """What is shown of several seeds, and what becomes of those that never met the target."""
    what = {"std": "the standard deviation of the sample", "ci": "95 % confidence, by Student's t"}
    centre = "Medians over the seeds, for the time with [smallest - largest]"
    centre = centre if band == "range" else f"Means over the seeds ± {what[band]}"
    groups = comparison.groups().values()
    times = [[run.time_to_target for run in runs] for runs in groups]
    some = [each for each in times if 0 < each.count(None) < len(each)]
    late = "a seed that never met the target counts as later than all" if band == "range" else (
        "where a seed never met the target there is none"
    )  # fmt: skip
    late += "; 'else' is of those seeds that did" * any(isinf(over_seeds(each, band)[0]) for each in some)
    return f"{centre}{f'; {late}' * bool(some)}; B and D are the largest."


def _not_alike(comparison: ComparisonValues, band: str) -> list[str]:
    """Over which seeds groups are compared, where not all have the same."""
    said = []
    for ranked in rankings(comparison, band).values():
        each = {key: sorted(run.seed for run in runs) for key, runs in ranked.groups.items()}
        if all(seeds == [*ranked.seeds] for seeds in each.values()):
            continue
        if ranked.seeds:
            said.append(
                f"Compared ({VERSUS}, and who is first) over what all have: {seeds_text(ranked.seeds)}."
            )
            continue
        named = ", ".join(f"{comparison.label(key)} {seeds_text(seeds)}" for key, seeds in each.items())
        said.append(f"Not compared, for not all have a seed in common: {named}.")
    return list(dict.fromkeys(said))


def legend(
    comparison: ComparisonValues, band: str = "range", chosen: Sequence[str] | None = None
) -> list[str]:
    """What the heads of the columns mean, where one needs to be told."""
    told = [f"{each.head}: {each.about}" for each in columns(comparison, band, chosen) if each.about]
    return [f"{'; '.join(told)}."] if told else []


def _rates(comparison: ComparisonValues) -> str:
    """Of every algorithm its learning rates; where one is tuned in several worlds, which is of which."""
    found: dict[str, dict[str, list[str]]] = {}
    for group, (run, *_) in comparison.groups().items():
        world = " and ".join(f"{name} {value_text(value)}" for name, value in group.world)
        found.setdefault(run.algorithm, {}).setdefault(rate_text(run), []).append(world)
    tuned = all(map(lr_tuned, comparison.runs)) and len(comparison.differing) <= TOLD_OF_RATES
    said = []
    for name, rates in found.items():
        which = {rate: f" ({'; '.join(each)})" * (tuned and len(rates) > 1) for rate, each in rates.items()}
        said += [f"{name} {rate}{which[rate]}" for rate in rates]
    return ", ".join(said)
