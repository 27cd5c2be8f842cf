"""The partitioners of flwr-datasets: `flwr:DirichletPartitioner(alpha=0.1)`.

They are given a table with the columns `label` (where the targets are classes), those of the data, and one of
row numbers, by which their partitions are known; shuffled, as its FederatedDataset does. Of the arguments
`num_partitions`, `partition_by` and `seed` need not be said: they are the number of agents, "label", and one
that follows from the run's seed.
"""

import ast
import inspect
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

from offbeat.core.errors import SettingError, unknown
from offbeat.tasks.minibatches import Indices

ROW = "offbeat_row"  # the column of row numbers
WRITTEN = "NAME(ARGUMENTS), as in DirichletPartitioner(alpha=0.1)"


def spelt(text: str) -> str:
    """The one way to write a name with keyword arguments. Raises ValueError for anything else."""
    try:
        node = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ValueError(text) from error
    name, arguments = read(node)
    said = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return f"{name}({said})" if said else name


def read(node: ast.expr) -> tuple[str, dict[str, Any]]:
    match node:
        case ast.Name(name):
            return name, {}
        case ast.Call(ast.Name(name), [], keywords) if all(each.arg for each in keywords):
            return name, {str(each.arg): ast.literal_eval(each.value) for each in keywords}
    raise ValueError(ast.unparse(node))


def split(
    text: str, labels: np.ndarray | None, total: int, columns: Mapping[str, np.ndarray], n: int, seed: int
) -> list[Indices]:
    """The shards of a partitioner. Raises SettingError where it is unknown, refuses, or leaves nothing."""
    datasets, known = _imported()
    name, arguments = read(ast.parse(text, mode="eval").body)
    if name not in known.__all__:
        raise unknown("partitioner of flwr-datasets", name, known.__all__)
    kind = getattr(known, name)
    usual = {"num_partitions": n, "partition_by": "label", "seed": seed}
    takes = inspect.signature(kind).parameters
    table = {ROW: np.arange(total), **columns} | ({} if labels is None else {"label": labels})
    order = np.random.default_rng(seed).permutation(total)
    table = {key: column[order] for key, column in table.items()}
    try:
        partitioner = kind(**{key: value for key, value in usual.items() if key in takes} | arguments)
        partitioner.dataset = datasets.Dataset.from_dict(table)
        many = int(partitioner.num_partitions)
        parts = [partitioner.load_partition(i) for i in range(many)]
    except Exception as error:
        said = f"{type(error).__name__}: {error}".rstrip(".")
        raise SettingError(f"'flwr:{text}' cannot split these data: {said}.") from error
    if many != n:
        raise SettingError(
            f"'flwr:{text}' makes {many} partitions for {n} agents; expected as many as agents."
        )
    if any(ROW not in part.column_names for part in parts):
        raise SettingError(f"'flwr:{text}' splits columns; expected a partitioner that splits samples.")
    shards = [np.asarray(part[ROW][:], dtype=np.int64) for part in parts]
    if empty := [agent for agent, shard in enumerate(shards) if not len(shard)]:
        raise SettingError(f"'flwr:{text}' leaves agent {empty[0]} without a sample; expected one or more.")
    return shards


def _imported() -> tuple[ModuleType, ModuleType]:
    try:
        datasets = import_module("datasets")
        partitioner = import_module("flwr_datasets.partitioner")
    except ImportError as error:
        raise SettingError(
            f"A partition 'flwr:...' needs flwr-datasets ({error}); expected it installed: pip install "
            "'offbeat[flower]'."
        ) from None
    return datasets, partitioner
