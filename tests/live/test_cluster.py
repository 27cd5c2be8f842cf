"""Several machines: what one shows is mixed on another as it is, mail arrives once, whatever is cut."""

import asyncio
import struct
import tracemalloc
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Machine, Model, Numbered, at_once, coming, compressed, machines, publish, until, vector
from warm import needs_shared_memory

from offbeat.core.codecs import Int8
from offbeat.core.compression import Packed
from offbeat.core.vector import Stamp, Vector
from offbeat.engines.live.cluster.clocks import offset
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.node.transport import Transport, model_of
from offbeat.engines.live.shm.board import Row, State
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import layout_of

pytestmark = needs_shared_memory

Seen = tuple[int, float, Stamp | None, Tag]


def read(transport: Transport, *agents: int) -> list[Seen]:
    """What is new for an agent in the registers of these: source, value, stamp and tag."""
    found = []
    for reader in transport.poll(agents):
        (part,) = reader.vectors[0].parts
        assert (part == part[0]).all()
        found.append((reader.source, float(part[0]), reader.vectors[0].stamp, reader.tag))
    return found


async def reading(transport: Transport, *agents: int) -> list[Seen]:
    """The same, as soon as there is anything."""
    return await coming(lambda: read(transport, *agents))


def taken(transport: Transport) -> list[tuple[int, float]]:
    """The letters that have come: sender and value."""
    return [(source, float(message.x.parts[0][0])) for source, message, _ in transport.receive()]


# -- registers -------------------------------------------------------------------------------------


@at_once
async def test_what_is_published_on_one_machine_is_mixed_on_another_as_it_is() -> None:
    """One transfer for all readers of a machine, none to a machine that has none."""
    async with machines(0, 1, 1, 2) as there:
        first, others = there[0].agent(0), [there[1].agent(1), there[1].agent(2)]
        tag = Tag(5, 3, 1.25, 1.5)
        publish(first, Model(vector(7.0, length=10_000)), (1, 2), tag)
        for each in others:
            each.meet(0, 1)
        assert [await reading(each, 0) for each in others] == [[(0, 7.0, Stamp(0, 7), tag)]] * 2
        asked = [there[k].links[0].asked["newest answered"] for k in (1, 2)]
        await until(lambda: (there[2].board.rows[0] == there[0].board.rows[0]).all())
        assert (asked, there[2].links[0].asked["newest"]) == ([1, 0], 0)
        taken = [(machine.folder / "register.0.1.0").stat().st_blocks for machine in there]
        assert taken[0] == taken[1] > 10 * taken[2], "what nobody mixes takes no memory"


@at_once
async def test_the_newest_wins_however_slow_the_link_is_and_each_version_crosses_once() -> None:
    async with machines(0, 1) as there:
        first, second = there[0].agent(0), there[1].agent(1)
        second.meet(0, 1)
        there[1].links[0].delay = lambda: 0.03
        seen: list[float] = []
        for version in range(1, 101):
            publish(first, Model(vector(float(version))), (1,))
            await asyncio.sleep(0.01)
            seen += [value for _, value, *_ in read(second, 0)]
        while seen[-1] < 100.0:
            seen += [value for _, value, *_ in await reading(second, 0)]
        assert seen == sorted({*seen})
        assert 10 < len(seen) == there[1].links[0].asked["newest answered"] < 30
        assert there[1].links[0].asked["newest"] - len(seen) <= 3


@pytest.mark.parametrize("how", ["fails", "hangs"])
@at_once
async def test_a_cut_link_leaves_all_as_it_was_and_mixing_goes_on_soon_after_it_is_back(how: str) -> None:
    async with machines(0, 1) as there:
        first, second = there[0].agent(0), there[1].agent(1)
        first.meet(1, 1)
        second.meet(0, 1)
        publish(first, Model(vector(1.0)), (1,))
        assert [value for _, value, *_ in await reading(second, 0)] == [1.0]
        for machine in there:
            for link in machine.links.values():
                link.cut = how
        for k in range(2, 12):
            publish(first, Model(vector(float(k))), (1,))
            assert first.post(1, Model(vector(float(k))), Tag())
            await asyncio.sleep(1.0)
        assert not read(second, 0) and not taken(second)
        assert there[1].board.row(0)[Row.STATE] == State.RUNNING, "a cut link is not a death"
        for machine in there:
            for link in machine.links.values():
                link.cut = ""
        async with asyncio.timeout(2.0):
            assert [value for _, value, *_ in await reading(second, 0)] == [11.0]
            mail = await coming(lambda: taken(second), 10)
        assert mail == [(0, float(k)) for k in range(2, 12)]


