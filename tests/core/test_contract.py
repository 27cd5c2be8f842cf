"""Handlers called by hand, and the checker of the contract."""

import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from random import Random

import pytest
import torch
from runs import quadratic, started

from offbeat import ADPSGD, ADSGD, DSGD, RFAST, SGD, Agent, ContractError, SettingError, Vector, View, World
from offbeat.algorithms import ALGORITHMS, find
from offbeat.algorithms.adsgd import Model
from offbeat.algorithms.dsgd import Letter
from offbeat.core.agent import Accumulate, Compute, Effect, Publish, Send
from offbeat.core.pairs import Ask, Moved
from offbeat.core.vector import opaque

WEIGHTS = {0: 0.25, 1: 0.5, 2: 0.25}
VIEW = View(w=WEIGHTS, a=WEIGHTS, listeners=(0, 2), side=1, peers=(0, 2))


def vec(*values: float) -> Vector:
    return Vector((torch.tensor(values, dtype=torch.float64),))


def ready(agent: Agent, x: float = 1.0) -> list[Effect]:
    """Agent 1 of 3 on a chain, started; its first effects."""
    agent.join(1, 3, vec(x), VIEW, SGD(0.1), Random(0))
    agent.check()
    agent.start()
    return agent.drain()


def values(effects: list[Effect]) -> list[tuple[str, object]]:
    """What was asked for, with numbers in place of vectors."""
    said: list[tuple[str, object]] = []
    for effect in effects:
        if isinstance(effect, Compute):
            said.append(("compute", effect.x.parts[0].item()))
        elif isinstance(effect, Send | Publish | Accumulate):
            inside = vars(effect.message)
            numbers = [v.parts[0].item() if isinstance(v, Vector) else v for v in inside.values()]
            said.append(
                (f"{type(effect).__name__.lower()} {type(effect.message).__name__} to {effect.to}", numbers)
            )
    return said


def test_adsgd_by_hand() -> None:
    a = ADSGD()
    assert values(ready(a)) == [("compute", 1.0)]
    a.on_message(2, Model(vec(5.0)))
    assert a.drain() == []
    a.on_gradient(vec(2.0))
    x = pytest.approx(0.25 * 1 + 0.5 * 1 + 0.25 * 5 - 0.2)  # agent 0 has not been heard: it counts as 1
    assert values(a.drain()) == [("publish Model to (0, 2)", [x]), ("compute", x)]


def test_adsgd_gives_a_lost_neighbours_weight_to_itself() -> None:
    a = ADSGD()
    ready(a)
    a.on_message(0, Model(vec(9.0)))
    a.on_view(View({1: 0.75, 2: 0.25}, {1: 0.75, 2: 0.25}, (2,), peers=(2,)))
    a.on_gradient(vec(0.0))
    assert values(a.drain())[1] == ("compute", 1.0)
    assert a.heard == {}


def test_dsgd_by_hand() -> None:
    a = DSGD()
    assert values(ready(a)) == [("compute", 1.0), ("send Letter to (0, 2)", [0, 1.0])]
    a.on_message(0, Letter(1, vec(7.0)))  # a round ahead
    a.on_message(0, Letter(0, vec(3.0)))
    a.on_gradient(vec(2.0))
    assert values(a.drain()) == []
    a.on_message(2, Letter(0, vec(5.0)))
    x = pytest.approx(0.25 * 3 + 0.5 * 1 + 0.25 * 5 - 0.2)
    assert values(a.drain()) == [("compute", x), ("send Letter to (0, 2)", [1, x])]
    assert (a.round, list(a.letters)) == (1, [1])


def test_dsgd_after_sends_when_its_gradient_is_done() -> None:
    a = DSGD(after=True)
    assert values(ready(a)) == [("compute", 1.0)]
    a.on_gradient(vec(2.0))
    assert values(a.drain()) == [("send Letter to (0, 2)", [0, 1.0])]


def test_adpsgd_averages_while_it_computes() -> None:
    """Asked at the start; answered in the meantime; the step uses the gradient at the model before the
    averaging.
    """
    a = ADPSGD()
    first, (asked, offered) = values(ready(a))
    assert (first, offered) == (("compute", 1.0), [1.0])
    a.on_message(int(asked[-3]), Moved(vec(0.5)))
    assert a.drain() == []
    a.on_gradient(vec(2.0))
    again, (_, offered) = values(a.drain())
    x = pytest.approx(1 - 0.5 - 0.2)
    assert (again, offered) == (("compute", x), [x])


