"""How a comparison came out, in a sentence for each world, before any table is read."""

import math

from offbeat.results.ranking import Ranking, rankings
from offbeat.results.scores import number_text
from offbeat.results.significance import ENOUGH
from offbeat.results.values import ComparisonValues, Group, time_text, value_text
from offbeat.results.wording import lost_again, target_name

WORLDS = 6  # of more nothing is said


def verdict(comparison: ComparisonValues, band: str = "range") -> list[str]:
    """Who is first, by how much, and who never gets there, by the rule of `offbeat.results.ranking`; and that
    so few seeds cannot tell what is chance.
    """
    ranked = rankings(comparison, band)
    several = {world: each for world, each in ranked.items() if len(each.groups) > 1}
    if not several or len(ranked) > WORLDS:
        return []
    said = []
    for world, each in several.items():
        where = ", ".join(f"{name} {value_text(value)}" for name, value in world)
        said.append(f"{where}{': ' * bool(where)}{_Said(comparison, each).sentence()}")
    counts = [len(each.seeds) for each in several.values() if each.seeds]
    if counts and min(counts) < ENOUGH:
        fewest, most = min(counts), max(counts)
        some = f"{fewest} seeds" if fewest == most else f"{fewest} to {most} seeds"
        there, they = ("is one seed", "it") if most == 1 else (f"are {some}", "they")
        said.append(f"There {there}: what of this is chance, {they} cannot tell; six seeds or more can.")
    return said


class _Said:
    """One world in a sentence."""

    def __init__(self, comparison: ComparisonValues, ranked: Ranking) -> None:
        self.ranked, self.runs = ranked, [run for each in ranked.groups.values() for run in each]
        self.labels = {key: comparison.label(key, world=False) for key in ranked.groups}
        several = len(ranked.seeds) > 1
        self.centre, self.over = f"{ranked.centre} " * several, f" over {len(ranked.seeds)} seeds" * several

    def sentence(self) -> str:
        if not self.ranked.seeds:
            return "Who is first is not told, for not all have a seed in common."
        return self._by_time() if self.ranked.timed else self._by_loss()

    def _by_time(self) -> str:
        ranked, name = self.ranked, target_name(*self.runs)
        if ranked.first is None:
            seeds = "half of its seeds or more" if ranked.centre == "median" else "a seed or more"
            said = [f"Nobody is first in {self.centre}{name}: each never met it in {seeds}"]
        else:
            (first, time), *others = [(self.labels[key], ranked.values[key]) for key in ranked.order]
            said = [f"{first} is first in {self.centre}{name}{self.over}: {time_text(time)}"]
            if others:
                words = (f"{each} takes {t / time:.2f} times as long" if time else f"{each}: {time_text(t)}"
                         for each, t in others)  # fmt: skip
                said.append(", ".join(words))
        if never := [self._never(key) for key in ranked.groups if self._missed(key)]:
            end = max(float(run.settings["until"]) for run in self.runs)
            said.append(f"never by time {time_text(end)}: {', '.join(never)}")
        if lost := [self.labels[key] for key, runs in ranked.groups.items() if any(map(lost_again, runs))]:
            said.append(f"met it and diverged then: {', '.join(lost)}")
        return "; ".join(said) + "."

    def _missed(self, key: Group) -> int:
        return sum(run.time_to_target is None for run in self.ranked.groups[key])

    def _never(self, key: Group) -> str:
        """Whom some seed did not get there, and of how many."""
        missed, count = self._missed(key), len(self.ranked.groups[key])
        return self.labels[key] + f" ({missed} of {count} seeds)" * (missed < count)

    def _by_loss(self) -> str:
        ranked = self.ranked
        losses = [(self.labels[key], number_text(ranked.values[key])) for key in ranked.order]
        lost = [self.labels[key] for key, value in ranked.values.items() if math.isinf(value)]
        if not losses:
            return "All diverged."
        nobody = "nobody met the target; " * any(run.target is not None for run in self.runs)
        (first, least), *others = losses
        said = f"{nobody}the smallest {self.centre}loss at the end{self.over} is that of {first}, {least}"
        said += "".join(f"{'; ' if k == 0 else ', '}{name} {loss}" for k, (name, loss) in enumerate(others))
        said += f"; not finite: {', '.join(lost)}" * bool(lost)
        return f"{said[0].upper()}{said[1:]}."