@at_once
async def test_a_link_is_cut_on_purpose_on_both_sides() -> None:
    async with machines(0, 1) as there:
        first, second = there[0].agent(0), there[1].agent(1)
        second.meet(0, 1)
        assert there[1].exchange is not None
        there[1].exchange.faults = [parse_fault("cut machine 0 from 0 s to 9999 s", 2)]
        publish(first, Model(vector(1.0)), (1,))
        await asyncio.sleep(10.0)
        assert sum(there[1].links[0].asked.values()) == 0 and there[1].exchange.links[0].error
        there[1].exchange.faults = [parse_fault("cut machine 2 from 0 s to 9999 s", 2)]
        async with asyncio.timeout(2.0):
            assert [value for _, value, *_ in await reading(second, 0)] == [1.0]


@at_once
async def test_numbers_beside_a_vector_and_compressed_ones_cross_too() -> None:
    async with machines(0, 1) as there:
        first, second = there[0].agent(0), there[1].agent(1)
        second.meet(0, 1)
        model = Model(vector(3.0))
        packed = Packed.of(model.x, Int8())
        publish(first, Numbered(17, vector(5.0)), (1,))
        compressed(first, model, (1,), packed)
        found = await coming(lambda: [reader.message for reader in second.poll((0,))], 2)
        numbered, arrived = sorted(found, key=lambda each: isinstance(each, Model))
        assert (numbered.k, float(numbered.x.parts[0][0])) == (17, 5.0)
        assert (arrived.x.parts[0] == packed.unpacked()[0]).all()


@at_once
async def test_who_comes_back_is_known_by_its_new_life_and_of_the_one_before_nothing_is_left() -> None:
    async with machines(0, 1) as there:
        first, second = there[0].agent(0), there[1].agent(1)
        first.meet(1, 1)
        second.meet(0, 1)
        publish(first, Model(vector(1.0)), (1,))
        assert first.post(1, Model(vector(1.0)), Tag())
        await reading(second, 0)
        for path in [*there[0].folder.glob("register.0.*"), *there[0].folder.glob("mail.0.*")]:
            path.unlink()  # as its launcher does
        again = there[0].agent(0, life=2)
        again.meet(1, 1)
        publish(again, Model(vector(2.0)), (1,))
        assert again.post(1, Model(vector(2.0)), Tag())
        await until(lambda: there[1].board.row(0)[Row.INCARNATION] == 2)
        second.meet(0, 2)
        assert [value for _, value, *_ in await reading(second, 0)] == [2.0]
        assert await coming(lambda: taken(second)) == [(0, 2.0)], "and not what its earlier life had sent"
        assert not [*there[1].folder.glob("*.0.1.*")]


@at_once
async def test_an_agent_may_go_on_on_another_machine() -> None:
    async with machines(0, 1, 2) as there:
        first, second = there[0].agent(0), there[1].agent(1)
        second.meet(0, 1)
        publish(first, Model(vector(1.0)), (1, 2))
        await reading(second, 0)
        await there[0].kill()
        for machine in there[1:]:
            assert machine.exchange is not None
            machine.exchange.place(0, 2)
        again, second.membership = there[2].agent(0, life=2), 1
        publish(again, Model(vector(2.0)), (1, 2))
        second.meet(0, 2)
        assert [value for _, value, *_ in await reading(second, 0)] == [2.0]
        second.post(0, Model(vector(9.0)), Tag())
        again.meet(1, 1)
        assert await coming(lambda: taken(again)) == [(1, 9.0)]


@at_once
async def test_an_agent_may_come_that_nobody_knew_and_is_seen_before_it_belongs_to_the_run() -> None:
    async with machines(0, 1) as there:
        first = there[0].agent(0)
        for machine in there:
            assert machine.exchange is not None
            machine.exchange.place(2, 1)
        newcomer = there[1].agent(2)
        newcomer.row[Row.STATE] = State.JOINED
        await until(lambda: there[0].board.row(2)[Row.STATE] == State.JOINED)
        assert there[0].board.rows.shape[0] == 2
        for machine in there:
            machine.board.grow(3)
        first.meet(2, 1)
        newcomer.meet(0, 1)
        publish(newcomer, Model(vector(5.0)), (0,))
        assert [value for _, value, *_ in await reading(first, 2)] == [5.0]
        assert newcomer.post(0, Model(vector(6.0)), Tag()) and first.post(2, Model(vector(7.0)), Tag())
        assert await coming(lambda: taken(first)) == [(2, 6.0)]
        assert await coming(lambda: taken(newcomer)) == [(0, 7.0)]


