"""Data that nobody shared out, where that can be known.

A script that shards no loader and never asks which agent it is has one and the same data in all its agents,
unless it looks elsewhere for who it is. That is known for certain of nobody's data but a DataLoader's.
"""

import gc

from torch.utils.data import DataLoader, IterableDataset, Subset

from offbeat.training.shard import KNOWN

SAID = (
    "NO DATA ARE SHARED OUT: there is a DataLoader, agent.shard was not called, and neither agent.rank nor "
    "agent.world was read, so every agent trains on all that it loads. Expected: for batch in "
    "agent.shard(loader)."
)


def has_whole_loader() -> bool:
    """Whether there is a DataLoader whose order is torch's own, over a data set that is no part of another.

    All objects of this process are looked at, which takes a tenth of a second or less: not in every step.
    """
    loaders = [each for each in gc.get_objects() if issubclass(type(each), DataLoader)]
    return any(
        type(each.sampler) in KNOWN and not isinstance(each.dataset, IterableDataset | Subset)
        for each in loaders
    )
