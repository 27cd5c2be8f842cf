"""Shares of a loader: disjoint, complete, reshuffled, resumed where they stopped, refused where they make no
sense.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)
from torch.utils.data.distributed import DistributedSampler

from offbeat.core.errors import SettingError
from offbeat.training.shard import Shard, shard


class Numbers(Dataset[int]):
    """Sample i is i; remembers what was loaded."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.size:
            raise IndexError(index)
        self.loaded.append(index)
        return index


class Lists(Numbers):
    """A data set that takes a list of indices at once."""

    def __getitem__(self, index: Any) -> Any:
        return [super(Lists, self).__getitem__(i) for i in index]


class Seeds(Numbers):
    """Every sample is the torch seed of the process that loads it, less the number of the worker."""

    def __getitem__(self, index: int) -> int:
        info = get_worker_info()
        return 0 if info is None else info.seed - info.id


class Stream(IterableDataset[int]):
    """0, 1, 2, ..., split over the workers."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        return iter(range(self.size) if info is None else range(info.id, self.size, info.num_workers))


class ShuffledStream(Stream):
    """The same in an order that depends on the random state of the worker or, without workers, on a
    generator.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.generator = torch.Generator()

    def __iter__(self) -> Iterator[int]:
        numbers = list(super().__iter__())
        generator = self.generator if get_worker_info() is None else None
        return (numbers[i] for i in torch.randperm(len(numbers), generator=generator).tolist())


class Evens(Sampler[int]):
    """A sampler of the user's own, with an order that depends on the epoch it was told."""

    def __init__(self, size: int) -> None:
        self.size, self.epoch = size, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(range(0, self.size, 2))

    def __iter__(self) -> Iterator[int]:
        evens = list(range(0, self.size, 2))
        turn = self.epoch % len(evens)
        return iter(evens[turn:] + evens[:turn])


class Pairs(Sampler[list[int]]):
    """A batch sampler of the user's own."""

    def __init__(self, size: int) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size // 2

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[i, i + 1] for i in range(0, self.size - 1, 2)])


class MyRandomSampler(RandomSampler):
    """Not quite torch's, and random in every process."""


def flat(batches: Iterable[Any]) -> list[int]:
    return [int(i) for batch in batches for i in torch.as_tensor(batch).reshape(-1)]


def epochs(share: Shard[Any], count: int) -> list[list[list[int]]]:
    return [[flat([batch]) for batch in share] for _ in range(count)]


def first_epochs(make: Callable[[], Iterable[Any]], world: int, seed: int = 0) -> list[list[int]]:
    """The samples of every agent in its first epoch; every agent has a loader of its own, and other random
    numbers.
    """
    shares = []
    for rank in range(world):
        torch.manual_seed(1000 + rank)
        shares.append(flat(shard(make(), rank, world, seed)))
    return shares


def plain(**settings: Any) -> Callable[[], DataLoader[int]]:
    return lambda: DataLoader(Numbers(23), **settings)


WEIGHTS = [0.0, 1.0, 2.0, 3.0] * 6
LOADERS: dict[str, Callable[[], Iterable[Any]]] = {
    "sequential": plain(batch_size=3),
    "shuffled": plain(batch_size=3, shuffle=True),
    "shuffled, drop_last": plain(batch_size=2, shuffle=True, drop_last=True),
    "shuffled, not batched": plain(batch_size=None, shuffle=True),
    "shuffled, workers": plain(batch_size=2, shuffle=True, num_workers=1),
    "shuffled, persistent workers": plain(batch_size=2, shuffle=True, num_workers=1, persistent_workers=True),
    "shuffled several times": plain(batch_size=4, sampler=RandomSampler(range(5), num_samples=23)),
    "subset": plain(batch_size=2, sampler=SubsetRandomSampler(range(3, 20))),
    "replacement": plain(batch_size=3, sampler=RandomSampler(range(23), replacement=True)),
    "weighted": plain(batch_size=3, sampler=WeightedRandomSampler(WEIGHTS[:23], 23)),
    "custom sampler": plain(batch_size=2, sampler=Evens(23)),
    "custom batch sampler": plain(batch_sampler=Pairs(23)),
    "custom random sampler": plain(batch_size=2, sampler=MyRandomSampler(range(23))),
    "batch sampler of torch's": plain(batch_sampler=BatchSampler(RandomSampler(range(23)), 3, True)),
    "batches as samples": lambda: DataLoader(
        Lists(23), batch_size=None, sampler=BatchSampler(RandomSampler(range(23)), 3, False)
    ),
    "stream": lambda: DataLoader(Stream(23), batch_size=2),
    "stream, workers": lambda: DataLoader(Stream(23), batch_size=2, num_workers=2),
    "shuffled stream": lambda: DataLoader(ShuffledStream(23), batch_size=2),
    "shuffled stream, workers": lambda: DataLoader(ShuffledStream(23), batch_size=2, num_workers=2),
    "list": lambda: [[i] for i in range(23)],
}
OVERLAP = ("replacement", "weighted", "shuffled several times")
every_loader = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in LOADERS.items()]
)
once_only = pytest.mark.parametrize(
    "make", [pytest.param(make, id=name) for name, make in LOADERS.items() if name not in OVERLAP]
)


