"""Where loops are in their data: after a restart they go on, whatever they look like; nothing is kept for
ever.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from offbeat.core.errors import DataError, SettingError
from offbeat.training.progress import MOST, DataProgress
from offbeat.training.shard import Shard

TRAIN, OTHER = TensorDataset(torch.arange(17)), TensorDataset(torch.arange(100, 110))
SEEN = list[tuple[str, int]]


class Killed(BaseException):
    """The process is."""


class Life:
    """One process of agent 1 of 2. die: after how many steps; state: what a checkpoint of an earlier life
    holds.
    """

    def __init__(
        self, die: int = 10**9, state: Mapping[str, Any] | None = None, wrapped: bool = True
    ) -> None:
        self.places, self.die, self.state = DataProgress(1, 2, 0), die, state
        self.steps = 0
        self.seen: SEEN = []
        if wrapped:
            self.wrap()

    def wrap(self) -> None:
        self.places.restore(self.state)

    def shard(self, data: TensorDataset, batch: int = 2) -> Shard[list[Tensor]]:
        return self.places.shard(DataLoader(data, batch_size=batch, shuffle=True))

    def step(self, what: str, *batches: list[Tensor]) -> None:
        """A step of training; the process dies in it or after."""
        self.seen += [(what, int(i)) for batch in batches for i in batch[0]]
        self.places.keep()
        self.steps += 1
        if self.steps == self.die:
            raise Killed

    def lived(self, script: Script) -> Life:
        """Run a script until its end, or until the process is killed."""
        try:
            script(self)
        except Killed:
            return self
        self.die = 0
        return self


Script = Callable[[Life], None]


def one_loader(life: Life) -> None:
    loader = DataLoader(TRAIN, batch_size=2, shuffle=True)
    for epoch in life.places.epochs(3):
        for batch in life.places.shard(loader):
            life.step(f"{epoch}", batch)


def made_anew(life: Life) -> None:
    for epoch in life.places.epochs(4):
        for batch in life.shard(TRAIN):
            life.step(f"{epoch}", batch)


def made_anew_and_held(life: Life) -> None:
    for epoch in life.places.epochs(4):
        loader = DataLoader(TRAIN, batch_size=2, shuffle=True)
        share = life.places.shard(loader)
        for batch in share:
            life.step(f"{epoch}", batch)


def data_first(life: Life) -> None:
    share = life.shard(TRAIN)
    life.wrap()
    for epoch in life.places.epochs(3):
        for batch in share:
            life.step(f"{epoch}", batch)


def a_first_look(life: Life) -> None:
    share = life.shard(TRAIN)
    next(iter(share))
    life.wrap()
    for epoch in life.places.epochs(3):
        for batch in share:
            life.step(f"{epoch}", batch)


def evaluated(life: Life) -> None:
    """After every epoch, and within it."""
    train, other = life.shard(TRAIN), life.shard(OTHER)
    for epoch in life.places.epochs(3):
        for k, batch in enumerate(train):
            if k % 2 == 1:
                assert len(list(other)) == 3
            life.step(f"{epoch}", batch)
        assert len(list(other)) == 3


def two_loops(life: Life) -> None:
    for epoch in life.places.epochs(2):
        for batch in life.shard(TRAIN):
            life.step(f"first {epoch}", batch)
    for epoch in life.places.epochs(2):
        for batch in life.shard(OTHER):
            life.step(f"second {epoch}", batch)


def pairs(life: Life) -> None:
    """Two loaders that look alike, in step."""
    for epoch in life.places.epochs(3):
        for one, two in zip(life.shard(TRAIN), life.shard(TRAIN), strict=True):
            assert one[0].tolist() == two[0].tolist(), "both in the same epoch"
            life.step(f"{epoch}", one, two)


SCRIPTS = (one_loader, made_anew, made_anew_and_held, evaluated, two_loops, pairs)
BEFORE = (data_first, a_first_look)


@pytest.mark.parametrize("script", [*SCRIPTS, *BEFORE], ids=lambda script: script.__name__)
def test_a_loop_goes_on_where_it_was_wherever_it_is_killed(script: Script) -> None:
    """No batch twice, none left out, none under another epoch's number; also if killed again at once."""
    wrapped = script not in BEFORE
    whole = Life(wrapped=wrapped).lived(script)
    assert whole.die == 0
    for k in range(1, whole.steps + 1):
        one = Life(k, wrapped=wrapped).lived(script)
        two = Life(1, one.places.kept, wrapped).lived(script)
        three = Life(state=two.places.kept, wrapped=wrapped).lived(script)
        assert one.seen + two.seen + three.seen == whole.seen, f"killed at step {k}"
        assert three.die == 0


