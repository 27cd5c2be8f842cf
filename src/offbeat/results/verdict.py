"""How a comparison came out, in a sentence for each world, before any table is read."""

import math
from collections.abc import Mapping, Sequence

from offbeat.results.scores import number_text, score, times_of
from offbeat.results.values import ComparisonValues, RunValues, time_text, value_text
from offbeat.results.wording import lost_again, target_name

WORLDS = 6  # of more nothing is said


def verdict(comparison: ComparisonValues) -> list[str]:
    """Who is first, by how much, and who never gets there; by the final loss where there is no target, or
    nobody met it. Medians over the seeds. And that one seed cannot tell what is chance.
    """
    said, worlds = list[str](), comparison.split()
    for world, part in worlds.items() if len(worlds) <= WORLDS else ():
        groups = {part.label(key): runs for key, runs in part.groups().items()}
        where = ", ".join(f"{name} {value_text(value)}" for name, value in world)
        if len(groups) > 1:
            said.append(f"{where}{': ' * bool(where)}{_by_time(groups) or _by_loss(groups)}")
    if said and len({run.seed for run in comparison.runs}) == 1:
        said.append("There is one seed: what of this is chance, it cannot tell; six seeds or more can.")
    return said


def _by_time(groups: Mapping[str, Sequence[RunValues]]) -> str:
    """Empty where nobody met the target."""
    times = {label: times_of(runs, "range")[0] for label, runs in groups.items()}
    lost = {label for label, runs in groups.items() if any(map(lost_again, runs))}
    met = {label: time for label, time in times.items() if time is not None and label not in lost}
    runs = [run for each in groups.values() for run in each]
    if not met:
        return ""
    first, *others = sorted(met, key=lambda label: met[label])
    said = [f"{first} is first in {target_name(*runs)}: {time_text(met[first])}"]
    if others and met[first] > 0:
        said.append(
            ", ".join(f"{label} takes {met[label] / met[first]:.2f} times as long" for label in others)
        )
    elif others:
        said.append(", ".join(f"{label}: {time_text(met[label])}" for label in others))
    if never := [label for label, time in times.items() if time is None]:
        end = max(float(run.settings["until"]) for run in runs)
        said.append(f"never by time {time_text(end)}: {', '.join(never)}")
    return "; ".join(said) + "."


def _by_loss(groups: Mapping[str, Sequence[RunValues]]) -> str:
    losses = {label: score(runs, "loss", "range")[0] for label, runs in groups.items()}
    order = sorted((each for each in losses if math.isfinite(losses[each])), key=lambda each: losses[each])
    if not order:
        return "All diverged."
    nobody = "nobody met the target; " * any(
        run.target is not None for each in groups.values() for run in each
    )
    rest = ", ".join(f"{label} {number_text(losses[label], 0.0)}" for label in order[1:])
    said = f"{nobody}the smallest loss at the end is that of {order[0]}, {number_text(losses[order[0]], 0.0)}"
    said += f"; {rest}" * bool(rest)
    return f"{said[0].upper()}{said[1:]}."
