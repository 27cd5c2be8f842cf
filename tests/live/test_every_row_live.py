"""Every row of the table of algorithms with real processes: experiments, with deaths, and a user's script."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from user_scripts import COUNTED, ENOUGH
from warm import finished, needs_shared_memory

from offbeat.algorithms import ALGORITHMS, find
from offbeat.core.errors import SettingError
from offbeat.engines.events import Rejoined, rows_of
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed

pytestmark = needs_shared_memory

OFTEN = {"diloco": "diloco:h=3", "noloco": "noloco:h=3"}
"""Rows that would not exchange anything in so short a run."""

LIVE = [OFTEN.get(name, name) for name in ALGORITHMS]
RETURNING = [name for name in LIVE if "return" in find(name).tolerates]
OTHERS = [name for name in LIVE if name not in RETURNING]
SCRIPTED = [name for name in LIVE if not find(name).unscripted]
KINDS = {
    (find(name).tolerates, find(name).prototype.blocks, find(name).prototype.beyond_graph): name
    for name in SCRIPTED
}
"""A row of each kind that a script can tell apart; with processes of ours all rows run."""
KILLED = ["--fault", "kill agent 1 at step 1", "--fault", "kill agent 3 at step 3"]
WORDS = (
    "live --task quadratic --agents 4 --lr 0.05 --unit 2ms --until 10000 --case combined --slowdown 2 "
    "--loss 0.2 --algorithms"
)


def ends(folder: Path, names: Sequence[str], *faults: str) -> None:
    """One command runs them; each replay is the same to the bit, and who died is back."""
    setup = ENOUGH.format(steps=20)
    run = finished(folder, *WORDS.split(), ",".join(names), "--out", "out", *faults, setup=setup)
    assert run.code == 0, run.complained
    found = [path for name in names for path in (folder / "out").glob(f"{name.replace(':', '-')}-lr*")]
    traces = [Trace.load(path / "trace.npz") for path in found]
    for trace in traces:
        assert {*rows_of(trace.events, Rejoined)["agent"].tolist()} == ({1, 3} if faults else set())
    for name, trace, path in zip(names, traces, found, strict=True):
        outcome = replayed(trace, path)
        assert outcome.same, (name, outcome.lines)
        assert trace.updates().min() > 0, name
        if find(name).prototype.blocks and not faults:  # who died early may have been heard by nobody
            hearing = trace.writes["agent"][trace.mixed["write"]]
            pairs = {*zip(hearing.tolist(), trace.mixed["source"].tolist(), strict=True)}
            assert {(i, j) for i in range(4) for j in range(4) if i != j} <= pairs, "neighbours or not"


@pytest.mark.parametrize("part", range(6))
def test_its_replay_is_exact_with_losses_delays_and_agents_that_die(part: int, tmp_path: Path) -> None:
    """Two die, one of them early on; minibatches are random. Whatever is drawn is drawn again."""
    ends(tmp_path, RETURNING[part::6], *KILLED)


def test_those_that_take_nobody_back_run_too(tmp_path: Path) -> None:
    ends(tmp_path, OTHERS)


@pytest.mark.parametrize("name", KINDS.values())
def test_a_users_script_trains_with_it_and_can_be_replayed(name: str, tmp_path: Path) -> None:
    """Unequal speeds: who is done first stops those that cannot go on without it, and nobody else."""
    run = finished(
        tmp_path, "launch", "--out", "out", "-n", "3", "--algorithm", name, "train.py", script=COUNTED
    )
    assert run.code == 0, run.said + run.complained
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    assert replayed(trace).same
    needed = "crash" not in find(name).tolerates  # a server, where workers may crash
    assert ("is done; the algorithm cannot go on without it" in run.complained + run.said) <= needed
    least = trace.updates().min()
    assert least == 12 or (needed and least > 0)


def test_those_whose_server_steps_at_any_time_are_refused_to_a_script(tmp_path: Path) -> None:
    refused = [name for name in LIVE if name not in SCRIPTED]
    assert refused
    for name in [*refused, "prox-dgd:l1=0.1"]:
        run = finished(tmp_path, "launch", "--out", "out", "--algorithm", name, "train.py", script=COUNTED)
        assert run.code == SettingError.exit_code
        assert f"{name} cannot run in a user's script: " in run.complained
        assert not (tmp_path / "out").exists(), "before anything starts"


EAGER = """
from dataclasses import dataclass
import offbeat

@dataclass(frozen=True)
class Gradient:
    g: offbeat.Vector

@dataclass
class Eager(offbeat.Agent):
    def on_gradient(self, g):
        self.send(self.view.peers, Gradient(g))
        self.compute(self.x)

    def on_message(self, src, message):
        self.x = self.x - self.rule(message.g)
"""


def test_the_users_optimizer_is_not_asked_for_a_step_while_the_script_computes(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EAGER)
    words = ["launch", "--out", "out", "--algorithm", "mine.py:Eager", "train.py"]
    run = finished(tmp_path, *words, script=COUNTED)
    assert run.code == 1
    assert "asked for a step while a gradient was outstanding: in a user's script" in run.complained