@at_once
async def test_models_that_nobody_mixes_come_where_somebody_looks_at_all_and_their_proposal() -> None:
    """A launcher's machine has no agents."""
    async with machines(0, 1, count=3) as there:
        first = there[0].agent(0)
        first.row[Row.STATE] = State.ABSENT
        looks = there[2].exchange
        assert looks is not None
        looks.models_every = 1.0
        publish(first, Model(vector(4.0)), ())
        first.row[Row.MODEL] = 1
        await until(lambda: (found := model_of(there[2].folder, there[2].board, 0)) and found[0].stamp)
        found = model_of(there[2].folder, there[2].board, 0)
        assert found is not None and (found[0].parts[0] == 4.0).all()
        assert not (there[2].folder / "model.json").exists()
        propose(first)
        for machine in there:
            await agreed(machine)
        assert abs((await offset(there[1].links[0])).ns) < 10**9


def propose(first: Transport) -> None:
    """Agent 0 joins, and says with what: with a model of twos."""
    layout = layout_of(Model(vector(0.0)))
    Register.create(first.folder / "initial", layout).put(
        struct.pack("<qqddqqq", 0, 0, 0.0, 0.0, -1, -1, -1), vector(2.0).parts[0].numpy().view("u1")
    )
    said = b'{"about": {"algorithm": "adsgd"}, "returns": true, "needed": []}'
    (first.folder / "model.json").write_bytes(said)
    first.row[Row.STATE] = State.JOINED


async def agreed(machine: Machine) -> None:
    """That is known there."""
    assert machine.exchange is not None
    await asyncio.wait_for(machine.exchange.agreed(), 5.0)
    _, (x,), _ = Register.attach(machine.folder / "initial").copy()
    assert (x.parts[0] == 2.0).all()


@at_once
async def test_a_machine_that_comes_late_learns_what_was_agreed_from_any_other() -> None:
    """Agent 0's is lost, and agent 0 is to live on the one that comes."""
    async with machines(0, 1, count=3) as there:
        await there[2].kill()
        propose(there[0].agent(0))
        there[1].agent(1)
        await agreed(there[1])
        await there[0].kill()
        there[2].hosts = [2, 1]
        there[2].start()
        assert there[1].exchange is not None
        there[1].exchange.place(0, 2)
        await agreed(there[2])


@at_once
async def test_an_experiment_has_nothing_to_agree_on() -> None:
    """Its settings say all: agents are let in, and nobody is asked for what there is not."""
    async with machines(0, 1, experiment={}) as there:
        first, looks = there[0].agent(0), there[1].exchange
        first.row[Row.STATE] = State.JOINED
        await until(lambda: there[1].board.row(0)[Row.STATE] == State.JOINED)
        assert looks is not None
        await asyncio.wait_for(looks.agreed(), 1.0)
        assert there[1].links[0].asked["proposal"] == 0


def test_no_more_than_two_copies_of_a_version_are_held() -> None:
    """By both gateways together, beside the registers themselves; nothing once it has arrived."""
    numbers = 1_000_000

    async def main() -> None:
        async with machines(0, 1) as there:
            first, second = there[0].agent(0), there[1].agent(1)
            second.meet(0, 1)
            model = vector(1.0, length=numbers)
            publish(first, Model(model), (1,))
            await reading(second, 0)
            tracemalloc.start()
            try:
                for version in range(5):
                    publish(first, Model(model), (1,), Tag(version))
                    await reading(second, 0)
                await asyncio.sleep(0.2)
                left, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            assert 0.9 < peak / (8 * numbers) < 1.5 and left < 0.1 * 8 * numbers

    asyncio.run(main())


# -- mail ------------------------------------------------------------------------------------------

HOSTS = [0, 0, 1, 1, 2]


