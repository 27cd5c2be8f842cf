"""How far a learning rate takes the average model."""

import numpy as np
import pytest
from runs import LOCKSTEP, models, quadratic, started

from offbeat.core.errors import SettingError
from offbeat.theory.bounds import spectrum
from offbeat.theory.steps import tracked_step
from offbeat.world.topology import build

LR, BEGINS, ENDS = 1e-5, 60, 160


@pytest.mark.parametrize(("graph", "n"), [("grid", 9), ("ring", 8), ("star", 5), ("complete", 6)])
def test_what_rfast_tracks_moves_the_average_by_a_share_and_matched_by_the_whole_step(
    graph: str, n: int
) -> None:
    """In lockstep, where all that is mixed is one round old, and gradients hardly change meanwhile."""
    share = tracked_step(spectrum(build(graph, n)))
    for algorithm, expected in (("rfast", share), ("rfast:matched", 1.0)):
        task = quadratic(n, equal=True)
        sim = started(algorithm, task, LOCKSTEP, graph, lr=LR, check=False)
        sim.run(BEGINS)
        before = models(sim).mean(0)
        sim.run(ENDS)
        gradient = task.h.mean() * (before - task.b.mean(0))
        moved = before - models(sim).mean(0)
        assert moved / (LR * (ENDS - BEGINS)) == pytest.approx(expected * gradient, rel=0.01), algorithm


def test_the_more_delayed_the_shorter() -> None:
    """On the grid of arXiv:2505.10322: 0.378 where all arrives within its round, which nothing here does."""
    w = spectrum(build("grid", 9))
    assert w.kept == pytest.approx(17 / 45)
    assert tracked_step(w) == pytest.approx(17 / 73)
    steps = [tracked_step(w, tau) for tau in (1, 1.5, 2, 5)]
    assert np.all(np.diff(steps) < 0)
    with pytest.raises(SettingError, match=r"at least one round old; got tau = 0.5\."):
        tracked_step(w, 0.5)
