"""Speeds by agent, latency and loss by link, a cut, a slowdown, unicast, a death: with real processes. What
is held here holds on a busy machine, too.
"""

from pathlib import Path

import numpy as np
import pytest
from recorded import exact_replay
from warm import finished, needs_shared_memory

from offbeat.engines.events import GradientDone, MailReceived, RegisterMoved, RegisterRead, Rejoined, rows_of
from offbeat.engines.trace import Trace
from offbeat.world.changes import Slowdown, finish

pytestmark = needs_shared_memory

UNTIL, CUT, SLOW = 200.0, (60.0, 120.0), (20.0, 90.0)
LATENCY = np.array([[0, 2, 0, 3], [2, 0, 4, 0], [0, 1, 0, 0.5], [1, 0, 0.5, 0]])
WORLD = (
    *("--task", "quadratic", "--agents", "4", "--unit", "4ms", "--until", f"{UNTIL}", "--lr", "0.1"),
    *("--compute", "constant", "--communication", "constant", "--speeds", "1,1,1,0.2"),
    *("--latency", "file:latency.csv", "--loss", "file:loss.csv", "--sending", "unicast"),
    *("--event", f"cut {{0,1}} from the rest at {CUT[0]} until {CUT[1]}"),
    *("--event", f"agent 2 slows by 5 at {SLOW[0]} until {SLOW[1]}"),
    *("--fault", "kill agent 1 at step 3"),
)
ALL_LOST = 0, 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of two runs in that world, by registers and by mail."""
    made = tmp_path_factory.mktemp("emulated")
    np.savetxt(made / "latency.csv", LATENCY, delimiter=",")
    (made / "loss.csv").write_text(f"from,to,value\n{ALL_LOST[0]},{ALL_LOST[1]},1\n*,*,0\n1,0,0\n")
    run = finished(made, "live", "--algorithms", "adsgd,dsgd", *WORLD, "--out", "out")
    assert run.code == 0, run.said + run.complained
    for said in ("speeds 1,1,1,0.2", "unicast", "cut {0,1} from the rest at 60 until 120", "kill agent 1"):
        assert said in " ".join(run.said.split())
    return made / "out"


def came(trace: Trace) -> np.ndarray:
    """What came over links, to whoever read it."""
    return np.concatenate([rows_of(trace.events, k) for k in (RegisterRead, RegisterMoved, MailReceived)])


def slowed(agent: int) -> list[Slowdown]:
    return [Slowdown(2, 5.0, *SLOW)] if agent == 2 else []


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_real_processes_heed_the_world_and_their_replay_is_exact(folder: Path, algorithm: str) -> None:
    trace = exact_replay(folder / f"{algorithm}-lr0.1").trace
    assert rows_of(trace.events, Rejoined)["agent"].tolist() == [1]
    rows = came(trace)
    i, j = rows["source"], rows["agent"]
    across = (i < 2) != (j < 2)
    assert across.any()
    there = rows["end"]
    assert not (across & (CUT[0] <= there) & (there < CUT[1])).any(), "it came through the cut"
    passed = {*zip(i.tolist(), j.tolist(), strict=True)}
    assert passed >= {(0, 3), (3, 0), (2, 3), (3, 2)}, "agent 1 may have been gone for long"
    assert (ALL_LOST in passed) == (algorithm == "dsgd"), "registers are lost, mail is not"


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_what_takes_how_long_is_what_the_world_says(folder: Path, algorithm: str) -> None:
    trace = Trace.load(folder / f"{algorithm}-lr0.1" / "trace.npz")
    for row in rows_of(trace.events, GradientDone):
        agent, start, end = int(row["agent"]), float(row["start"]), float(row["end"])
        takes = 5.0 if agent == 3 else 1.0
        assert end >= min(UNTIL, finish(start, takes, slowed(agent))) - 1e-3
    assert trace.updates()[3] <= UNTIL / 5 + 1
    for row in came(trace):
        i, j, start, end = (row[name].item() for name in ("source", "agent", "start", "end"))
        there = finish(start, 1.0, slowed(i)) + LATENCY[i, j]
        waits = algorithm == "dsgd" and (i < 2) != (j < 2) and CUT[0] <= there < CUT[1]
        assert end == pytest.approx(CUT[1] if waits else there, abs=1e-6)
        assert row["time"] >= end


@pytest.mark.parametrize("algorithm", ["adsgd", "dsgd"])
def test_each_receiver_has_a_transmission_of_its_own_one_after_another(folder: Path, algorithm: str) -> None:
    trace = Trace.load(folder / f"{algorithm}-lr0.1" / "trace.npz")
    rows = came(trace)
    for i in (0, 2, 3):  # agent 1 has two lives, each with a link of its own
        sent = np.sort(trace.transmissions[trace.transmissions["agent"] == i], order="start")
        assert (sent["start"][1:] >= sent["end"][:-1]).all()
        to = {(row["start"], row["agent"]) for row in rows[rows["source"] == i]}
        assert len({start for start, _ in to}) == len(to), "two had the same one"