@given(
    size=st.integers(1, 60),
    world=st.integers(1, 6),
    batch=st.integers(1, 7),
    shuffle=st.booleans(),
    drop_last=st.booleans(),
    seed=st.integers(0, 2**40),
)
def test_shares_are_disjoint_equal_and_complete(
    size: int, world: int, batch: int, shuffle: bool, drop_last: bool, seed: int
) -> None:
    def make() -> DataLoader[int]:
        return DataLoader(Numbers(size), batch_size=batch, shuffle=shuffle, drop_last=drop_last)

    share = size // world
    if share < (batch if drop_last else 1):
        with pytest.raises(SettingError, match="samples"):
            shard(make(), 0, world, seed)
        return
    expected = share - share % batch if drop_last else share
    for epoch in epochs_of_all(make, world, seed, 2):
        assert [len(samples) for samples in epoch] == [expected] * world
        everything = list(chain(*epoch))
        assert len(set(everything)) == expected * world
        if not shuffle and not drop_last:
            assert sorted(everything) == list(range(share * world))
    if world == 1 and not shuffle:
        assert flat(shard(make(), 0, 1, seed)) == flat(make())


def epochs_of_all(
    make: Callable[[], Iterable[Any]], world: int, seed: int, count: int
) -> list[list[list[int]]]:
    """By epoch and agent."""
    shares = [shard(make(), rank, world, seed) for rank in range(world)]
    return [[flat(share) for share in shares] for _ in range(count)]


@once_only
def test_no_two_agents_get_the_same_sample_and_one_alone_gets_all(make: Callable[[], Iterable[Any]]) -> None:
    alone = flat(shard(make(), 0, 1))
    assert len(alone) == len(flat(make()))
    for epoch in epochs_of_all(make, 2, 5, 2):
        assert all(epoch)
        everything = list(chain(*epoch))
        assert len(everything) == len(set(everything)) >= len(alone) - 4
        assert set(everything) <= set(range(23))


@pytest.mark.parametrize("name", ["shuffled stream", "shuffled stream, workers", "custom random sampler"])
def test_processes_with_other_random_numbers_agree_on_the_order(name: str) -> None:
    ours = first_epochs(LOADERS[name], 3)
    assert sorted(chain(*ours)) == list(range(23))
    assert ours[0] != sorted(ours[0])


@every_loader
def test_equal_seeds_give_equal_epochs(make: Callable[[], Iterable[Any]]) -> None:
    torch.manual_seed(1)
    first = epochs(shard(make(), 1, 2, 3), 2)
    torch.manual_seed(2)
    assert epochs(shard(make(), 1, 2, 3), 2) == first


@pytest.mark.parametrize("name", [name for name in LOADERS if "shuffled" in name] + ["subset", *OVERLAP])
def test_other_epochs_and_seeds_reshuffle(name: str) -> None:
    share = shard(LOADERS[name](), 0, 2, 3)
    one, two = epochs(share, 2)
    assert one != two
    assert epochs(shard(LOADERS[name](), 0, 2, 4), 1)[0] != one


def test_a_sampler_is_told_its_epoch() -> None:
    share = shard(LOADERS["custom sampler"](), 0, 2)
    share.position.move(2, 1)
    assert [flat(share), flat(share)] == [[12, 16, 20, 0], [6, 10, 14, 18, 22, 2]]