def test_an_iterator_from_before_the_model_was_wrapped_goes_on_where_it_was() -> None:
    def script(life: Life) -> None:
        batches = iter(life.shard(TRAIN, batch=1))
        next(batches)
        life.wrap()
        for batch in batches:
            life.step("", batch)

    whole = Life(wrapped=False).lived(script)
    assert whole.steps == 7
    for k in range(1, whole.steps):
        one = Life(k, wrapped=False).lived(script)
        assert one.seen + Life(state=one.places.kept, wrapped=False).lived(script).seen == whole.seen


def test_epochs_of_loaders_made_anew_have_other_orders() -> None:
    for script in (one_loader, made_anew, made_anew_and_held):
        seen = Life().lived(script).seen
        orders = [[i for what, i in seen if what == str(epoch)] for epoch in range(3)]
        assert orders[0] != orders[1] != orders[2] != orders[0]
    assert Life().lived(made_anew).seen == Life().lived(made_anew_and_held).seen


def test_a_loop_over_a_range_goes_on_and_never_meets_an_epoch_without_a_batch() -> None:
    """It cannot know which epoch it is in, so it makes as many as ever."""
    for k in range(1, 13):
        share = (life := Life(k)).shard(TRAIN)

        def script(life: Life, share: Shard[list[Tensor]] = share) -> None:
            for _ in range(3):
                for batch in share:
                    life.step("", batch)

        life.lived(script)
        counts = []
        again = Life(state=life.places.kept)
        share = again.shard(TRAIN)
        for _ in range(3):
            counts.append(sum(1 for _ in share))
        assert counts == [4 - k % 4 if k % 4 else 4, 4, 4]


def test_a_loop_that_counts_steps_gets_the_batches_that_follow() -> None:
    def script(life: Life) -> None:
        share = life.shard(TRAIN)
        batches = iter(share)
        while life.steps < 11:
            try:
                batch = next(batches)
            except StopIteration:
                batches = iter(share)
                batch = next(batches)
            life.step("", batch)

    whole = Life().lived(script).seen
    for k in range(1, 11):
        one = Life(k).lived(script)
        two = Life(state=one.places.kept)
        two.steps = k  # as `agent.steps` is restored
        assert one.seen + two.lived(script).seen == whole


def test_several_steps_for_a_batch_leave_the_epoch_where_it_is() -> None:
    def script(life: Life) -> None:
        for epoch in life.places.epochs(2):
            for batch in life.shard(TRAIN):
                life.step(f"{epoch} one", batch)
                life.step(f"{epoch} two", batch)

    for k in range(2, 17, 2):
        one = Life(k).lived(script)
        two = Life(state=one.places.kept).lived(script)
        assert one.seen + two.seen == Life().lived(script).seen


def test_batches_handed_out_after_the_last_step_are_handed_out_again() -> None:
    """Whoever stops in order has fetched one for the step that it does not make any more."""
    life = Life()
    batches = iter(life.shard(TRAIN))
    life.step("", next(batches))
    fetched = next(batches)
    again = Life(state=life.places.kept)
    assert next(iter(again.shard(TRAIN)))[0].tolist() == fetched[0].tolist()


def test_a_loader_that_the_checkpoint_knows_waits_for_its_turn() -> None:
    """A warm-up that is over is not run again; the loader after it takes its own place, not the first's."""
    life = Life()
    for share in (life.shard(OTHER), life.shard(TRAIN), life.shard(TRAIN, batch=3)):
        life.step("", next(iter(share)))
    again = Life(state=life.places.kept)
    assert again.shard(TRAIN, batch=3).position.next() == (0, 1)
    assert again.shard(TensorDataset(torch.arange(17), torch.arange(17))).position.next() == (0, 1), (
        "of the same kind"
    )
    assert again.shard(TensorDataset(torch.arange(18))).position.next() == (0, 0), "it was not there"
    again.step("", [torch.zeros(0)])
    assert len(again.places.kept["places"]) == 4, "the warm-up's stays"


def test_nothing_is_kept_of_a_loader_that_is_gone() -> None:
    life = Life()
    gone = []
    for _ in range(3):
        loader = DataLoader(TensorDataset(torch.arange(8)), batch_size=2)
        gone.append(weakref.ref(loader.dataset))
        assert len(list(life.places.shard(loader))) == 2
    del loader
    gc.collect()
    assert [ref() for ref in gone] == [None] * 3
    assert len(life.places.known) == 1


def test_loaders_of_ever_other_kinds_do_not_pile_up() -> None:
    life = Life()
    held = life.shard(TRAIN)
    for size in range(2, 3 * MOST):
        assert list(life.places.shard(list(range(size))))
    assert len(life.places.known) <= MOST + 1
    assert life.places.known[0].shard is held, "what is in use stays"


