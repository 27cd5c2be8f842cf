"""What an author of an algorithm does wrong: every error names the class, the agent and the handler."""

import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest
import torch
from runs import quadratic, started

import offbeat
from offbeat import ADSGD, Agent, ContractError, OffbeatError, Vector, View, World
from offbeat.engines.events import GradientDone, Started
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.performer import Clock, Performer
from offbeat.engines.sim import heap
from offbeat.experiments.scheduler import Batch
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import run_batch
from offbeat.results.table import as_text
from offbeat.world.topology import build


@dataclass(frozen=True)
class Note:
    x: Vector


@dataclass(frozen=True)
class Number:
    k: int


@dataclass
class Loose:
    x: Vector


@dataclass
class Steps(Agent):
    """A right one: subclasses do one thing wrong."""

    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.wrong()
        self.compute(self.x)

    def wrong(self) -> None:
        """Nothing here."""


def with_wrong(name: str, wrong: Callable[[Any], object]) -> type[Agent]:
    return dataclass(type(name, (Steps,), {"wrong": wrong, "__module__": __name__, "__annotations__": {}}))


def put(agent: Any, **fields: object) -> None:
    for name, value in fields.items():
        setattr(agent, name, value)


WRONG: dict[str, tuple[Callable[[Any], object], str]] = {
    "Stranger": (
        lambda a: a.send((a.me + 2) % a.n, Note(a.x)),
        r"agent \d is no neighbour; expected some of \[.*\]",
    ),
    "Nobody": (lambda a: a.publish((99,), Note(a.x)), "there is no agent 99; with 4 agents they are 0 to 3"),
    "Negative": (lambda a: a.accumulate(-1, Note(a.x)), "there is no agent -1"),
    "Itself": (lambda a: a.send(a.me, Note(a.x)), "it is for the agent itself"),
    "Double": (lambda a: a.send(a.view.listeners * 2, Note(a.x)), "a receiver is named twice"),
    "Named": (lambda a: a.send(("one",), Note(a.x)), "a receiver is a str; expected the number of an agent"),
    "Swapped": (lambda a: a.send(Note(a.x), a.view.listeners), "raised TypeError"),
    "Unfrozen": (lambda a: a.send(a.view.listeners, Loose(a.x)), r"decorated with @dataclass\(frozen=True\)"),
    "Bare": (
        lambda a: a.publish(a.view.listeners, a.x),
        "publish of Vector: a message must be a frozen dataclass",
    ),
    "Listed": (
        lambda a: a.publish(a.view.listeners, Note([1.0, 2.0])),  # type: ignore[arg-type]
        "Note.x is a list; expected a vector",
    ),
    "Tensor": (lambda a: a.send(a.view.listeners, Note(torch.ones(3))), "Note.x is a Tensor"),  # type: ignore[arg-type]
    "ListModel": (lambda a: put(a, x=[1.0]), "the model is a list; expected a Vector"),
    "NoModel": (lambda a: put(a, x=None), "the model is a NoneType"),
    "ComputeTensor": (lambda a: a.compute(a.x.parts[0]), "compute was given a Tensor; expected a Vector"),
    "Raises": (lambda a: a.view.w["y"], "it raised KeyError: 'y'"),
    "Past": (lambda a: a.alarm(-1.0, "now"), "an alarm was set -1.0 units ahead"),
    "Foreign": (lambda a: a.effects.append("compute"), "no effect of the contract"),
    "Shapes": (
        lambda a: put(a, x=a.x + Vector((torch.ones(5, dtype=torch.float64),))),
        "it raised RuntimeError",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_an_author_does_wrong_is_said_by_class_agent_and_handler(name: str) -> None:
    """Without a checker, too."""
    wrong, said = WRONG[name]
    sim = started(with_wrong(name, wrong)(), quadratic(4), topology="ring", check=False)
    with pytest.raises(
        ContractError, match=rf"^{name} \(agent \d\), in on_gradient at time [\d.]+: .*{said}"
    ):
        sim.run(100)


def test_who_sends_to_a_list_of_neighbours_is_understood() -> None:
    agent = with_wrong("Lists", lambda a: a.send([*a.view.listeners], Note(a.x)))()
    started(agent, quadratic(4), topology="ring", check=False).run(10)


def test_what_a_failed_run_had_built_is_not_evaluated_by_the_next() -> None:
    wrong, _ = WRONG["Shapes"]
    with pytest.raises(ContractError) as kept:  # the traceback keeps what was built alive
        started(with_wrong("Shapes", wrong)(), quadratic(4), topology="ring").run(10)
    started("adsgd", quadratic(4), topology="ring").run(10)
    assert "Shapes" in str(kept.value)


def test_a_class_may_send_beyond_the_graph_if_it_says_so() -> None:
    far = with_wrong("Far", lambda a: a.send((a.me + 2) % a.n, Note(a.x)))
    far.beyond_graph = True
    started(far(), quadratic(4), topology="ring", check=False).run(10)


@dataclass
class Returns(Agent):
    def on_gradient(self, g: Vector) -> Any:
        return [offbeat.core.agent.Compute(self.x)]


@dataclass
class Yields(Agent):
    def on_gradient(self, g: Vector) -> Iterator[int]:  # type: ignore[override]
        yield 1


@dataclass
class Blind(ADSGD):
    def on_view(self, view: View) -> None:
        """Forgets it."""


@dataclass
class Raising(ADSGD):
    def on_message(self, src: int, message: Any) -> None:
        raise ValueError("no such message")


@dataclass
class Alarmed(ADSGD):
    def start(self) -> None:
        self.alarm(1.0, "x")

    def on_alarm(self, name: str) -> None:
        raise ValueError("rang")


@pytest.mark.parametrize(
    ("agent", "said"),
    [
        (
            Returns,
            r"Returns \(agent \d\), in on_gradient .* it returned a list; expected None. .*self.compute",
        ),
        (Yields, r"Yields \(agent \d\), in on_gradient .* it returned a generator"),
        (Blind, r"Blind \(agent \d\), in on_view at time 5: it did not keep the view .*self.view = view"),
        (Raising, r"Raising \(agent \d\), in on_message at time .*: it raised ValueError: no such message"),
        (Alarmed, r"Alarmed \(agent 0\), in on_alarm at time 1: it raised ValueError: rang"),
    ],
)
def test_every_handler_is_named(agent: type[Agent], said: str) -> None:
    world = World(crashes=(offbeat.Crash(1, 5.0),))
    with pytest.raises(ContractError, match=said):
        started(agent(), quadratic(4), world, "ring", check=False).run(100)


def test_a_clock_that_stands_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two agents that answer numbers, which take no time, for ever."""

    @dataclass
    class PingPong(Agent):
        def on_gradient(self, g: Vector) -> None:
            self.send(self.view.listeners, Number(1))

        def on_message(self, src: int, message: Number) -> None:
            self.send(src, message)

    monkeypatch.setattr(heap, "WAVES", 1000)
    with pytest.raises(ContractError, match=r"PingPong .* have caused one another: the clock stands"):
        started(PingPong(), quadratic(2), topology="chain", check=False).run(10)


def test_errors_of_ones_own_stay_as_they_are() -> None:
    @dataclass
    class Mortal(ADSGD):
        def on_view(self, view: View) -> None:
            raise OffbeatError("It does not survive a crash.")

    with pytest.raises(OffbeatError, match=r"^It does not survive a crash\.$"):
        started(Mortal(), quadratic(4), World(crashes=(offbeat.Crash(1, 5.0),)), "ring", check=False).run(100)


def test_what_is_changed_behind_torchs_back_is_found_by_the_checker() -> None:
    @dataclass
    class Hidden(Agent):
        def on_gradient(self, g: Vector) -> None:
            self.x.parts[0].numpy()[0] += 1.0
            self.compute(self.x)

    with pytest.raises(
        ContractError, match=r"Hidden .* given away in compute was changed afterwards \(promise b\)"
    ):
        offbeat.simulate(Hidden, task="quadratic", until=30, check=True)


def test_a_model_that_changes_its_size_is_found_by_the_checker() -> None:
    @dataclass
    class Shrinks(Agent):
        def on_gradient(self, g: Vector) -> None:
            self.x = offbeat.split(self.x, 2)[0]
            self.compute(self.x)

    with pytest.raises(ContractError, match=r"Shrinks .* model has \[2\] numbers now; it began with \[3\]"):
        started(Shrinks(), quadratic(4)).run(10)


@pytest.mark.parametrize("name", ["Stranger", "Nobody", "Listed", "Unfrozen", "ListModel", "Foreign"])
def test_a_live_agent_is_held_to_it_as_a_simulated_one_is(name: str) -> None:
    wrong, said = WRONG[name]
    agent, ring = with_wrong(name, wrong)(), build("ring", 4)
    agent.join(
        0, 4, Vector((torch.zeros(1),)), ring.view(0, frozenset(range(4))), offbeat.SGD(0.1), Random(0)
    )
    performer = Performer(agent, None, Log(None), Clock())
    performer.handle(Started(0.0, 0))
    performer.actor.at = None
    with pytest.raises(ContractError, match=rf"^{name} \(agent 0\), in on_gradient at time .*: .*{said}"):
        performer.handle(GradientDone(1.0, 0, 0, 0.0, 1.0), Vector((torch.ones(1),)))


# -- classes ---------------------------------------------------------------------------------------


class Shared(Steps):
    seen: dict[int, int] = {}  # noqa: RUF012


class Undecorated(Steps):
    seen: dict[int, int] = field(default_factory=dict)


@dataclass
class Default(Steps):
    def wrong(self, seen: list[int] = []) -> None:  # noqa: B006
        seen.append(self.me)


class Unmade(Steps):
    def __init__(self, beta: float = 0.5) -> None:
        self.beta = beta


@dataclass
class Joins(Steps):
    def join(self, *_: object) -> None:
        self.y = self.x


@pytest.mark.parametrize(
    ("own", "said"),
    [
        (Shared, "Shared.seen is a dict of the class: all agents, and all runs, would share it"),
        (Undecorated, "Undecorated.seen is a field, but Undecorated is no dataclass: decorate it"),
        (Default, "Default.wrong has a default value that can change, a list"),
        (Unmade, r"Unmade was not made in full: its __init__ must call super\(\).__init__\(\)"),
        (Joins, r"Joins \(agent -1\), in join at time 0: it raised AttributeError"),
    ],
)
def test_a_class_whose_agents_would_share_something_is_refused_before_anything_runs(
    own: type[Agent], said: str
) -> None:
    with pytest.raises(ContractError, match=said):
        offbeat.plan([own], task="quadratic", until=10)


def test_what_belongs_to_the_class_and_is_changed_in_a_run_is_found() -> None:
    @dataclass
    class Counts(Steps):
        made = 0

        def wrong(self) -> None:
            type(self).made += 1

    with pytest.raises(ContractError, match=r"Counts\.made was changed in a run"):
        offbeat.simulate(Counts, task="quadratic", until=10)


def test_constants_of_a_class_are_no_fault() -> None:
    @dataclass
    class Constants(Steps):
        order = (1, 2)
        name = "constants"

    assert offbeat.simulate(Constants, task="quadratic", until=10, check=False).error is None


# -- standing still --------------------------------------------------------------------------------


@dataclass
class Silent(Agent):
    """Forgets to ask for its first gradient."""

    def start(self) -> None:
        self.publish(self.view.listeners, Note(self.x))


@dataclass
class Stops(Agent):
    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.publish(self.view.listeners, Note(self.x))
        if self.now < 5.0:
            self.compute(self.x)


def test_an_algorithm_that_stops_computing_is_an_error_of_the_run() -> None:
    """In the table, in the JSON, and nobody else's."""
    result = offbeat.compare(["adsgd", Silent, Stops], task="quadratic", until=30.0)
    fine, silent, stops = result.runs
    assert fine.error is None
    assert silent.error is not None and stops.error is not None
    assert (
        "messages are waiting; none ever made a step: do start and on_gradient call self.compute(self.x)?"
        in silent.error
    )
    at = float(stops.error.partition("from time ")[2].partition(" on;")[0])
    assert stops.error.startswith("no agent computes or will be woken from time") and 5.0 < at < 15.0
    text = as_text(result)
    assert "Error of Stops with lr 0.01, seed 0: no agent computes" in " ".join(text.split())
    assert text.count("(stopped)") == 2
    assert [run["error"] for run in result.record()["runs"]] == [None, silent.error, stops.error]


def test_who_waits_for_a_message_a_return_or_an_alarm_has_not_stopped() -> None:
    slow = World(communication=offbeat.Delay("constant", mean=1000.0))
    sim = started("dsgd", quadratic(4), slow, "ring")
    sim.run(500)
    assert sim.stalled() is None
    back = World(crashes=tuple(offbeat.Crash(i, 5.0, 900.0) for i in range(4)))
    sim = started("adsgd", quadratic(4), back, "ring")
    sim.run(500)
    assert sim.stalled() is None
    sim = started(
        "adsgd", quadratic(4), World(crashes=tuple(offbeat.Crash(i, 5.0) for i in range(4))), "ring"
    )
    sim.run(6)
    assert sim.heap.events, "what the dead had scheduled wakes nobody"
    assert sim.stalled() == "no agent is alive any more"


def test_a_ring_with_a_hole_says_so_in_the_row_of_a_sweep() -> None:
    fixed = {"task": "quadratic", "until": 30, "algorithm": "allreduce", "crash": "agent 1 at 5"}
    (outcome,) = run_batch(Batch(tuple(points({"fixed": fixed}))))
    assert outcome.row is not None and "no agent computes or will be woken" in outcome.row["error"]


def test_agents_of_these_classes_can_be_pickled() -> None:
    assert pickle.loads(pickle.dumps(Stops())).me == -1
