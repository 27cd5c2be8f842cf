"""Who holds which data: samples of each class that each agent has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from offbeat.results.values import RunValues


@dataclass(frozen=True)
class Holdings:
    """The samples of each agent.

    Attributes:
        sizes: how many each agent has
        classes: what the classes are called; none where targets are no classes, or there are very many
        counts: of each agent, how many of each class
    """

    sizes: list[int]
    classes: list[str]
    counts: list[list[int]]

    @staticmethod
    def of(record: Mapping[str, Any]) -> Holdings:
        """From what `vars` gives. Raises ValueError for anything else."""
        sizes, counts = np.array(record["sizes"], dtype=int), np.array(record["counts"], dtype=int)
        classes = [str(each) for each in record["classes"]]
        fits = not classes or (counts.shape == (len(sizes), len(classes)) and (counts.sum(1) == sizes).all())
        if sizes.ndim != 1 or not fits:
            raise ValueError("its holdings do not fit together")
        return Holdings(sizes.tolist(), classes, counts.tolist())

    @staticmethod
    def counted(classes: Sequence[str], counts: np.ndarray) -> Holdings:
        """From counts [n, C] of these classes, or without classes [n, 1]."""
        return Holdings(counts.sum(1).tolist(), [*classes], counts.tolist() if classes else [])

    @property
    def classes_held(self) -> list[int]:
        """How many classes each agent has samples of."""
        return [sum(count > 0 for count in row) for row in self.counts]


def line(runs: Sequence[RunValues]) -> str | None:
    """Samples and classes of an agent, over all seeds, in a sentence; None where nothing is held."""
    found = list({run.seed: run.holdings for run in runs if run.holdings is not None}.values())
    if not found:
        return None
    said = f"Data: {_range([size for each in found for size in each.sizes])} samples an agent"
    if found[0].classes:
        held = [count for each in found for count in each.classes_held]
        said += f", of {_range(held)} of {len(found[0].classes)} classes"
    return f"{said}."


def _range(values: Sequence[int]) -> str:
    low, middle, high = min(values), median(values), max(values)
    return f"{low:,}" if low == high else f"{low:,} to {high:,} (median {middle:,.10g})"
