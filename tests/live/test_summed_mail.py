"""Differences that are summed while they wait, behind a link and for room: none is lost, whatever happens to
machines and links, and the replay adds them up in the same order.
"""

import asyncio
from random import Random

import pytest
import torch
from accumulating import Accumulating, all_arrived
from machines import Machine, at_once, machines, until
from warm import needs_shared_memory

from offbeat import SGD, Agent, Vector, World
from offbeat.algorithms import MemoryEfficientADSGD, find
from offbeat.core.summed import Summed
from offbeat.engines.events import SumAdded, SumEnds, rows_of
from offbeat.engines.live.node import transport as mailing
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.link import Link
from offbeat.engines.live.node.log import Log, merged
from offbeat.engines.live.node.performer import Clock, Performer
from offbeat.engines.sim.replay import Replay
from offbeat.engines.trace import Trace
from offbeat.world.delays import parse
from offbeat.world.topology import build

pytestmark = needs_shared_memory

HOSTS, SKEW, LENGTH, ROOM = [0, 0, 1, 1], 0.05, 10, 1500
"""Of agents; seconds between the machines' clocks; of a model; bytes of a mailbox beside two models."""

RING = build("ring", len(HOSTS))
BEGIN = (torch.linspace(-1.0, 1.0, LENGTH, dtype=torch.float64),)


def gradient(i: int, k: int, x: Vector) -> Vector:
    """Of a quadratic whose minimum is elsewhere for each minibatch."""
    (part,) = x.parts
    return Vector(((1.0 + 0.3 * i) * (part - torch.sin(torch.arange(LENGTH) * (i + 1.0) + k)),))


def rule() -> SGD:
    return SGD(0.1)


class Training:
    """An agent that trains, without a process; its clock is the loop's, and wrong by where it is."""

    def __init__(self, algorithm: Agent, machine: Machine, me: int, random: Random) -> None:
        self.me, self.random, self.log = me, random, machine.folder / f"agent-{me}.trace"
        agent, transport = find(algorithm).new(), machine.agent(me, size=8 * LENGTH)
        agent.join(me, len(HOSTS), Vector(BEGIN), RING.view(me, range(len(HOSTS))), rule(), Random(me))
        world = World(seed=random.randrange(1000), communication=parse("lognormal 1 mean 0.05"))
        self.link = transport.link = Link(world, me, 8 * LENGTH)
        clock, loop = Clock(), asyncio.get_running_loop()
        clock.now = lambda: loop.time() + SKEW * machine.number  # type: ignore[method-assign]
        self.transport, self.performer = transport, Performer(agent, transport, Log(self.log), clock)
        self.driver, self.steps = Driver(self.performer, RING), 0
        self.driver.join()
        self.x = self.driver.start()

    @property
    def model(self) -> torch.Tensor:
        (part,) = self.driver.agent.x.parts
        return part

    @property
    def sum(self) -> torch.Tensor:
        agent = self.driver.agent
        assert isinstance(agent, Summed)
        (part,) = agent.y.parts
        return part

    async def train(self, seconds: float) -> None:
        """Steps, and now and then a look at the mail while a gradient is computed."""
        while asyncio.get_running_loop().time() < seconds:
            for _ in range(self.random.randrange(3)):
                await asyncio.sleep(self.random.expovariate(50.0))
                self.driver._serve()
            await asyncio.sleep(self.random.expovariate(50.0))
            self.x = self.driver.step(gradient(self.me, self.steps, self.x))
            self.steps += 1

    def rests(self) -> bool:
        """Whether all that was sent has left, and all that has come been read."""
        waits = [box.queue for box in [self.link.outbox, *self.performer.backlog.values()]]
        unread = [box.written - box.taken for box in self.transport.incoming.values()]
        return not (self.link.coming or any(waits) or any(unread))


async def disturb(there: list[Machine], random: Random) -> None:
    """Gateways are killed and started again; links are down for a while."""
    for _ in range(4):
        machine = random.choice(there)
        links = [link for each in there for link in each.links.values()]
        await machine.kill()
        await asyncio.sleep(random.uniform(0.0, 1.0))
        machine.start()
        for link in links:
            link.cut = random.choice(("fails", "hangs", ""))
        await asyncio.sleep(random.uniform(0.0, 1.0))
        for link in links:
            link.cut = ""


async def trained(algorithm: Agent, seed: int, seconds: float = 8.0) -> tuple[list[Training], Trace]:
    """Agents whose mail has all arrived, and what they logged."""
    random = Random(seed)
    async with machines(*HOSTS) as there:
        for machine in there:
            for i in range(len(HOSTS)):
                machine.board.change(i, 1)
        agents = [Training(algorithm, there[host], i, random) for i, host in enumerate(HOSTS)]
        await asyncio.gather(disturb(there, random), *(each.train(seconds) for each in agents))

        def settled() -> bool:
            for each in agents:  # an answer may be for one that has looked
                each.driver._serve()
            on_its_way = sum(each.exchange.waiting for each in there if each.exchange is not None)
            return all(each.rests() for each in agents) and not on_its_way

        await until(settled, 60.0, look=0.01)
        for each in agents:
            each.driver.close()
        return agents, merged([each.log for each in agents], {})


@pytest.mark.parametrize("seed", range(3))
@at_once
async def test_what_is_summed_behind_a_link_and_for_room_all_arrives_and_is_replayed_to_the_bit(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every agent's sum is that of its neighbours' models as they are, up to rounding."""
    monkeypatch.setattr(mailing, "SLACK", ROOM)
    agents, trace = await trained(MemoryEfficientADSGD(), seed)
    assert len(rows_of(trace.events, SumAdded)) > 10 and min(each.steps for each in agents) > 100
    for each in agents:
        weights = RING.view(each.me, range(len(HOSTS))).w
        others = [w * agents[j].model for j, w in weights.items() if j != each.me]
        assert torch.allclose(each.sum, torch.stack(others).sum(dim=0), rtol=0.0, atol=1e-12)
    replayed(MemoryEfficientADSGD(), agents, trace)


def replayed(algorithm: Agent, agents: list[Training], trace: Trace) -> None:
    """Fresh agents that meet the same events do the same, to the bit."""
    new = find(algorithm).new
    replay = Replay(trace, RING, new, rule, lambda i, k: Random(i), BEGIN, gradient)
    again = replay.run()
    for name, table in trace.tables.items():
        assert again.tables[name].tobytes() == table.tobytes(), name
    for each, replayed in zip(agents, replay.agents, strict=True):
        assert torch.equal(each.model, replayed.actor.model.parts[0])


@at_once
async def test_what_is_accumulated_in_every_way_arrives_and_is_replayed_to_the_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mailing, "SLACK", ROOM)
    agents, trace = await trained(Accumulating(), 1, seconds=2.0)
    assert len(rows_of(trace.events, SumAdded)) > 10 and len(rows_of(trace.events, SumEnds)) > 50
    all_arrived([each.driver.agent for each in agents], 1e-9)
    replayed(Accumulating(), agents, trace)
