"""Shares by speed: who comes first gets the next batch, so all end together; each sample once."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_shard import LOADERS, OVERLAP, Forever, Numbers, Pairs, Setup, Stream, flat
from torch.utils.data import DataLoader, WeightedRandomSampler
from warm import finished, needs_shared_memory

from offbeat.core.errors import DataError, SettingError
from offbeat.engines.events import BatchTaken, rows_of
from offbeat.engines.live.shm.part import Places
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed
from offbeat.training.hand import Table
from offbeat.training.progress import DataProgress
from offbeat.training.shard import Shard

Make = Callable[[], Iterable[Any]]
OF_THEIR_OWN: dict[str, Make] = {
    "one iterator for all epochs": lambda: Forever(Numbers(23), batch_size=2, shuffle=True),
    "as Accelerate prepares one": lambda: Setup(Numbers(23), batch_size=2, shuffle=True),
}


class Agent:
    """One agent's loops, in a process of its own or in this one. state: of a checkpoint, in a new run."""

    def __init__(
        self, folder: Path, me: int, world: int, make: Make, share: str = "speed", returned: bool = False,
        state: Any = None, alive: Iterable[int] | None = None, seed: int = 7,
    ) -> None:  # fmt: skip
        self.me, self.dealt = me, list[tuple[int, int]]()
        self.places = DataProgress(me, world, seed, table=Table(folder, me, world, returned))
        self.places.restore(state)
        self.make, self.share = make(), share
        self.living = frozenset(range(world) if alive is None else alive)

    def join(self) -> Agent:
        """Once all have been made, as in a run all begin when all have restored what they had."""
        self.places.joined(lambda: self.living)
        return self

    def shard(self) -> Shard[Any]:
        return self.places.shard(self.make, self.share)

    def run(self, epochs: int, loops: Iterable[int] | None = None) -> Iterator[tuple[int, list[int]]]:
        """Epoch and samples of one batch after the other; a step is made with each before the next."""
        for epoch in self.places.epochs(epochs) if loops is None else loops:
            for batch in self.shard():
                yield epoch, flat([batch])
                self.dealt += [(epoch, number) for _, epoch, number in self.places.keep()]


def agents(folder: Path, world: int, make: Make, **more: Any) -> list[Agent]:
    made = [Agent(folder, me, world, make, **more) for me in range(world)]
    return [agent.join() for agent in made]


def at_speeds(
    runs: list[Iterator[tuple[int, list[int]]]], takes: list[float]
) -> tuple[list[list[tuple[int, list[int]]]], list[float]]:
    """What each has seen, each step taking its agent's time, and when each has ended."""
    seen: list[list[tuple[int, list[int]]]] = [[] for _ in runs]
    ends, heap = [0.0] * len(runs), [(0.0, i) for i in range(len(runs))]
    while heap:
        now, i = heappop(heap)
        got = next(runs[i], None)
        if got is None:
            ends[i] = now
        else:
            seen[i].append(got)
            heappush(heap, (now + takes[i], i))
    return seen, ends


def by_epoch(seen: Iterable[list[tuple[int, list[int]]]]) -> dict[int, Counter[int]]:
    counts: dict[int, Counter[int]] = {}
    for epoch, samples in chain(*seen):
        counts.setdefault(epoch, Counter()).update(samples)
    return counts


def batched(size: int, batch: int, **more: Any) -> Make:
    return lambda: DataLoader(Numbers(size), batch_size=batch, **more)


@settings(max_examples=25)
@given(
    speeds=st.lists(st.floats(0.1, 4.0), min_size=1, max_size=5),
    size=st.integers(1, 60),
    batch=st.integers(1, 7),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
)
def test_every_sample_once_an_epoch_and_all_end_within_one_step_of_the_slowest(
    speeds: list[float], size: int, batch: int, shuffle: bool, drop_last: bool
) -> None:
    make = batched(size, batch, shuffle=shuffle, drop_last=drop_last)
    with TemporaryDirectory() as name:
        if drop_last and size < batch:
            with pytest.raises(SettingError, match="less than one batch"):
                agents(Path(name), len(speeds), make)[0].shard()
            return
        all_ = agents(Path(name), len(speeds), make)
        seen, ends = at_speeds([agent.run(3) for agent in all_], speeds)
        assert max(ends) - min(ends) <= max(speeds) + 1e-9
        whole = size - size % batch if drop_last else size
        for counts in by_epoch(seen).values():
            assert len(counts) == counts.total() == whole, "each once"
        assert {*by_epoch(seen)} == {0, 1, 2}
        took = sum(agent.places.share for agent in all_ if agent.dealt)
        assert took == pytest.approx(3.0), "three epochs of all data, by all together"
        assert len([*Path(name).iterdir()]) == 1, "nothing is kept of epochs that are over"


