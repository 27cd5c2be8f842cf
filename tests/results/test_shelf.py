"""The page of several worlds: a panel for each, with the same axes, and figures that fit a page of paper."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import pytest

import offbeat
from offbeat import Comparison, Run, SettingError
from offbeat.results.page import page
from offbeat.results.shelf import PANELS, panels_of
from offbeat.results.timeline import TALLEST, pieces, timelines

FIVE = ["adsgd", "adpsgd", "rfast", "dsgd", "allreduce"]


@cache
def worlds() -> Comparison:
    made = list[Run]()
    for topology in ("ring", "complete"):
        for case in ("base", "combined"):
            found = offbeat.compare(
                ["adsgd", "dsgd"], task="quadratic", agents=6, topology=topology, case=case, until=20,
                straggler=0 if case == "combined" else None, metrics="ages", target=0.5,
            )  # fmt: skip
            made += found.runs
    return Comparison(made)


@cache
def whole() -> str:
    return page(worlds())


def figures(text: str) -> dict[str, Any]:
    match = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text)
    assert match is not None
    found: dict[str, Any] = json.loads(match[1])
    return found


def test_a_page_of_several_worlds_has_a_panel_for_each() -> None:
    text, titles = whole(), re.compile("<h4>(.*?)</h4>")
    drawn = figures(text)
    first = [drawn[f"figure-1-{k}"] for k in (1, 2, 3, 4)]
    assert "figure-1" not in drawn and "figure-1-5" not in drawn
    assert titles.findall(text)[:4] == [
        "topology ring, case base", "topology ring, case combined",
        "topology complete, case base", "topology complete, case combined",
    ]  # fmt: skip
    for figure in first:
        assert [t["name"] for t in figure["data"] if t.get("showlegend")] == ["adsgd", "dsgd", "target 0.5"]
        for axis in ("xaxis", "yaxis"):
            assert figure["layout"][axis]["range"] == first[0]["layout"][axis]["range"]
            assert figure["layout"][axis]["title"]["text"]
    assert all(f'id="{name}"' in text for name in drawn), "each has its place"
    assert text.count("<figcaption>") == text.count("</figure>") < len(drawn)


def test_agents_and_what_they_mixed_are_shown_of_each_world() -> None:
    text = whole()
    for where in ("topology ring, case base", "topology complete, case combined"):
        assert f"<b>{where}:</b> Who computed" in text and f"<b>{where}:</b> How old" in text
    assert text.count("The communication graph") == 4
    assert text.count("number is bold") == 2, "there are stragglers in two of the worlds"


def test_of_very_many_worlds_the_fewest_values_share_a_panel() -> None:
    runs = [
        run for k in range(1, 8) for bandwidth in (1, 2)
        for run in offbeat.compare("adsgd", task="quadratic", until=2, loss=k / 10, bandwidth=bandwidth).runs
    ]  # fmt: skip
    made = Comparison(runs)
    assert len(made.split()) == 14 > PANELS
    assert panels_of(made) == "loss"
    assert panels_of(worlds()) == "topology,case"
    assert panels_of(Comparison(worlds().runs[:2])) is None


def test_panels_by_two_settings() -> None:
    figure = worlds().figure("loss", by="case,topology", width=6.9)
    assert [panel.title for panel in figure.panels][:2] == [
        "case base, topology ring",
        "case base, topology complete",
    ]
    with pytest.raises(SettingError, match="'tpology'"):
        worlds().figure("loss", by="case,tpology")


def test_timelines_fit_a_page_of_paper() -> None:
    made = offbeat.compare(FIVE, task="quadratic", agents=16, topology="ring", until=20)
    traced = {run.algorithm: run for run in made.runs}
    found = pieces(traced)
    assert [name for piece in found for name in piece] == FIVE
    assert [len(piece) for piece in found] == [2, 2, 1]
    assert all(timelines(piece).layout.height <= TALLEST for piece in found)
    drawn = figures(page(made)).values()
    bars = [f["layout"] for f in drawn if f["layout"].get("barmode") == "overlay"]
    assert len(bars) == 3
    assert len({tuple(layout["xaxis"]["range"]) for layout in bars}) == 1, "all in one window of time"
