"""Figures of what was asked for: they show the values, and are on the page where these are there."""

from typing import Any

import numpy as np
import pytest

import offbeat
from offbeat.results.details import figures
from offbeat.results.page import page


@pytest.fixture(scope="module")
def measured() -> offbeat.Comparison:
    """Evaluated 201 times, more often than a line has points."""
    asked: dict[str, Any] = {"metrics": "gap,disagreement,ages,shares,traffic", "per_agent": True}
    return offbeat.compare(
        "adsgd,dsgd", task="quadratic", until=20.0, eval_every=0.1, judge="worst", seeds=2, **asked
    )


def test_each_group_of_values_has_a_figure(measured: offbeat.Comparison) -> None:
    run = measured.runs[0]
    found = [figure for figure, _ in figures(measured)]
    lines, ages, shares, traffic = (figure.data for figure in found)
    assert len(lines) == 2 * 9
    own = np.array(run.details["per_agent"]["loss"])
    assert list(lines[4].y) == own[np.linspace(0, 200, 200).round().astype(int), 4].tolist()
    assert [trace.name for trace in ages] == ["adsgd", "dsgd"]
    widths = np.diff(ages[0].customdata, append=2 * ages[0].customdata[-1] - ages[0].customdata[-2])
    assert np.nansum(ages[0].y * widths) == pytest.approx(1.0)
    assert [trace.name for trace in shares[:4]] == ["computing", "waiting", "down", "sending"]
    assert list(shares[0].x) == run.details["shares"]["computing"]
    links = run.details["traffic"]
    assert np.nansum(traffic[0].z) * 1e6 == pytest.approx(sum(links["bytes"]))
    assert np.isfinite(traffic[0].z).sum() == len(links["bytes"]) == 24


def test_the_page_has_them_and_says_who_was_judged(measured: offbeat.Comparison) -> None:
    text = page(measured)
    assert "What else was measured" in text and "Each line is one agent’s own model. With seed 0." in text
    assert "The gap to the optimum, of the worst of the agents’ own models" in text
    assert "F(x) - min f of the model that is judged" in text
    plain = page(offbeat.compare("adsgd", task="quadratic", until=5.0))
    assert "Each line is one agent" not in plain and "of the average of all agents’ models" in plain


def test_one_agent_that_mixes_nothing_has_figures_too() -> None:
    asked = "ages,shares,traffic"
    alone = offbeat.compare("adsgd", task="quadratic", agents=1, topology="ring", until=5.0, metrics=asked)
    assert len(figures(alone)) == 3 and "Megabytes by link" in page(alone)