def test_a_slow_agent_gets_as_much_less_as_it_is_slow(tmp_path: Path) -> None:
    seen, _ = at_speeds([a.run(4) for a in agents(tmp_path, 3, batched(120, 2, shuffle=True))], [1, 1, 4])
    counts = [len(each) for each in seen]
    assert sum(counts) == 4 * 60 and counts[0] == pytest.approx(4 * counts[2], abs=4)
    first, second = ([s for e, b in chain(*seen) if e == epoch for s in b] for epoch in (0, 1))
    assert sorted(first) == sorted(second) and first != second, "another order in every epoch"


@pytest.mark.parametrize("name", [each for each in (*LOADERS, *OF_THEIR_OWN) if "workers" not in each])
def test_any_loader_is_seen_once_by_all_together(tmp_path: Path, name: str) -> None:
    make = {**LOADERS, **OF_THEIR_OWN}[name]
    torch.manual_seed(3)
    for folder in ("one", "many"):
        (tmp_path / folder).mkdir()
    alone = by_epoch(at_speeds([a.run(2) for a in agents(tmp_path / "one", 1, make)], [1.0])[0])
    seen, _ = at_speeds([a.run(2) for a in agents(tmp_path / "many", 3, make)], [1.0, 1.7, 4.0])
    if name not in OVERLAP:  # which draw with replacement
        assert all(counts.total() == len(counts) > 10 for counts in alone.values())
    assert by_epoch(seen) == alone


def test_a_generator_is_dealt_once(tmp_path: Path) -> None:
    seen, _ = at_speeds([a.run(1) for a in agents(tmp_path, 2, lambda: (i for i in range(9)))], [1, 3])
    assert by_epoch(seen)[0] == Counter(range(9)) and len(seen[0]) > 5


def test_what_is_loaded_ahead_goes_to_who_has_nothing_left(tmp_path: Path) -> None:
    """Workers load eight batches ahead, which is no reason for the slow one to train alone with these."""
    make = batched(40, 1, num_workers=2, prefetch_factor=4)
    seen, ends = at_speeds([a.run(1) for a in agents(tmp_path, 2, make)], [0.1, 10.0])
    assert by_epoch(seen)[0] == Counter(range(40)) and len(seen[1]) == 1
    assert max(ends) <= 10.0


def test_an_agent_that_was_killed_does_again_what_it_was_at(tmp_path: Path) -> None:
    """In a later epoch, without a checkpoint, before the others have noticed."""
    make = batched(24, 2, shuffle=True)
    one, two = (agent.run(3) for agent in agents(tmp_path, 2, make))
    seen: list[list[tuple[int, list[int]]]] = [[], []]
    while not seen[1] or seen[1][-1][0] < 1:
        seen[0].append(next(one))
        seen[1].append(next(two))
    lost = seen[1].pop()  # it was killed within this step
    del two
    again = Agent(tmp_path, 1, 2, make, returned=True).join()
    rest, _ = at_speeds([one, again.run(3)], [1.0, 1.0])
    counts = by_epoch([*seen, *rest])
    assert all(counts[epoch] == Counter(range(24)) for epoch in range(3))
    assert lost in rest[0] + rest[1]


def test_what_an_agent_was_at_that_never_comes_back_goes_to_the_others(tmp_path: Path) -> None:
    make = batched(24, 2, shuffle=True)
    made = agents(tmp_path, 3, make)
    runs = [agent.run(2) for agent in made]
    seen = [[next(run)] for run in runs]
    for agent in made[:2]:
        agent.living = frozenset({0, 1})
    rest, _ = at_speeds(runs[:2], [1.0, 2.0])
    counts = by_epoch([seen[0], seen[1], *rest])
    assert counts == {0: Counter(range(24)), 1: Counter(range(24))}


