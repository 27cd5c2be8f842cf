"""Who gets which samples: the partitions by name, one row each in `PARTITIONS`.

    dirichlet:0.1      a name, and after a colon its parameter

Partitions into equal shards are in `equal`, into others in `unequal`, those of flwr-datasets in `flower`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from offbeat.core.errors import SettingError, unknown
from offbeat.core.settings import as_word
from offbeat.tasks.minibatches import Shards
from offbeat.tasks.partition import equal, flower, unequal

DEFAULT = "skew:1"
Columns = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Samples:
    """What a partition sees of the data."""

    labels: np.ndarray | None  # integers [N]; None: targets that are no classes
    total: int
    columns: Columns


@dataclass(frozen=True)
class Row:
    """A row of `PARTITIONS`."""

    split: Callable[[Samples, int, Any, np.random.Generator], Shards]  # of samples, agents and parameter
    about: str
    parameter: str = ""  # what follows the colon, as in help
    read: Callable[[str], Any] = str  # the text after the colon -> the parameter; ValueError for others
    labelled: bool = True  # whether it needs classes

    def written(self, name: str) -> str:
        """As in a list: 'dirichlet:ALPHA'."""
        return f"{name}:{self.parameter.partition(',')[0]}" if self.parameter else name


def _number(text: str) -> float:
    return float(text)


def _labelled(split: Callable[..., Shards]) -> Callable[[Samples, int, Any, np.random.Generator], Shards]:
    return lambda samples, n, parameter, rng: split(samples.labels, n, parameter, rng)


def _iid(samples: Samples, n: int, _: Any, rng: np.random.Generator) -> Shards:
    return equal.by_label(_any(samples), n, 0.0, rng)


def _quantity(samples: Samples, n: int, alpha: float, rng: np.random.Generator) -> Shards:
    return unequal.by_quantity(_any(samples), n, alpha, rng)


def _any(samples: Samples) -> np.ndarray:
    return np.zeros(samples.total, dtype=np.int64) if samples.labels is None else samples.labels


def _natural(samples: Samples, n: int, name: str, rng: np.random.Generator) -> Shards:
    if name not in samples.columns:
        if not samples.columns:
            raise SettingError(
                f"'natural:{name}' needs data with a column '{name}'; this task's data have no columns. "
                f"Expected a task with some: offbeat.ModuleTask(..., columns={{'{name}': ...}})."
            )
        raise unknown("column", name, samples.columns)
    return unequal.by_value(samples.columns[name], n, name, rng)


def _flower(samples: Samples, n: int, text: str, rng: np.random.Generator) -> Shards:
    return flower.split(text, samples.labels, samples.total, samples.columns, n, int(rng.integers(2**31)))


PARTITIONS = {
    "skew": Row(
        _labelled(equal.by_label), "the fraction S sorted by label and cut, the rest uniform; equal shards",
        "S, from 0 to 1", _number,
    ),
    "dirichlet": Row(
        _labelled(equal.dirichlet),
        "every agent its own mixture of classes, Dir(ALPHA p) (arXiv:1909.06335); equal shards",
        "ALPHA, above 0", _number,
    ),
    "class-shares": Row(
        _labelled(unequal.class_shares),
        "every class divided by shares Dir(ALPHA) (arXiv:1905.12022); unequal shards",
        "ALPHA, above 0", _number,
    ),
    "classes": Row(
        _labelled(unequal.by_class),
        "exactly K classes an agent, the pathological split (arXiv:2102.02079); unequal shards", "K", int,
    ),
    "shards": Row(
        _labelled(equal.sorted_shards),
        "sorted by label, cut, K pieces an agent (arXiv:1602.05629); equal shards", "K", int,
    ),
    "quantity": Row(
        _quantity, "uniform samples, sizes by shares Dir(ALPHA) (arXiv:2102.02079); unequal shards",
        "ALPHA, above 0", _number, labelled=False,
    ),
    "iid": Row(_iid, "uniform samples; equal shards, the same as skew:0", labelled=False),
    "contiguous": Row(
        lambda samples, n, _, rng: equal.contiguous(samples.total, n, rng),
        "consecutive pieces of the data in their order; equal shards", labelled=False,
    ),
    "copies": Row(
        lambda samples, n, *_: equal.copies(samples.total, n),
        "all samples for every agent: all minimise the same", labelled=False,
    ),
    "natural": Row(
        _natural, "by a column of the data: who has the same value stays together; unequal shards", "COLUMN",
        labelled=False,
    ),
    "flwr": Row(
        _flower, "any partitioner of flwr-datasets: flwr:DirichletPartitioner(alpha=0.1)",
        "NAME(ARGUMENTS)", flower.spelt, labelled=False,
    ),
}  # fmt: skip
"""Name -> row, in the order in which they are listed."""


def parsed(text: str) -> tuple[str, Any]:
    """'dirichlet:0.10' -> name and parameter. Raises SettingError for an unknown name or no parameter."""
    name, colon, rest = text.strip().partition(":")
    if name not in PARTITIONS:
        raise unknown("partition", name, PARTITIONS)
    row = PARTITIONS[name]
    if not row.parameter:
        if colon:
            raise SettingError(f"'{text}' has a colon; expected nothing behind '{name}'.")
        return name, ""
    try:
        if not rest.strip():
            raise ValueError
        return name, row.read(rest.strip())
    except ValueError:
        raise SettingError(f"Cannot read the partition '{text}'; expected {name}:{row.parameter}.") from None


def spelt(text: str) -> str:
    """The one way to spell a partition: 'skew:0.50' -> 'skew:0.5'. Raises SettingError."""
    name, parameter = parsed(text)
    return f"{name}:{as_word(parameter)}" if PARTITIONS[name].parameter else name


def split(
    text: str,
    labels: np.ndarray | None,
    total: int,
    n: int,
    rng: np.random.Generator,
    columns: Columns | None = None,
) -> Shards:
    """The shards of n agents: entry i has the indices of agent i's samples, one at least.

    Args:
        labels: integers [N], or None where the targets are no classes
        total: N
        columns: what `natural` goes by: name -> [N]

    Raises SettingError for what cannot be split so.
    """
    for column, values in (columns or {}).items():
        if len(values) != total:
            raise SettingError(
                f"The column '{column}' has {len(values):,} values, the data {total:,} samples; expected a "
                "value for each sample."
            )
    name, parameter = parsed(text)
    row = PARTITIONS[name]
    if labels is None and row.labelled:
        others = ", ".join(each for each, row in PARTITIONS.items() if not row.labelled)
        raise SettingError(f"'{text}' splits by class, and the targets are none; expected one of {others}.")
    return row.split(Samples(labels, total, columns or {}), n, parameter, rng)
