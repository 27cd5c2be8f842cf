"""Live runs over several machines, with real processes: their traces replay to the bit, whatever is cut."""

from pathlib import Path

import pytest
from recorded import exact_replay
from warm import finished, needs_shared_memory

pytestmark = needs_shared_memory


WORLD = "live --task quadratic --agents 4 --unit 4ms --until 300 --lr 0.1 --out out --algorithms"
SPLIT = "import split; split.install([0, 0, 1, 1], cut=[(0.3, 0.6)], kills=[(0.2, 0), (0.7, 1)], skew=0.05)"
"""The link is down a while, both gateways are killed, and a clock is wrong by twelve steps."""


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd", "adpsgd", "rfast"])
def test_a_run_over_two_machines_replays_to_the_bit(algorithm: str, tmp_path: Path) -> None:
    run = finished(tmp_path, *WORLD.split(), algorithm, setup=SPLIT)
    assert run.code == 0, run.said + run.complained
    assert "refused" not in run.said
    (folder,) = (tmp_path / "out").glob("*-lr*")
    exact_replay(folder)