def test_what_is_left_out_of_an_epoch_changes() -> None:
    make = plain(shuffle=True)
    left_out = [set(range(23)).difference(*epoch) for epoch in epochs_of_all(make, 4, 0, 8)]
    assert {len(samples) for samples in left_out} == {3}
    assert len(set.union(*left_out)) > 8


@every_loader
def test_length_and_position_count_batches(make: Callable[[], Iterable[Any]]) -> None:
    for rank in (0, 1):
        share = shard(make(), rank, 2)
        assert (share.epoch, share.position.next()) == (0, (0, 0))
        for count, _ in enumerate(share, 1):
            assert share.epoch == 1
            assert share.position.next() == ((1, 0) if count == share.position.size else (0, count))
        assert (share.epoch, share.position.next()) == (1, (1, 0))
        assert share.position.size == (
            None if isinstance(getattr(share._loader, "dataset", None), Stream) else count
        )


def test_a_stream_has_a_length_where_its_data_set_has() -> None:
    class Sized(Stream):
        def __len__(self) -> int:
            return self.size

    shares = [shard(DataLoader(Sized(23), batch_size=2), rank, 5) for rank in range(5)]
    assert [len(share) for share in shares] == [len(list(share)) for share in shares] == [3, 3, 2, 2, 2]
    with pytest.raises(TypeError):
        len(shard(DataLoader(Stream(23)), 0, 2))


@every_loader
def test_a_restored_shard_goes_on_where_the_other_stopped(make: Callable[[], Iterable[Any]]) -> None:
    torch.manual_seed(1)
    first, second, third, fourth = epochs(shard(make(), 1, 2, 3), 4)
    uses_workers = getattr(make(), "num_workers", 0) > 0
    for k in (0, 2, len(second)) if uses_workers else range(len(second) + 1):
        torch.manual_seed(k)
        running = shard(make(), 1, 2, 3)
        assert epochs(running, 1) == [first]
        begun = iter(running)
        assert [flat([next(begun)]) for _ in range(k)] == second[:k]
        restored = shard(make(), 1, 2, 3)
        restored.position.move(*running.position.next())
        rest = [second[k:], third] if k < len(second) else [third, fourth]
        if k == len(second) and isinstance(getattr(restored._loader, "dataset", None), Stream):
            rest = [second[-1:], third]  # nobody knew that it was at its end
        assert epochs(restored, 2) == rest


@every_loader
def test_an_epoch_is_never_handed_out_without_a_batch(make: Callable[[], Iterable[Any]]) -> None:
    for batch in (12,) if getattr(make(), "num_workers", 0) else (0, 1, 5, 11, 12, 100):
        share = shard(make(), 1, 2)
        share.position.move(2, batch)
        assert all(epochs(share, 2)), batch
    share = shard(make(), 1, 2)
    share.position.move(2, 100)
    assert next(iter(share)) is not None


def test_an_epoch_that_cannot_have_a_batch_is_an_error() -> None:
    """Of a stream of one batch there is none for the second agent: a loop over it would see nothing."""
    for _ in range(2):
        with pytest.raises(SettingError, match="no batch for this agent"):
            list(shard(DataLoader(Stream(1)), 1, 2))


def test_a_restored_shard_loads_nothing_again() -> None:
    numbers = Numbers(40)
    share = shard(DataLoader(numbers, batch_size=3, shuffle=True), 0, 2)
    share.position.move(3, 5)
    assert flat(share) == numbers.loaded
    assert len(numbers.loaded) == 20 - 15


def test_a_shard_can_be_put_back_to_its_beginning() -> None:
    share = shard(plain(shuffle=True)(), 0, 2)
    one = epochs(share, 1)
    share.position.move(0, 0)
    assert epochs(share, 1) == one


def test_an_abandoned_epoch_counts_and_a_second_iteration_takes_over() -> None:
    share = shard(plain(shuffle=True)(), 0, 2)
    expected = epochs(shard(plain(shuffle=True)(), 0, 2), 2)[1]
    old = iter(share)
    next(old)
    new = iter(share)
    assert flat([next(new)]) == expected[0]
    with pytest.raises(SettingError, match="newer loop"):
        next(old)
    assert share.position.next() == (1, 1)