def test_workers_that_stay_stay_as_long_as_their_loader() -> None:
    life, loader = Life(), DataLoader(TRAIN, batch_size=2)
    share = weakref.ref(life.places.shard(loader))
    gc.collect()
    assert share() is life.places.shard(loader), "with it the iterator that keeps them"
    del loader
    gc.collect()
    assert share() is None


def test_loaders_that_look_alike_keep_their_own_places_while_they_are_there() -> None:
    life = Life()
    one, two = (DataLoader(TRAIN, batch_size=2) for _ in range(2))
    for _ in range(3):
        assert len(list(life.places.shard(one))) == len(list(life.places.shard(two))) == 4
    assert (life.places.shard(one).epoch, life.places.shard(two).epoch) == (3, 3)
    shares = [life.shard(TRAIN, batch=4) for _ in range(3)]
    assert len({id(share.position) for share in shares}) == 3, "none of which has been used"
    nested = [(a, b) for a in life.shard(TRAIN, batch=8) for b in life.shard(TRAIN, batch=8)]
    assert len(nested) == 1


def test_a_list_is_the_same_loader_in_every_epoch() -> None:
    life, batches = Life(), [[k] for k in range(6)]
    assert life.places.shard(batches) is life.places.shard(batches)
    for epoch in range(3):
        share = life.places.shard(batches)
        assert (list(share), share.epoch) == ([[1], [3], [5]], epoch + 1)


def test_epochs_that_are_over_are_over_and_more_can_be_asked_for() -> None:
    life = Life().lived(one_loader)
    assert list(Life(state=life.places.kept).places.epochs(3)) == []
    assert list(Life(state=life.places.kept).places.epochs(5)) == [3, 4]
    assert list(Life().places.epochs(2)) == [0, 1]


def test_a_loop_that_was_left_early_is_over_once_the_training_went_on() -> None:
    life = Life()
    for epoch in life.places.epochs(9):
        life.step(f"{epoch}", next(iter(life.shard(TRAIN))))
        if epoch == 2:
            break
    again = Life(state=life.places.kept)
    assert next(iter(again.places.epochs(9))) == 2, "it may have ended before it could be left"
    life.step("", next(iter(life.shard(OTHER))))
    again = Life(state=life.places.kept)
    assert list(again.places.epochs(9)) == []
    assert list(again.places.epochs(2)) == [0, 1]


def test_loops_over_epochs_that_cannot_be_counted_are_refused() -> None:
    life = Life()
    with pytest.raises(SettingError, match="range"):
        for _ in life.places.epochs(2):
            list(life.places.epochs(2))
    with pytest.raises(SettingError, match="wrap the model first"):
        next(iter(Life(wrapped=False).places.epochs(2)))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"loop": 0, "epoch": 0},
        {"loop": 0, "epoch": -1, "places": []},
        {"loop": 0, "epoch": 0, "places": [["list 3", 1]]},
        {"loop": 0, "epoch": 0, "places": [["list 3", 1, -2]]},
        {"loop": 0, "epoch": "1", "places": 7},
    ],
)
def test_a_place_that_no_loop_can_have_had_is_refused(state: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="Got the place"):
        Life(state=state)


def plain(loaders: list[DataLoader[Any]], share: Callable[[Any], Any]) -> Iterator[Any]:
    """A user's loops, with random numbers of their own in between."""
    torch.manual_seed(4)
    shares = [share(loader) for loader in loaders]
    early = iter(shares[0])
    yield torch.rand(1).item()
    for one in shares:
        for _ in range(2):
            for batch in one:
                yield [torch.rand(1).item(), batch[0].tolist()]
    yield [batch[0].tolist() for batch in early]
    yield [len(shares[0]), len(list(iter(shares[0]))), torch.get_rng_state().tolist()]


def test_alone_a_shard_is_the_loader_to_the_bit() -> None:
    """The same order, from the same random numbers, which are at the same place afterwards."""

    def loaders() -> list[DataLoader[Any]]:
        own = torch.Generator().manual_seed(3)
        data = TensorDataset(torch.arange(9))
        return [
            DataLoader(data, batch_size=2, shuffle=True),
            DataLoader(data, batch_size=2, shuffle=True, generator=own),
            DataLoader(data, sampler=RandomSampler(data, replacement=True)),
        ]

    places = DataProgress(0, 1, 5, alone=True)
    assert list(plain(loaders(), places.shard)) == list(plain(loaders(), lambda loader: loader))
    assert places.epochs(3) == range(3)
    empty: list[int] = []
    assert list(places.shard(empty)) == list(places.shard(i for i in empty)) == []
    share = DataProgress(0, 1, 5, alone=True).shard(loaders()[0])
    assert ([len(list(share)) for _ in range(3)], share.epoch, share.batch_size) == ([5, 5, 5], 3, 2)
