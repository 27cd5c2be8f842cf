"""Batches that go to whoever comes first, over machines: each once, whoever is quick, and nobody waits."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import Machine, at_once, machines, until
from torch.utils.data import DataLoader
from warm import needs_shared_memory

from offbeat.engines.live.cluster.exchange import Exchange
from offbeat.engines.live.shm.board import Board, Row, State
from offbeat.engines.live.shm.part import Places
from offbeat.training.hand import Table
from offbeat.training.progress import DataProgress

pytestmark = needs_shared_memory

Done = list[tuple[int, int, int]]  # agent, epoch, number


class Agent:
    """Its loop over the epochs of a loader. takes: seconds of a step; done: what it has made a step with."""

    def __init__(
        self, machine: Machine, me: int, batches: int, share: str = "speed", returned: bool = False
    ) -> None:
        self.machine, self.me, self.done = machine, me, list[tuple[int, int, int]]()
        hosts = tuple(machine.hosts)
        table = Table(machine.folder, me, len(hosts), returned, places=Places(machine.number, hosts))
        self.places = DataProgress(me, len(hosts), 7, table=table)
        self.places.restore(None)
        self.places.joined(
            lambda: machine.exchange.dealing.alive() if machine.exchange else range(len(hosts))
        )
        data: Any = range(batches)
        self.loader = DataLoader(data, batch_size=1, shuffle=True)
        self.share = share
        machine.board.row(me)[Row.STATE] = State.RUNNING

    async def run(self, epochs: int, takes: Callable[[], float]) -> float:
        """Returns when it has ended. All that it waits for is its own computation."""
        for _ in self.places.epochs(epochs):
            for _ in self.places.shard(self.loader, self.share):
                await asyncio.sleep(takes())
                self.done += [(self.me, epoch, b) for _, epoch, b in self.places.keep()]
        return asyncio.get_running_loop().time()


@asynccontextmanager
async def running(*hosts: int, delay: Callable[[], float] = lambda: 0.002) -> AsyncIterator[list[Machine]]:
    """Machines whose agents belong to the run, and where each way takes so long."""
    async with machines(*hosts) as there:
        for machine in there:
            for i in range(len(hosts)):
                machine.board.change(i, 1)
            for link in machine.links.values():
                link.delay = delay
        yield there


def counts(agents: list[Agent]) -> Counter[tuple[int, int]]:
    return Counter((epoch, number) for agent in agents for _, epoch, number in agent.done)


def once(epochs: int, batches: int) -> Counter[tuple[int, int]]:
    return Counter((epoch, number) for epoch in range(epochs) for number in range(batches))


async def ends(agents: list[Agent], epochs: int, takes: list[float]) -> list[float]:
    return await asyncio.gather(
        *(a.run(epochs, lambda s=s: s) for a, s in zip(agents, takes, strict=True))  # type: ignore[misc]
    )


def none_doubled(there: list[Machine]) -> bool:
    return not any(machine.exchange.dealing.doubled for machine in there if machine.exchange)


@pytest.mark.parametrize("share", ["speed", "random"])
@at_once
async def test_a_slow_machine_has_less_to_do_and_all_end_together(share: str) -> None:
    async with running(0, 0, 1, 1) as there:
        agents = [Agent(there[k], i, 400, share) for i, k in enumerate(there[0].hosts)]
        at = await ends(agents, 2, [0.02, 0.02, 0.02, 0.2])
        assert counts(agents) == once(2, 400) and none_doubled(there)
        assert max(at) - min(at) < 0.5 + 2 * 0.2
        done = [len(agent.done) for agent in agents]
        assert done[3] < 0.15 * done[0] and done[2] < 1.1 * done[0]
        for machine in there:
            await until(lambda machine=machine: len([*machine.folder.glob("data.*")]) == 1)  # type: ignore[misc]
        assert not there[0].said + there[1].said


@settings(max_examples=8, deadline=None)
@given(
    hosts=st.lists(st.integers(0, 2), min_size=2, max_size=5).map(sorted),
    takes=st.lists(st.floats(0.02, 0.5), min_size=5, max_size=5),
    batches=st.integers(1, 90),
    seed=st.integers(0, 999),
)
def test_without_faults_each_batch_once(
    hosts: list[int], takes: list[float], batches: int, seed: int
) -> None:
    """Where a way takes less than a step."""

    @at_once
    async def run() -> None:
        draw = Random(seed)
        async with running(*hosts, delay=lambda: draw.uniform(0.0, 0.004)) as there:
            agents = [Agent(there[k], i, batches) for i, k in enumerate(hosts)]
            await ends(agents, 2, takes[: len(hosts)])
            assert counts(agents) == once(2, batches) and none_doubled(there)

    run()


@settings(max_examples=8, deadline=None)
@given(
    takes=st.lists(st.floats(0.01, 0.3), min_size=4, max_size=4),
    batches=st.integers(1, 120),
    slowest=st.floats(0.0, 2.0),
    cuts=st.lists(st.tuples(st.floats(0.0, 6.0), st.sampled_from(["fails", "hangs", "kill 0", "kill 1"]))),
    seed=st.integers(0, 999),
)
def test_whatever_is_cut_late_or_killed_each_batch_is_done_and_what_is_done_twice_is_said(
    takes: list[float], batches: int, slowest: float, cuts: list[tuple[float, str]], seed: int
) -> None:
    """Agents wait for nothing: each takes the time of its own steps."""

    async def meddle(there: list[Machine]) -> None:
        for pause, what in cuts:
            await asyncio.sleep(pause)
            if what.startswith("kill"):
                machine = there[int(what[-1])]
                await machine.kill()
                await asyncio.sleep(pause / 4)
                machine.start()
            for link in (link for machine in there for link in machine.links.values()):
                link.cut = "" if link.cut or what.startswith("kill") else what

    @at_once
    async def run() -> None:
        draw = Random(seed)
        async with running(0, 0, 1, 1, delay=lambda: draw.uniform(0.0, slowest)) as there:
            agents = [Agent(there[k], i, batches) for i, k in enumerate(there[0].hosts)]
            meddling = asyncio.create_task(meddle(there))
            at = await ends(agents, 2, takes)
            await meddling
            found = counts(agents)
            assert {*found} == {*once(2, batches)} and max(found.values()) <= 2
            for agent, end, step in zip(agents, at, takes, strict=True):
                assert end == pytest.approx(step * len(agent.done)), "it has waited for nobody"

    run()


@at_once
async def test_what_is_lent_and_never_heard_of_is_taken_back_and_what_is_done_twice_is_counted() -> None:
    async with running(0, 1) as there:
        agents = [Agent(there[k], k, 40) for k in (0, 1)]
        slow, quick = there
        lent = asyncio.create_task(until(lambda: _lent(slow)))
        both = asyncio.gather(agents[0].run(1, lambda: 0.5), agents[1].run(1, lambda: 0.05))
        await lent
        for machine in there:
            for link in machine.links.values():
                link.cut = "hangs"
        await both
        for machine in there:
            for link in machine.links.values():
                link.cut = ""
        found = counts(agents)
        assert {*found} == {*once(1, 40)}
        twice = sum(count > 1 for count in found.values())
        await until(lambda: not [*quick.folder.glob("data.*.0.0")])
        assert quick.exchange is not None and quick.exchange.dealing.doubled == twice
        assert bool(twice) == any("dealt twice" in said for said in quick.said)


def _lent(machine: Machine) -> int:
    assert machine.exchange is not None
    return sum(len(part.lent) for part in machine.exchange.dealing.parts.values())


@at_once
async def test_during_a_cut_each_machine_goes_on_with_its_own_part_and_nothing_is_done_twice() -> None:
    async with running(0, 1) as there:
        for machine in there:
            for link in machine.links.values():
                link.cut = "fails"
        agents = [Agent(there[k], k, 40) for k in (0, 1)]
        assert await ends(agents, 2, [0.01, 0.1]) == pytest.approx([0.4, 4.0])
        assert counts(agents) == once(2, 40)


@at_once
async def test_the_part_of_a_machine_whose_agent_never_comes_back_goes_to_the_others() -> None:
    """Its gateway is there; what the agent was at when it died is dealt again."""
    async with running(0, 1) as there:
        agents = [Agent(there[k], k, 60) for k in (0, 1)]
        dies = asyncio.create_task(agents[1].run(2, lambda: 0.05))
        lives = asyncio.create_task(agents[0].run(2, lambda: 0.05))
        await asyncio.sleep(0.42)
        dies.cancel()
        for machine in there:
            machine.board.change(1, -1)
        await lives
        assert counts(agents) == once(2, 60)


@at_once
async def test_the_part_of_a_machine_that_is_lost_goes_to_the_next() -> None:
    async with running(0, 1) as there:
        agents = [Agent(there[k], k, 60) for k in (0, 1)]
        dies = asyncio.create_task(agents[1].run(2, lambda: 0.1))
        lives = asyncio.create_task(agents[0].run(2, lambda: 0.2))
        await asyncio.sleep(1.5)
        dies.cancel()
        await there[1].kill()
        there[0].board.change(1, -1)
        await lives
        assert {*counts(agents)} == {*once(2, 60)}
        assert counts(agents).total() <= 120 + 12
        assert any("Machine 1 is lost" in said for said in there[0].said)


def test_a_launcher_which_is_no_machine_has_an_exchange_before_any_loop_runs(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", 2)
    exchange = Exchange(tmp_path, board, -1, [0, 1])

    async def looks() -> list[Any]:
        exchange.dealing.look()
        return [*exchange.dealing.questions(0)]

    assert not asyncio.run(looks())


@at_once
async def test_other_loaders_on_another_machine_are_said() -> None:
    async with running(0, 1) as there:
        agents = [Agent(there[k], k, 41) for k in (0, 1)]
        for agent, drops in zip(agents, (False, True), strict=True):
            agent.loader = DataLoader(agent.loader.dataset, batch_size=2, drop_last=drops)
        await ends(agents, 1, [0.05, 0.05])
        assert any("shares out 20 batches an epoch, machine 0 21" in said for said in there[0].said)


@pytest.mark.parametrize(
    "question",
    [b"", b"{}", b"[1]", b'{"name": "../x", "epoch": 0, "size": 3, "machine": 1, "had": [], "late": [],'
     b' "left": 0, "rate": 0, "agents": 1, "wants": true}'],
)  # fmt: skip
@at_once
async def test_what_is_no_question_is_refused(question: bytes) -> None:
    async with running(0, 1) as there:
        with pytest.raises(Exception, match="A question for batches was refused"):
            await there[0].answer("deal", question)
        assert not [*there[0].folder.glob("*data*")]