def test_adpsgd_wait_by_hand() -> None:
    a = ADPSGD(wait=True)
    ready(a)
    a.on_message(0, Ask(vec(3.0)))  # passive, while it computes
    assert values(a.drain()) == [("send Moved to (0,)", [1.0])]
    a.on_gradient(vec(2.0))
    (said,) = values(a.drain())
    assert said[1] == [2.0]
    a.on_message(int(str(said[0])[-3]), Moved(vec(0.5)))
    assert values(a.drain()) == [("compute", pytest.approx(2 - 0.5 - 0.2))]


@pytest.mark.parametrize("lower", [True, False])
def test_adpsgd_questions_that_cross(lower: bool) -> None:
    """Both ask at once: the higher index withdraws and answers, the lower one waits for that answer."""
    a = ADPSGD(wait=True)
    ready(a)
    a.on_gradient(vec(2.0))
    a.drain()
    a.asked = 2 if lower else 0
    a.on_message(a.asked, Ask(vec(3.0)))
    said = [what for what, _ in values(a.drain())]
    assert said == ([] if lower else ["send Moved to (0,)", "compute"])


def test_rfast_by_hand_conserves_what_it_gives() -> None:
    a = RFAST()
    ready(a)
    a.on_gradient(vec(2.0))
    said = dict(values(a.drain()))
    assert said["publish Given to (0,)"] == said["publish Given to (2,)"] == [0.5]
    assert a.z.parts[0].item() == 1.0
    assert said["publish Stepped to (0, 2)"] == [0.9]
    assert said["compute"] == 0.9  # nobody has been heard: all weight is on the own v


# -- the table -------------------------------------------------------------------------------------


def test_every_row_finds_its_class_and_options_are_checked() -> None:
    for name, row in ALGORITHMS.items():
        assert type(row.prototype).__name__ in repr(row)
        assert find(name).new() is not row.prototype
        assert "arXiv" in row.paper or row.name == "allreduce"
        assert set(row.options) <= {f.name for f in fields(row.prototype) if f.init}
    assert find("DSGD:after").new().after  # type: ignore[attr-defined]
    both = find("adpsgd:wait+atomic").new()
    assert (both.wait, both.atomic) == (True, True)  # type: ignore[attr-defined]
    for wrong, hint in (("adsg", "'adsgd'"), ("dsgd:aftr", "'after'"), ("kungurtsev:fast", "no options")):
        with pytest.raises(SettingError, match=hint):
            find(wrong)


def test_options_take_numbers_within_their_ranges() -> None:
    assert find("adsgd:theta=0.50").name == "adsgd:theta=0.5" == find(ADSGD(theta=0.5)).name
    assert find("adsgd:theta=1").name == "adsgd" == find(ADSGD()).name
    assert find("adsgd:theta=0.5").new().theta == 0.5  # type: ignore[attr-defined]
    said = "theta of adsgd takes a number, above 0, at most 1, as in 'adsgd:theta=1'; got "
    for wrong in ("0", "2", "nan", "inf", "half", ""):
        with pytest.raises(SettingError, match=f"{said}'{wrong}'"):
            find(f"adsgd:theta={wrong}")
    with pytest.raises(SettingError, match=f"{said}nothing"):
        find("adsgd:theta")
    with pytest.raises(SettingError, match="takes no value, 'dsgd:after'; got '1'"):
        find("dsgd:after=1")
    with pytest.raises(SettingError, match="twice"):
        find("adsgd:theta=0.5+theta=0.2")
    with pytest.raises(SettingError, match=f"{said}'7.0'"):
        find(ADSGD(theta=7.0))


def test_a_former_option_is_refused_with_its_new_name() -> None:
    for former, now, without in (
        ("dsgd:overlap", "dsgd", "dsgd:after"),
        ("adpsgd:overlap", "adpsgd", "adpsgd:wait"),
        ("adpsgd:overlap+atomic", "adpsgd:atomic", "adpsgd:wait"),
    ):
        with pytest.raises(
            SettingError, match=f"Write '{now}' for what '{re.escape(former)}' was.*'{without}'"
        ):
            find(former)


def test_atomic_adpsgd_refuses_an_odd_cycle() -> None:
    with pytest.raises(SettingError, match="bipartite"):
        started("adpsgd:atomic", quadratic(5), topology="ring")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_agents_can_be_pickled_mid_run_and_go_on_as_before(name: str) -> None:
    """Run, pickle all agents, replace them by their copies, go on: the trace is the same."""
    sims = [started(name, world=World(seed=4, slow_compute={4: 10.0})) for _ in range(2)]
    for sim in sims:
        sim.run(12)
    copied = sims[1]
    for actor in copied.actors:
        actor.agent = pickle.loads(pickle.dumps(actor.agent))
        actor.model = actor.agent.model
    for readers in copied.links.registers.values():
        for held in readers.values():
            held.__init__()  # type: ignore[misc]  # of what the former agents held nothing moves on
    for sim in sims:
        sim.run(24)
    assert sims[0].recorder.trace().digest() == copied.recorder.trace().digest()


