"""Golden traces: times, agents and versions exactly, norms of the models to a tolerance.

After a change that is meant to change results: OFFBEAT_WRITE_GOLDEN=1 make test, and say so in the CHANGELOG.
"""

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from runs import EVERY, quadratic, started

from offbeat import Crash, Vector, World

FOLDER = Path(__file__).parent / "golden"
WORLD = World(
    seed=2024, slow_compute={4: 5.0}, slow_communication={4: 5.0}, loss=0.1, crashes=(Crash(7, 12.0, 19.0),)
)


def recorded(algorithm: str) -> list[dict[str, Any]]:
    norms: list[float] = []

    def observe(time: float, agent: int, model: Vector) -> None:
        norms.append(model.norm())

    still = algorithm.partition(":")[0] in ("allreduce", "amelie")  # they would stand still
    world = replace(WORLD, crashes=()) if still else WORLD
    sim = started(algorithm, quadratic(noise=0.1), world, observers=[observe], check=False)
    for time in range(10, 61, 10):
        if len(norms) < 200:
            sim.run(time)
    rows = sim.recorder.trace().table()[:200]
    return [
        {**row, "versions": {str(j): v for j, v in row["versions"].items()}, "norm": norm}
        for row, norm in zip(rows, norms, strict=False)
    ]


@pytest.mark.parametrize("algorithm", EVERY)
def test_golden_trace(algorithm: str) -> None:
    path = FOLDER / f"{algorithm.replace(':', '-')}.jsonl"
    rows = recorded(algorithm)
    if os.environ.get("OFFBEAT_WRITE_GOLDEN"):
        FOLDER.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    golden = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(golden) == len(rows) > 30
    for got, expected in zip(rows, golden, strict=True):
        assert got.pop("norm") == pytest.approx(expected.pop("norm"), rel=1e-9)
        assert got == expected