def test_a_loop_that_is_going_on_goes_on_where_its_shard_is_put() -> None:
    """The first batch is needed before the model is wrapped, say, and a checkpoint is restored when it is."""
    one, two, three = epochs(shard(plain(shuffle=True)(), 0, 2), 3)
    share = shard(plain(shuffle=True)(), 0, 2)
    batches = iter(share)
    share.position.move(1, 4)  # not begun
    assert flat([next(batches)]) == two[4]
    share.position.move(0, 2)
    assert [flat([batch]) for batch in batches] == one[2:]
    assert epochs(share, 2) == [two, three]


def test_workers_have_other_seeds_on_every_agent_and_in_every_epoch() -> None:
    def seeds() -> list[int]:
        shares = [shard(DataLoader(Seeds(8), num_workers=1), rank, 2) for rank in range(2)]
        found = [set(flat(share)) for share in shares for _ in range(2)]
        assert all(len(batch) == 1 for batch in found)
        return [batch.pop() for batch in found]

    torch.manual_seed(1)
    first = seeds()
    assert len(set(first)) == 4
    assert seeds() == first


def test_draws_with_replacement_are_the_agents_own_and_follow_the_weights() -> None:
    make = plain(sampler=WeightedRandomSampler([0, 0, 1, 3], 4000))
    one, two = first_epochs(make, 2)
    assert len(one) == len(two) == 2000
    assert one != two
    assert set(one) == {2, 3}
    assert one.count(3) == pytest.approx(1500, abs=100)
    make = plain(sampler=RandomSampler(range(23), replacement=True, num_samples=100))
    one, two = first_epochs(make, 2)
    assert len(one) == len(two) == 50
    assert one != two
    once = flat(shard(plain(sampler=WeightedRandomSampler([1.0] * 23, 20, replacement=False))(), 0, 2))
    assert len(set(once)) == 10


def test_the_loader_keeps_its_settings_and_is_left_alone() -> None:
    loader = DataLoader(Numbers(6), batch_size=2, collate_fn=str, generator=torch.Generator().manual_seed(5))
    assert list(shard(loader, 1, 2)) == ["[1, 3]", "[5]"]
    assert list(loader) == ["[0, 1]", "[2, 3]", "[4, 5]"]
    assert loader.generator.initial_seed() == 5


class Transforming(DataLoader[int]):
    """Does something with every batch."""

    def __iter__(self) -> Any:
        return ([batch, 7] for batch in super().__iter__())


class Forever(DataLoader[int]):
    """One iterator for all epochs, so that workers stay: a recipe that is passed around."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.repeating = vars(self)["batch_sampler"] = Repeating(self.batch_sampler)
        self.batches = super().__iter__()

    def __len__(self) -> int:
        return len(self.repeating.sampler)

    def __iter__(self) -> Any:
        return (next(self.batches) for _ in range(len(self)))


class Repeating:
    """The batches of a sampler, again and again."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Any]:
        while True:
            yield from self.sampler


class Setup(DataLoader[int]):
    """Hands out what another loader does, one batch behind it, as Accelerate's do; of another length."""

    def __init__(self, dataset: Dataset[int], **settings: Any) -> None:
        super().__init__(dataset, **settings)
        self.base_dataloader = DataLoader(dataset, **settings)

    def __len__(self) -> int:
        return len(self.base_dataloader)

    def __iter__(self) -> Any:
        batches = iter(self.base_dataloader)
        held = next(batches)
        for batch in batches:
            yield held
            held = batch
        yield held


class PastTheSampler(DataLoader[int]):
    """Its iterators take the batches from elsewhere."""

    def __getattribute__(self, name: str) -> Any:
        return [[0], [1]] if name == "_index_sampler" else super().__getattribute__(name)