class Carrier:
    """An agent whose letters move mass: what it gives it has no more, and of what comes a part goes back."""

    def __init__(self, machine: Machine, me: int, random: Random) -> None:
        self.transport, self.random = machine.agent(me, size=700), random
        self.mass, self.said, self.heard = 1 << 20, [0] * len(HOSTS), [0] * len(HOSTS)
        self.backlog: list[tuple[int, Numbered]] = []
        for j in range(len(HOSTS)):
            if j != me:
                self.transport.meet(j, 1)

    def give(self, to: int, mass: int) -> None:
        self.mass -= mass
        self.said[to] += 1
        letter = vector(float(mass), length=self.random.choice((0, 1, 50, 150)))
        self.backlog.append((to, Numbered(self.said[to], Vector((*letter.parts, torch.tensor([mass]))))))

    def serve(self) -> None:
        """Take what has come, in order, and send what there is room for."""
        for source, message, _ in self.transport.receive():
            self.heard[source] += 1
            assert message.k == self.heard[source], "every letter, once, in the order in which it was sent"
            mass = int(message.x.parts[1])
            self.mass += mass
            if mass > 1 and self.random.random() < 0.7:
                self.give(source, mass // 2)
        self.backlog = [(to, letter) for to, letter in self.backlog if not self._sent(to, letter)]

    def _sent(self, to: int, letter: Numbered) -> bool:
        first = next(other for j, other in self.backlog if j == to)
        return first.k == letter.k and self.transport.post(to, letter, Tag())


@given(st.integers(0, 1 << 32))
@settings(max_examples=3)
@at_once
async def test_every_letter_arrives_once_and_in_order_and_no_mass_is_lost(seed: int) -> None:
    """Whatever links are cut or slow, questions and answers lost, gateways killed and started again."""
    random = Random(seed)
    async with machines(*HOSTS) as there:
        agents = [Carrier(there[host], i, random) for i, host in enumerate(HOSTS)]
        links = [link for machine in there for link in machine.links.values()]
        for link in links:
            link.delay = lambda: random.choice((0.0, 0.001, 0.03))
            link.loses = lambda: random.random() < 0.1
        for _ in range(60):
            machine, link, one = random.choice(there), random.choice(links), random.choice(agents)
            match random.randrange(8):
                case 0 if machine.exchange is not None:
                    await machine.kill()
                case 0 | 1 if machine.exchange is None:
                    machine.start()
                case 2:
                    link.cut = random.choice(("fails", "hangs"))
                case 3 | 4:
                    link.cut = ""
                case _:
                    to = random.choice([j for j in range(len(HOSTS)) if agents[j] is not one])
                    one.give(to, random.randrange(1, 1000))
            await asyncio.sleep(random.choice((0.0, 0.01, 0.3)))
            for each in random.sample(agents, 2):  # the others are slow
                each.serve()
        for link in links:
            link.cut, link.loses = "", lambda: False
        for machine in there:
            if machine.exchange is None:
                machine.start()

        def settled() -> bool:
            for each in agents:
                each.serve()
            said = [[each.said[j] for each in agents] for j in range(len(HOSTS))]
            waiting = sum(machine.exchange.waiting for machine in there if machine.exchange is not None)
            return said == [each.heard for each in agents] and not waiting

        await until(settled, 300.0, look=0.1)
        assert sum(each.mass for each in agents) == len(HOSTS) << 20


@at_once
async def test_who_sleeps_is_woken_though_a_gateway_died_before_it_rang() -> None:
    """The receiver, by the gateway after the one that put a letter there; the sender, once there is room."""
    async with machines(0, 1) as there:
        first, second = there[0].agent(0, size=700), there[1].agent(1, size=700)
        first.meet(1, 1)
        second.meet(0, 1)
        for machine in there:
            assert machine.exchange is not None
            machine.exchange.bells.ring = lambda agent: None  # type: ignore[method-assign]
        letter, sent = Numbered(1, vector(1.0)), 0
        while first.post(1, letter, Tag()):
            sent += 1
        await until(lambda: there[0].exchange is not None and not there[0].exchange.waiting)
        for machine, transport in zip(there, (first, second), strict=True):
            transport.bell.quiet()
            await machine.kill()
            machine.start()
            await until(lambda transport=transport: asleep(transport) is False, 1.0)  # type: ignore[misc]
        assert len(taken(second)) == sent


@at_once
async def test_a_letter_that_is_faster_than_its_senders_row_is_found() -> None:
    async with machines(0, 1) as there:
        there[1].links[0].cut = "hangs"
        first, second = there[0].agent(0), there[1].agent(1)
        first.meet(1, 1)
        second.meet(0, 1)
        await until(lambda: there[0].board.row(1)[Row.INCARNATION] == 1)
        first.post(1, Model(vector(3.0)), Tag())
        await until(lambda: "mail.0.1.1.1" in {path.name for path in there[1].folder.iterdir()})
        assert await awake(second, 2.0) == []
        there[1].links[0].cut = ""
        assert await awake(second, 300.0) == [(0, 3.0)]


async def awake(transport: Transport, seconds: float) -> list[tuple[int, float]]:
    """What comes within this time to an agent that does nothing until its bell rings."""
    end = (loop := asyncio.get_running_loop()).time() + seconds
    found: list[tuple[int, float]] = []
    while not found and loop.time() < end:
        if not asleep(transport):
            transport.bell.quiet()
            found = taken(transport)
        await asyncio.sleep(0.01)
    return found


def asleep(transport: Transport) -> bool:
    """Whether an agent that has nothing to do but to wait would go on sleeping."""
    return not transport.bell.wait(0.0)
