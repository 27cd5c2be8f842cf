"""Data that nobody shared out, where that can be known.

A script that shards no loader and never asks which agent it is has one and the same data in all its agents,
unless it looks elsewhere for who it is. That is known for certain of nobody's data but a DataLoader's.
"""

import sys
from types import FrameType

from torch.utils.data import DataLoader, IterableDataset, Subset

from offbeat.training.orders import KNOWN

SAID = (
    "NO DATA ARE SHARED OUT: there is a DataLoader, agent.shard was not called, and neither agent.rank nor "
    "agent.world was read, so every agent trains on all that it loads. Expected: for batch in "
    "agent.shard(loader)."
)


def has_whole_loader() -> bool:
    """Whether who steps has a variable that is a DataLoader whose order is torch's own, over a data set that
    is no part of another. Looked at are the variables of the functions that are running, and of their
    modules: to look at all objects of the process would hold up a step.
    """
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        for each in (*frame.f_locals.values(), *frame.f_globals.values()):
            if issubclass(type(each), DataLoader) and _is_whole(each):
                return True
        frame = frame.f_back
    return False


def _is_whole(loader: DataLoader[object]) -> bool:
    return type(loader.sampler) in KNOWN and not isinstance(loader.dataset, IterableDataset | Subset)
