"""The partitioners of flwr-datasets: with a stand-in that has the same interface, and the package if it is
there.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from offbeat.core.errors import SettingError
from offbeat.tasks.partition import split

LABELS = np.arange(60) % 5
COLUMNS = {"writer": np.array([f"w{k % 4}" for k in range(60)])}


class Table(dict[str, np.ndarray]):
    """As `datasets.Dataset`, as far as it is used."""

    @classmethod
    def from_dict(cls, columns: dict[str, np.ndarray]) -> Table:
        return cls(columns)

    @property
    def column_names(self) -> list[str]:
        return [*self]

    def select(self, rows: np.ndarray) -> Table:
        return Table({name: column[rows] for name, column in self.items()})


class Partitioner:
    """Every n-th row, or all rows of a value."""

    dataset: Table

    def __init__(self, num_partitions: int, partition_by: str = "", seed: int | None = 42) -> None:
        self.num_partitions, self.by, self.seed = num_partitions, partition_by, seed

    def load_partition(self, k: int) -> Table:
        if self.by not in self.dataset:
            raise ValueError(f"there is no column {self.by}.")
        values = np.unique(self.dataset[self.by])
        return self.dataset.select(np.flatnonzero(self.dataset[self.by] == values[k]))


class Vertical(Partitioner):
    def load_partition(self, k: int) -> Table:
        return Table(label=self.dataset["label"])


class Nothing(Partitioner):
    def load_partition(self, k: int) -> Table:
        return self.dataset.select(np.arange(0 if k == 2 else 3))


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    modules: dict[str, Any] = {
        name: ModuleType(name) for name in ("datasets", "flwr_datasets", "flwr_datasets.partitioner")
    }
    modules["datasets"].Dataset = Table
    there = modules["flwr_datasets.partitioner"]
    there.Partitioner, there.Vertical, there.Nothing = Partitioner, Vertical, Nothing
    there.__all__ = ["Nothing", "Partitioner", "Vertical"]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def shards_of(text: str, n: int, labels: np.ndarray | None = LABELS) -> list[np.ndarray]:
    return [*split(text, labels, 60, n, np.random.default_rng(0), COLUMNS)]


@pytest.mark.usefixtures("stand_in")
def test_partitions_are_known_by_their_rows() -> None:
    by_label = shards_of("flwr:Partitioner", 5)
    assert [{*LABELS[shard].tolist()} for shard in by_label] == [{k} for k in range(5)]
    assert sorted(np.concatenate(by_label).tolist()) == [*range(60)]
    by_writer = shards_of("flwr:Partitioner(partition_by='writer')", 4, labels=None)
    assert [{*COLUMNS["writer"][shard].tolist()} for shard in by_writer] == [{f"w{k}"} for k in range(4)]


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("flwr:Partitionr", "Unknown partitioner of flwr-datasets 'Partitionr'. Did you mean 'Partitioner'?"),
        ("flwr:Partitioner(num_partitions=4)", "makes 4 partitions for 5 agents"),
        ("flwr:Partitioner(alpha=1)", "cannot split these data: TypeError"),
        ("flwr:Partitioner(partition_by='x')", "ValueError: there is no column x."),
        ("flwr:Vertical", "splits columns"),
        ("flwr:Nothing", "leaves agent 2 without a sample"),
    ],
)
def test_what_a_partitioner_cannot_do_is_said(text: str, said: str) -> None:
    with pytest.raises(SettingError) as caught:
        shards_of(text, 5)
    assert said in str(caught.value)


def test_without_the_package_it_is_said_how_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(SettingError, match=r"pip install 'offbeat\[flower\]'"):
        shards_of("flwr:IidPartitioner", 5)


def test_the_real_package() -> None:
    pytest.importorskip("flwr_datasets")
    shards = shards_of("flwr:DirichletPartitioner(alpha=0.5, min_partition_size=1)", 5)
    assert sorted(np.concatenate(shards).tolist()) == [*range(60)]
    natural = shards_of("flwr:NaturalIdPartitioner(partition_by='writer')", 4)
    assert {len({*COLUMNS["writer"][shard].tolist()}) for shard in natural} == {1}
