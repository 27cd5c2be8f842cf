"""Who holds what: in the record, in a line, on the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import offbeat
from offbeat.results.holdings import Holdings, line
from offbeat.results.page import page
from offbeat.results.who_holds import who_holds

RUN: dict[str, Any] = {"until": 5, "topology": "ring", "agents": 5}


@pytest.fixture(scope="module")
def classes() -> offbeat.Comparison:
    return offbeat.compare("adsgd", task="digits", partition="classes:2", seeds=2, **RUN)


def test_the_record_has_the_counts(classes: offbeat.Comparison) -> None:
    run = classes.runs[0]
    record = run.record()["holdings"]
    assert record["classes"] == [str(k) for k in range(10)]
    assert sum(record["sizes"]) == np.sum(record["counts"]) == 1438
    assert [sum(n > 0 for n in row) for row in record["counts"]] == [2] * 5
    assert Holdings.of(record) == run.holdings
    wrong: list[dict[str, Any]] = [{"sizes": [1]}, {"counts": [[1]]}]
    for change in wrong:
        with pytest.raises(ValueError, match="do not fit"):
            Holdings.of(record | change)


def test_the_line_says_samples_and_classes_of_all_seeds(classes: offbeat.Comparison) -> None:
    sizes = [size for run in classes.runs if run.holdings for size in run.holdings.sizes]
    said = f"Data: {min(sizes)} to {max(sizes)} (median {np.median(sizes):.10g}) samples an agent, of 2 of 10"
    assert f"{said} classes." in " ".join(str(classes).split())
    equal = offbeat.simulate("adsgd", task="digits", partition="iid", **RUN)
    assert line([equal]) == "Data: 287 samples an agent, of 10 of 10 classes."


def test_a_task_without_samples_has_none() -> None:
    result = offbeat.compare("adsgd", task="quadratic", **RUN)
    assert result.runs[0].record()["holdings"] is None
    assert line(result.runs) is None
    assert "Data:" not in str(result)
    assert "The data</h2>" not in page(result)


def test_the_page_has_a_bubble_for_each_class_that_an_agent_holds(classes: offbeat.Comparison) -> None:
    assert "The data</h2>" in page(classes)
    bars, bubbles = who_holds(classes.runs[0]).data
    held = classes.runs[0].holdings
    assert held is not None
    assert [*bars.y] == held.sizes
    assert len(bubbles.x) == 10
    for agent, klass, size in zip(bubbles.x, bubbles.y, bubbles.marker.size, strict=True):
        assert held.counts[agent][klass] == size
    many = offbeat.simulate("adsgd", task="digits", until=1, agents=200, topology="ring", executor="levels")
    assert who_holds(many).data[1].z.shape == (10, 200)
