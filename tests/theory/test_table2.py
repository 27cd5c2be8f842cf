"""Table 2 of arXiv:2505.10322, measured: what agents keep and send is what the formulas say."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from offbeat import Agent, Vector
from offbeat.algorithms import ALGORITHMS, find
from offbeat.theory.measured import Names, counted, places
from offbeat.theory.table2 import GRAPHS, NO_FORMULA, TRAFFIC, row, traffic
from offbeat.world.topology import build

KNOWN = [name for name, spec in ALGORITHMS.items() if spec.keeps is not None or name in TRAFFIC]


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("d", sorted(GRAPHS)[:2])  # the formulas are linear in d
def test_what_is_counted_is_what_the_formula_says(name: str, d: int) -> None:
    found = row(ALGORITHMS[name], d)
    if found.counted is None:
        pytest.skip(f"{name} does not take this graph")
    if found.keeps is not None:
        assert found.counted.keeps == pytest.approx(found.keeps, abs=1 / 8), (
            "up to a piece that comes as mail"
        )
    if found.sends is not None:
        wanted = (found.sends, found.carries)
        assert (found.counted.sent, found.counted.carried) == pytest.approx(wanted, rel=0.05)


def test_formulas_are_of_rows() -> None:
    assert {*TRAFFIC} <= {*ALGORITHMS} and len(KNOWN) > 15
    without = {name for name, row in ALGORITHMS.items() if row.keeps is None or name not in TRAFFIC}
    assert without == {*NO_FORMULA}, "why is said"
    assert traffic(find("adsgd:local_steps=4"), 9, 2) == (0.25, 0.5)


def test_the_claims_of_the_paper() -> None:
    """Half the traffic and 70 % less memory than tracking, and four models whatever the degree."""
    names = ("adsgd", "rfast", "adsgd:memory-efficient")
    for d, less in ((2, 0.69), (4, 0.71)):
        adsgd, rfast, four = (row(ALGORITHMS[name], d).counted for name in names)
        assert adsgd and rfast and four
        assert 1 - adsgd.keeps / rfast.keeps == pytest.approx(less, abs=0.005)
        assert adsgd.carried / rfast.carried == pytest.approx(0.5)
        assert four.keeps == 4


@dataclass
class Wasteful(Agent):
    """SGD that keeps its last two gradients, the newer one under two names."""

    old: list[Vector] = field(init=False, default_factory=list)
    again: Vector | None = field(init=False, default=None)

    def on_gradient(self, g: Vector) -> None:
        self.old, self.again = [g, *self.old[:1]], g
        self.x = self.x - self.rule(g)
        self.compute(self.x)


def test_who_keeps_more_is_counted_more() -> None:
    """x, the gradient that is there, and the two before it."""
    assert counted(find(Wasteful), build("ring", 9)).keeps == 4


def vector(size: int = 4) -> Vector:
    return Vector((torch.from_numpy(np.zeros(size)),))


def test_places() -> None:
    x, g, new, d = vector(), vector(), vector(), vector()
    before: Names = {("x",): x, ("gradient",): g}
    assert places(before | {("at",): x}, {("x",): new}) == 64, "x is made in place"
    assert places(before, {("x",): new, ("given",): x}) == 96, "the former is still held"
    assert places(before, {("x",): new, ("given",): d}) == 96, "d has no place yet"
    assert places(before, {("x",): x, ("g",): g}) == 64, "kept under another name"
    piece = Vector((g.parts[0][1:3],))
    assert places(before, {("x",): x, ("piece",): piece}) == 64, "a part of what is there"