@pytest.mark.parametrize("share", ["speed", "random"])
def test_a_run_that_is_resumed_goes_on_in_the_newest_epoch_that_was_saved(tmp_path: Path, share: str) -> None:
    """Of each agent another step was saved; what was done later is not in any model, and is done again."""
    make = batched(30, 3, shuffle=True)
    for folder in ("before", "after"):
        (tmp_path / folder).mkdir()
    made = agents(tmp_path / "before", 3, make, share=share)
    runs, saved = [agent.run(4) for agent in made], list[Any]()
    in_models: list[list[tuple[int, list[int]]]] = []
    for agent, run, count in zip(made, runs, (9, 6, 2), strict=True):
        in_models.append([next(run) for _ in range(count)])
        next(run)  # a step is kept once the next batch is asked for
        saved.append(agent.places.state())
    again = [Agent(tmp_path / "after", i, 3, make, share, state=s) for i, s in enumerate(saved)]
    seen, ends = at_speeds([agent.join().run(4) for agent in again], [1.0, 4.0, 2.0])
    newest = max(state["hands"][0]["epoch"] for state in saved)
    counts = by_epoch([*in_models, *seen])
    assert min(epoch for epoch, _ in chain(*seen)) == newest == 1
    for epoch in range(newest, 4):
        assert counts[epoch].total() == 30
        assert share == "random" or len(counts[epoch]) == 30
    assert max(ends) - min(ends) <= 4.0
    taken = sum(len(each) for each in (*in_models, *seen))
    assert sum(agent.places.share for agent in again) == pytest.approx(taken / 10), "saved ones count"


def test_drawn_anew_every_agent_draws_from_all_data(tmp_path: Path) -> None:
    made = agents(tmp_path, 2, batched(20, 4, shuffle=True), share="random")
    seen, ends = at_speeds([agent.run(100) for agent in made], [1.0, 4.0])
    assert sum(map(len, seen)) == 100 * 5 and abs(ends[0] - ends[1]) <= 4.0
    for each in seen:
        counts = Counter(chain(*(samples for _, samples in each)))
        assert {*counts} == {*range(20)} and all(len({*samples}) == 4 for _, samples in each)
        assert max(counts.values()) < 2 * min(counts.values())
    assert [b for _, b in seen[0][:50]] != [b for _, b in seen[1][:50]]
    weights = WeightedRandomSampler([0, 0, 1, 3], 4000)
    (tmp_path / "w").mkdir()
    (weighted,) = agents(tmp_path / "w", 1, batched(4, 40, sampler=weights), share="random")
    drawn = [i for _, samples in weighted.run(1) for i in samples]
    assert len(drawn) == 4000 and {*drawn} == {2, 3} and drawn.count(3) == pytest.approx(3000, abs=150)


def test_what_was_dealt_is_the_same_batch_whoever_gets_it(tmp_path: Path) -> None:
    """So a run's data follow from its trace: the number of a batch says what is in it."""

    def batches(folder: str, takes: list[float]) -> dict[tuple[int, int], list[int]]:
        (tmp_path / folder).mkdir()
        made = agents(tmp_path / folder, 2, batched(30, 4, shuffle=True))
        seen, _ = at_speeds([agent.run(2) for agent in made], takes)
        steps = [(each, samples) for agent, mine in zip(made, seen, strict=True)
                 for each, (_, samples) in zip(agent.dealt, mine, strict=True)]  # fmt: skip
        return dict(steps)

    assert batches("one", [1.0, 1.0]) == batches("two", [5.0, 1.0])


