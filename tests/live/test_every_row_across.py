"""Every row of the table of algorithms over two machines, with real processes: whatever is cut, it ends where
the theory says, and its trace replays to the bit.
"""

from pathlib import Path

import numpy as np
import pytest
from entries import ENTRIES
from recorded import exact_replay
from warm import finished, needs_shared_memory

from offbeat.algorithms import ALGORITHMS, find
from offbeat.engines.events import MailReceived, RegisterRead, rows_of
from offbeat.engines.live.node.snapshots import ModelSnapshots
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.limits import limit_of
from offbeat.experiments.live.running import SNAPSHOTS, all_alike
from offbeat.experiments.setup import prepare
from offbeat.theory.limits import EXPECTED, known

pytestmark = needs_shared_memory

HOSTS, NEAR, ABOUT = [0, 0, 1, 1], 1e-3, 0.2
"""How near the limit all models are at once; or in the mean, where they go on moving about it."""

OFTEN = {"diloco": "diloco:h=3", "noloco": "noloco:h=3"}
"""Rows that would not exchange anything in so short a run."""

BOUNDED = {"rasgp": (0.007, 0.1)}
"""Learning rate and nearness of a row that needs bounded delays: while a link is down, mass goes only out."""

EXACT = """
import numpy as np
from offbeat.tasks.quadratic import random_quadratic

def exact(n, seed):
    return random_quadratic(n, np.random.default_rng(seed), noise=0.0)
"""
WORDS = "live --task exact.py:exact --agents 4 --unit 4ms --until 20000 --eval-every 10 --out out --quiet"
SPLIT = "import split, ending; split.install({hosts}, {faults}, skew=0.05); ending.install({near}, 60, 700)"
FAULTS = "cut=[(0.1, 0.3)], kills=[(0.05, 0), (0.4, 1)]"
"""The link is down a while, both gateways are killed, and a clock is wrong by twelve steps."""


ALWAYS = "adsgd", "adsgd:memory-efficient", "rfast", "dsgd", "adpsgd", "allreduce"
"""One for each way to exchange something; the others take minutes."""

ROWS = [pytest.param(row, marks=() if row in ALWAYS else pytest.mark.cluster) for row in ALGORITHMS]


@pytest.mark.parametrize("row", ROWS)
def test_over_two_machines_it_ends_where_it_should_and_replays_to_the_bit(row: str, tmp_path: Path) -> None:
    name, (lr, near) = OFTEN.get(row, row), BOUNDED.get(row, (ENTRIES[row].lr, NEAR))
    setup = SPLIT.format(hosts=HOSTS, near=near, faults="cut=[]" if row in BOUNDED else FAULTS)
    (tmp_path / "exact.py").write_text(EXACT)
    run = finished(
        tmp_path, *WORDS.split(), "--algorithms", name, "--lr", f"{name}={lr}", setup=setup, seconds=250
    )
    assert run.code == 0, run.said + run.complained
    assert "refused" not in run.said
    (folder,) = (tmp_path / "out").glob("*-lr*")
    models, trace = exact_replay(folder).models[0].numpy(), Trace.load(folder / "trace.npz")
    heard = np.concatenate([rows_of(trace.events, kind) for kind in (MailReceived, RegisterRead)])
    ways = {(HOSTS[source], HOSTS[agent]) for source, agent in heard[["source", "agent"]].tolist()}
    assert {(0, 1), (1, 0)} <= ways
    prepared = prepare(Experiment(**trace.settings["experiment"]), trace.settings["seed"])
    ends, spec = limit_of(prepared, find(name), lr), find(name)
    if ends is None:
        return
    if moving := known(spec).how == EXPECTED:
        taken = ModelSnapshots(folder / SNAPSHOTS, all_alike(prepared), anew=False).taken
        models = np.mean([each.models[0].numpy() for each in taken[len(taken) // 2 :]], axis=0)
    assert abs(models - ends(trace.updates())).max() <= (ABOUT if moving else 2 * near)
