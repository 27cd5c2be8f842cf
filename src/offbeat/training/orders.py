"""What makes the order of a loader's batches, and how that order is made the same on all agents."""

import copy
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, RandomSampler, SequentialSampler
from torch.utils.data import SubsetRandomSampler as SubsetSampler
from torch.utils.data import WeightedRandomSampler as WeightedSampler

from offbeat.core.errors import SettingError
from offbeat.core.system.streams import WORLD, Purpose

KNOWN = (SequentialSampler, RandomSampler, SubsetSampler, WeightedSampler)
"""The samplers whose order is made here instead of asked for; not their subclasses."""

INNER = ("batch_sampler", "sampler", "loader", "base_dataloader")
"""Where a loader, or what wraps one, keeps what orders its batches, beside a data set that does."""


def iterates(loader: DataLoader[Any]) -> bool:
    """Whether it is a subclass that may hand out other batches than its sampler's."""
    names = ("__iter__", "_get_iterator")
    return any(getattr(type(loader), name) is not getattr(DataLoader, name) for name in names)


def epoch_stream(seed: int, epoch: int, agent: int = WORLD, *use: int) -> np.random.Generator:
    """The random stream of an epoch; by default that of all agents."""
    key = (agent, Purpose.SHARD, epoch, *use)
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def seed_with(generator: torch.Generator, numbers: np.random.Generator) -> None:
    generator.manual_seed(int(numbers.integers(2**63)))


def set_epoch(seed: int, epoch: int, whole: object) -> None:
    """Tell what makes its own order, and its parts, the epoch, and seed it the same on all agents."""
    for part in parts_of(whole):
        if callable(tell := getattr(part, "set_epoch", None)):
            tell(epoch)
        if isinstance(part, KNOWN) and getattr(part, "generator", part) is None:
            vars(part)["generator"] = torch.Generator()
        if isinstance(generator := getattr(part, "generator", None), torch.Generator):
            seed_with(generator, epoch_stream(seed, epoch))


def parts_of(whole: object) -> list[object]:
    """This and all that it has in the places where order is made, each once."""
    found, waiting = list[object](), [whole]
    while waiting:
        part = waiting.pop(0)
        if part is not None and not any(part is known for known in found):
            found.append(part)
            waiting += [getattr(part, name, None) for name in INNER]
            waiting += [d for d in [getattr(part, "dataset", None)] if isinstance(d, IterableDataset)]
    return found


def copy_with(loader: DataLoader[Any], **changes: object) -> DataLoader[Any]:
    """A copy with other attributes: it keeps all else, even a subclass, as a constructor would not."""
    copied = copy.copy(loader)
    vars(copied).update(changes, in_order=True, _iterator=None)
    return copied


def length(items: Any, world: int) -> int | None:
    """How many there are, if they know. Raises SettingError where not every agent gets one."""
    try:
        total = len(items)
    except (TypeError, NotImplementedError):
        return None
    if total < world:
        got = f"{total} samples (or batches) for {world} agents"
        raise SettingError(f"Got {got}: pass more data or use fewer agents.")
    return int(total)


def shuffled(numbers: np.random.Generator, size: int, count: int) -> np.ndarray[Any, Any]:
    """The first `count` numbers of one shuffled range(size) after the other. Versions of numpy may differ."""
    order = np.empty((-(-count // size), size), np.int32 if size < 2**31 else np.int64)
    order[:] = np.arange(size, dtype=order.dtype)
    return numbers.permuted(order, axis=1, out=order).ravel()[:count]