class Wrapper:
    """Has a loader, and is none."""

    def __init__(self, loader: DataLoader[int]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[Any]:
        return iter(self.loader)


@pytest.mark.parametrize("kind", [Transforming, Forever, Setup])
@pytest.mark.parametrize("shuffle", [True, False])
def test_a_loader_that_goes_its_own_way_is_split_by_batches(
    kind: type[DataLoader[int]], shuffle: bool
) -> None:
    """Never handed out whole: each agent gets other batches, and as many as `len` says."""
    torch.manual_seed(7)
    shares = []
    for rank in range(3):
        torch.manual_seed(rank)
        shares.append(shard(kind(Numbers(23), batch_size=2, shuffle=shuffle), rank, 3))
    for _ in range(2):
        found = [[batch[0] if kind is Transforming else batch for batch in share] for share in shares]
        assert [len(batches) for batches in found] == [len(share) for share in shares] == [4, 4, 4]
        assert sorted(chain(*map(flat, found))) == list(range(23))


@pytest.mark.ecosystem
def test_what_accelerate_prepares_is_split_by_batches() -> None:
    accelerate = pytest.importorskip("accelerate")
    shares = []
    for rank in range(2):
        torch.manual_seed(rank)
        loader = DataLoader(Numbers(24), batch_size=2, shuffle=True)
        shares.append(shard(accelerate.Accelerator(cpu=True).prepare(loader), rank, 2))
    for _ in range(2):
        one, two = map(flat, shares)
        assert (len(one), len(two), sorted(one + two)) == (12, 12, list(range(24)))
    assert [len(share) for share in shares] == [6, 6]


def test_a_loader_that_goes_past_its_sampler_is_refused() -> None:
    with pytest.raises(SettingError, match="PastTheSampler goes past its sampler"):
        list(shard(PastTheSampler(Numbers(4)), 0, 2))


def test_what_loops_read_of_a_loader_they_can_read_of_its_share() -> None:
    numbers = Numbers(23)
    loader = DataLoader(numbers, batch_size=4, shuffle=True, drop_last=True, num_workers=0, collate_fn=str)
    share = shard(loader, 1, 2)
    assert (share.dataset, len(share.dataset), share.batch_size, share.drop_last) == (numbers, 23, 4, True)
    assert (share.sampler, share.batch_sampler, share.collate_fn) == (
        loader.sampler,
        loader.batch_sampler,
        str,
    )
    assert (share.num_workers, len(share)) == (0, 2)
    with pytest.raises(AttributeError, match="no_such"):
        share.no_such  # noqa: B018
    assert copy.copy(share).batch_size == 4


def test_a_generator_lasts_for_one_epoch() -> None:
    share = shard((i for i in range(7)), 1, 3)
    assert flat(share) == [1, 4]
    with pytest.raises(SettingError, match="generator lasts for one epoch"):
        next(iter(share))
    assert share.epoch == 1
    restored = shard((i for i in range(7)), 1, 3)
    restored.position.move(0, 1)
    assert flat(restored) == [4]


@pytest.mark.parametrize(
    ("loader", "rank", "world", "seed", "message"),
    [
        ([1, 2], 2, 2, 0, "rank 2 of 2"),
        ([1, 2], -1, 2, 0, "rank -1"),
        ([1, 2], 0, 0, 0, "0 agents"),
        ([1, 2], 0.5, 2, 0, "rank 0.5"),
        ([1, 2], 0, 2, -1, "seed -1"),
        ([1, 2], 0, 3, 0, "2 samples .* 3 agents"),
        (7, 0, 1, 0, "shard a int"),
        (Numbers(7), 0, 1, 0, "shard a Numbers"),
        (DataLoader(Numbers(3)), 0, 4, 0, "3 samples .* 4 agents"),
        (DataLoader(Numbers(9), batch_size=4, drop_last=True), 0, 3, 0, "one batch of 4"),
        (DataLoader(Numbers(9), sampler=DistributedSampler(Numbers(9), 2, 0)), 0, 2, 0, "DistributedSampler"),
        (
            Wrapper(DataLoader(Numbers(9), sampler=DistributedSampler(Numbers(9), 2, 0))),
            0,
            2,
            0,
            "DistributedSampler",
        ),
        (
            DataLoader(
                Numbers(9), batch_sampler=BatchSampler(DistributedSampler(Numbers(9), 2, 0), 2, False)
            ),
            0,
            2,
            0,
            "DistributedSampler",
        ),
    ],
)
def test_refused(loader: Any, rank: Any, world: int, seed: int, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        shard(loader, rank, world, seed)
