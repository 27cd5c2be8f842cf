"""A world with everything at once: every executor agrees with the oracle, and it can be made again."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import Call, digests

import offbeat
from offbeat import Crash, Delay, World
from offbeat.results.again import command
from offbeat.world.changes import Slowdown
from offbeat.world.per_link import PerLink

WORLD = (
    *("--task", "quadratic", "--agents", "9", "--until", "40", "--eval-every", "20", "--seeds", "2"),
    *("--algorithms", "adsgd,rfast,dsgd", "--speeds", "lognormal:0.5", "--links", "gamma:0.3"),
    *("--latency", "rtt:rtt.npz mean 0.5", "--bandwidth", "file:bandwidth.csv", "--loss", "file:loss.csv"),
    *("--event", "cut {0,1,2} from the rest at 10 until 18", "--crash", "agent 8 at 20 until 30"),
    *("--event", "agent 4 slows by 5 at 5 until 25", "--sending", "unicast"),
)
LIES = ("--byzantine", "agent 7 adds noise 0.01")


def without(*names: str) -> list[str]:
    """The words of the world but for these options."""
    pairs = zip(WORLD[::2], WORLD[1::2], strict=True)
    return [word for pair in pairs if pair[0] not in names for word in pair]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the world is read from, in the current folder."""
    monkeypatch.chdir(tmp_path)
    rtt = np.random.default_rng(0).uniform(50, 400, (12, 12))
    np.savez("rtt.npz", rtt=rtt + rtt.T)
    Path("loss.csv").write_text("from,to,value\n0,1,0.3\n1,0,0.1\n3,4,0.5\n*,*,0.05\n")
    Path("bandwidth.csv").write_text("from,to,value\n1,2,0.5\n*,*,2\n")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("network", ["serial", "fair"])
def test_all_executors_give_the_same_bytes(call: Call, network: str) -> None:
    for executor in ("auto", "batched", "event-by-event"):
        words = (*WORLD, *LIES, "--network", network, "--executor", executor)
        assert call("compare", *words, "--json", f"{executor}.json").code == 0
    assert len(set(digests("auto.json"))) == 6
    assert digests("auto.json") == digests("batched.json") == digests("event-by-event.json")


@pytest.mark.usefixtures("files")
def test_the_command_on_the_page_makes_it_again(call: Call) -> None:
    assert call("compare", *WORLD, *LIES, "--json", "one.json").code == 0
    said, missing = command(offbeat.load("one.json"))
    assert missing == []
    assert call(*shlex.split(said)[1:], "--json", "two.json").code == 0
    assert Path("one.json").read_bytes() == Path("two.json").read_bytes()


@pytest.mark.usefixtures("files")
def test_levels_agree_where_nobody_crashes_or_lies_and_one_transmission_is_for_all(call: Call) -> None:
    calm = without("--crash", "--sending")
    for executor in ("levels", "event-by-event"):
        words = (*calm, "--algorithms", "adsgd", "--executor", executor, "--json", f"{executor}.json")
        assert call("compare", *words).code == 0
    assert digests("levels.json") == digests("event-by-event.json")


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("more", [LIES, ("--network", "fair")])
def test_real_processes_refuse_what_they_cannot_heed_by_name(call: Call, more: tuple[str, str]) -> None:
    outcome = call("live", *without("--crash", "--seeds"), *more).refused()
    assert more[0].removeprefix("--").split()[0] in outcome.said.lower()


def test_a_world_that_was_given_is_said_where_there_are_words() -> None:
    common: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 8.0}
    world = World(
        compute=Delay("lognormal", 2.0, 0.5), slow_compute={0: 10.0, 2: 3.0}, sending="unicast",
        latency=PerLink(0.5), crashes=(Crash(1, 2.0, 4.0),), changes=(Slowdown(3, 2.0, 1.0),),
    )  # fmt: skip
    given = offbeat.compare("adsgd", world=world, seeds=2, **common)
    said, missing = command(given)
    assert missing == [] and "--speeds 0.1,1,0.3333333333333333,1" in said
    names = ("compute", "speeds", "sending", "latency", "crash", "event")
    settings = {name: given.runs[0].settings[name] for name in names}
    again = offbeat.compare("adsgd", seeds=2, **common, **settings)
    assert [run.digest for run in again.runs] == [run.digest for run in given.runs]
    own = World(own_compute={0: Delay("constant")}, loss=PerLink(0.0, {(0, 1): 0.5}))
    assert command(offbeat.compare("adsgd", world=own, **common))[1] == [
        "the world's own_compute", "the world's loss",
    ]  # fmt: skip