@pytest.mark.parametrize(
    ("make", "share", "said"),
    [
        (batched(9, 2), "fast", "Unknown share 'fast'. .*equal, speed, random"),
        (lambda: DataLoader(Stream(9)), "random", "map-style data set and a sampler .*share='speed'"),
        (lambda: [1, 2, 3], "random", "a list without"),
        (lambda: DataLoader(Numbers(9), batch_sampler=Pairs(9)), "random", "Pairs makes an order of its own"),
    ],
)
def test_refused(tmp_path: Path, make: Make, share: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        agents(tmp_path, 2, make, share=share)[0].shard()


def test_refused_before_work_and_said_what_to_do(tmp_path: Path) -> None:
    early = Agent(tmp_path, 0, 2, batched(9, 2)).shard()
    with pytest.raises(SettingError, match="wrap the model, then begin"):
        next(iter(early))
    with pytest.raises(TypeError, match="of the 5 batches of an epoch"):
        len(early)
    one, two = agents(tmp_path, 2, batched(9, 2))
    two.make = DataLoader(Numbers(9), batch_size=2, drop_last=True)
    next(one.run(1))
    with pytest.raises(SettingError, match="Agent 0 shares out 5 batches an epoch where agent 1 has 4"):
        next(two.run(1))
    apart = DataProgress(0, 2, 7, table=Table(tmp_path, 0, 2, places=Places(0, (0, 1))))
    for each in (DataLoader(Stream(9)), [1, 2, 3], Forever(Numbers(9))):
        with pytest.raises(SettingError, match="over several machines takes batches in any order"):
            apart.shard(each, "speed")
    state = {"loop": 0, "epoch": 0, "places": [["x by speed", 1, 2]]}
    hand = {"epoch": 0, "taken": 1, "size": 5, "done": torch.tensor([1])}
    with pytest.raises(SettingError, match="cannot be resumed"):
        apart.restore({**state, "hands": [hand]})
    with pytest.raises(SettingError, match="agents of one run"):
        DataProgress(0, 2, 7).shard(batched(9, 2)(), "speed")
    with pytest.raises(DataError, match="shares"):
        Agent(
            tmp_path,
            0,
            2,
            batched(9, 2),
            state={"loop": 0, "epoch": 0, "places": [["x", 1, 2]], "hands": [7]},
        )


SCRIPT = """
import time
import torch
import offbeat

torch.manual_seed(3)
model = torch.nn.Linear(4, 2)
agent = offbeat.join()
optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
data = torch.utils.data.TensorDataset(torch.randn(60, 4), torch.randn(60, 2), torch.arange(60))
loader = torch.utils.data.DataLoader(data, batch_size=2, shuffle=True)
for epoch in agent.epochs(4):
    for x, y, i in agent.shard(loader, share="speed"):
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        time.sleep(0.005 * (1 + 3 * (agent.rank == 0)))
        optimizer.step()
        print("saw", epoch, *i.tolist())
"""
"""Thirty batches an epoch; agent 0 is four times slower."""


def saw(text: str) -> dict[int, Counter[int]]:
    found = re.findall(r"saw (\d+) (\d+) (\d+)", text)
    return by_epoch([[(int(epoch), [int(i), int(j)]) for epoch, i, j in found]])


@needs_shared_memory
def test_one_agent_four_times_slower_trains_no_step_alone(tmp_path: Path) -> None:
    done = finished(tmp_path, "launch", "-n", "3", "--out", "out", "train.py", script=SCRIPT)
    assert done.code == 0, done.complained
    assert saw(done.said) == {epoch: Counter(range(60)) for epoch in range(4)}
    trace = Trace.load(tmp_path / "out" / "trace.npz")
    dealt, steps = rows_of(trace.events, BatchTaken), trace.updates()
    assert Counter(zip(dealt["epoch"], dealt["number"], strict=True)).total() == steps.sum() == 120
    assert steps[0] < min(steps[1:]) and replayed(trace).same
    last = [dealt["time"][dealt["agent"] == i].max() for i in range(3)]
    after = dealt["time"] > min(last)
    assert max(Counter(dealt["agent"][after]).values(), default=0) <= 2, "the step that it was at, at most"


GATED = SCRIPT.replace(
    "model =",
    """
import os, pathlib
back = pathlib.Path("back")
if os.environ["OFFBEAT_INCARNATION"] == "2":
    back.touch()
model =""",
    1,
).replace(
    "        optimizer.zero_grad()",
    """
        while agent.rank != 1 and agent.steps >= 10 and not back.exists():
            time.sleep(0.01)
        optimizer.zero_grad()""",
)
"""The others stay at their step 10 until agent 1 has its second life, whoever is quick: so it gets to where
it is killed, and the run goes on until it is back."""


@needs_shared_memory
def test_through_a_kill_an_end_by_epochs_and_a_new_start_every_sample_is_seen_once(tmp_path: Path) -> None:
    words = ["launch", "-n", "3", "--out", "out", "--checkpoint-every", "4"]
    more = ["--stop-after", "2epochs", "--fault", "kill agent 1 at step 14"]
    first = finished(tmp_path, *words, *more, "train.py", script=GATED)
    assert first.code == 0 and "restart 1 of 3" in first.said, first.complained
    before = first.said
    taken = sum(counts.total() for counts in saw(before).values()) // 2
    assert 60 <= taken < 120, "two epochs of all data"
    again = finished(tmp_path, *words, "--resume", "train.py")
    assert again.code == 0, again.complained
    assert saw(before + again.said) == {epoch: Counter(range(60)) for epoch in range(4)}


def test_alone_it_is_the_loader_and_another_way_to_share_another_place() -> None:
    places = DataProgress(0, 1, 5, alone=True)
    loader = DataLoader(Numbers(9), batch_size=2)
    assert flat(places.shard(loader, "speed")) == flat(places.shard(loader, "random")) == [*range(9)]
    assert places.shard(loader) is not places.shard(loader, "speed")
    with pytest.raises(SettingError, match="Unknown share"):
        places.shard(loader, "sped")