# -- the checker -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Note:
    x: Vector


@dataclass
class Loose:
    x: Vector


@dataclass(frozen=True)
class Texted:
    text: str


@dataclass
class InPlace(Agent):
    def on_gradient(self, g: Vector) -> None:
        self.publish(self.view.listeners, Note(self.x))
        self.x.parts[0].add_(1.0)
        self.compute(self.x)


@dataclass
class Twice(Agent):
    def on_gradient(self, g: Vector) -> None:
        self.compute(self.x)
        self.compute(self.x)


@dataclass
class Unfrozen(Agent):
    def on_gradient(self, g: Vector) -> None:
        self.send(self.view.listeners, Loose(self.x))


@dataclass
class Text(Agent):
    def on_gradient(self, g: Vector) -> None:
        self.send(self.view.listeners, Texted("hello"))


@dataclass
class Lambda(Agent):
    f: Callable[[int], int] = field(init=False, default=lambda x: x)

    def on_gradient(self, g: Vector) -> None:
        self.f = lambda x: x
        self.compute(self.x)


@dataclass
class Adopting(Agent):
    def on_message(self, src: int, message: Note) -> None:
        self.x = message.x

    def on_gradient(self, g: Vector) -> None:
        self.publish(self.view.listeners, Note(self.x))
        self.compute(self.x)


@dataclass
class Foreign(Agent):
    def on_gradient(self, g: Vector) -> None:
        self.effects.append("compute")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agent", "promise"),
    [
        (InPlace(), "changed afterwards"),
        (Twice(), "second gradient"),
        (Unfrozen(), "frozen dataclass"),
        (Text(), "is a str"),
        (Lambda(), "cannot be pickled"),
        (Adopting(), "pin"),
    ],
    ids=lambda x: type(x).__name__ if isinstance(x, Agent) else "",
)
def test_a_broken_promise_is_named(agent: Agent, promise: str) -> None:
    sim = started(agent, quadratic(4), topology="ring")
    with pytest.raises(ContractError, match=promise):
        sim.run(100)


def test_what_is_no_effect_is_refused_without_a_checker() -> None:
    sim = started(Foreign(), quadratic(4), topology="ring", check=False)
    with pytest.raises(ContractError, match="no effect of the contract"):
        sim.run(10)
    sim = started(Twice(), quadratic(4), topology="ring", check=False)
    with pytest.raises(ContractError, match="second gradient"):
        sim.run(10)


def test_late_binding_is_real_an_unpinned_value_moves_on() -> None:
    """What R-FAST would do without pin: the consumed sum is overwritten with the new one: mass is lost."""

    @dataclass
    class Keeper(Agent):
        kept: list[Vector] = field(init=False, default_factory=list)
        pinned: list[float] = field(init=False, default_factory=list)

        def on_message(self, src: int, message: Note) -> None:
            self.kept.append(message.x)
            self.pinned.append(message.x.parts[0][0].item())

        def on_gradient(self, g: Vector) -> None:
            self.x = self.x + self.rule(g)
            self.publish(self.view.listeners, Note(self.x))
            self.compute(self.x)

    sim = started(Keeper(), quadratic(2), topology="chain", check=False)
    sim.run(20)
    keeper = sim.agents[0]
    assert isinstance(keeper, Keeper)
    assert len(set(keeper.pinned)) == len(keeper.pinned) > 5
    assert {v.parts[0][0].item() for v in keeper.kept} == {keeper.pinned[-1]}


def test_a_nonlinear_rule_is_an_opaque_node() -> None:
    @dataclass
    class Clipped(ADSGD):
        """A nonlinear rule as an opaque node."""

        def on_gradient(self, g: Vector) -> None:
            super().on_gradient(opaque(lambda: tuple(part.clamp(-1, 1) for part in g.parts)))

    sim = started(Clipped(), topology="grid", check=False)
    sim.run(50)
    assert 0 < sim.actors[0].model.norm() < started("adsgd").task.initial()[0].numel()


def test_two_simulations_may_take_turns_in_one_process() -> None:
    """Each engine settles what its own handlers built, and nothing else."""
    alone = started("rfast")
    alone.run(30)
    turns = [started("rfast"), started("adpsgd")]
    for time in range(0, 31, 3):
        for sim in turns:
            sim.run(time)
    assert turns[0].recorder.trace().digest() == alone.recorder.trace().digest()
