"""The table of a comparison at every width, what it says of its columns, and the verdict on the page."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from rich.console import Console, RenderableType

import offbeat
from offbeat import Comparison, Run
from offbeat.results.columns import cells
from offbeat.results.page import page
from offbeat.results.table import as_table, tuning_table
from offbeat.results.verdict import verdict


@cache
def worlds() -> Comparison:
    made = list[Run]()
    for topology in ("ring", "erdos-renyi:0.5"):
        for case in ("base", "combined"):
            made += offbeat.compare(
                ["adsgd", "dsgd"], task="quadratic", agents=6, topology=topology, case=case, until=20,
                metrics="gradient_norm", target=0.5, seeds=2,
            ).runs  # fmt: skip
    return Comparison(made)


def printed(what: RenderableType, width: int) -> list[str]:
    file = io.StringIO()
    Console(file=file, width=width).print(what)
    return [line.rstrip() for line in file.getvalue().splitlines()]


@pytest.mark.parametrize("width", [80, 90, 100, 110, 118, 130, 200])
def test_no_column_is_cut_or_alone(width: int, digits: Comparison) -> None:
    for comparison in (worlds(), digits):
        heads, rows = cells(comparison)
        lines = printed(as_table(comparison, width), width)
        assert max(map(len, lines)) <= width and not any("…" in line for line in lines)
        tops = [line.split("  ") for line in lines if line.startswith(" algorithm ")]
        parts = [[head.strip() for head in top if head.strip()] for top in tops]
        first = 1 + len(comparison.differing)
        assert [head for part in parts for head in part[first:]] == heads[first:]
        assert all(len(part) >= first + 2 for part in parts)
        told = "\n".join(lines)
        assert all(
            re.search(rf"(?<!\S){re.escape(cell)}(?!\S)", told) for row in rows for cell in row if cell
        )


def test_a_table_in_two_has_first_how_far_everybody_got() -> None:
    tops = [line.split() for line in printed(as_table(worlds(), 110), 110) if line.startswith(" algorithm ")]
    assert len(tops) == 2 and tops[1] == [
        "algorithm",
        "topology",
        "case",
        "updates",
        "messages",
        "MB",
        "consensus",
        "B",
        "D",
    ]


def test_every_short_head_is_explained_where_the_table_stands(digits: Comparison) -> None:
    short = {"vs best", "updates", "MB", "consensus", "B", "D"}
    assert short <= {*cells(digits)[0]}
    for head in short:
        assert re.search(rf"\b{head}: ", " ".join(str(digits).split()))
    assert "RMS distance" in page(digits)


def test_the_table_of_what_was_tried_keeps_its_words() -> None:
    made = offbeat.compare(
        "adsgd", task="quadratic", until=20, lr="tuned", tune_seeds=2, tune_grid=(0.1, 0.3)
    )
    (run,) = made.runs
    lines = printed(tuning_table(Comparison([replace(run, algorithm="mine[bold]")])), 100)
    assert "median [smallest - largest]" in lines[1] and "mine[bold]" in lines[3]
    assert max(map(len, printed(tuning_table(made), 80))) <= 80


def test_a_verdict_says_who_is_first_and_by_how_much() -> None:
    fast, slow = (
        run for run in offbeat.compare(["adsgd", "dsgd"], task="quadratic", until=20, target=0.5).runs
    )
    fast, slow = replace(fast, time_to_target=2.0), replace(slow, time_to_target=5.0)
    one = "There is one seed: what of this is chance, it cannot tell; six seeds or more can."
    both = ["adsgd is first in time to gap 0.5: 2; dsgd takes 2.50 times as long.", one]
    assert verdict(Comparison([fast, slow])) == both
    assert all(text in page(Comparison([fast, slow])) for text in both)
    never = replace(slow, time_to_target=None)
    assert verdict(Comparison([fast, never]))[0].endswith("2; never by time 20: dsgd.")
    nobody = Comparison(
        [
            replace(fast, time_to_target=None, final=fast.final | {"loss": 0.25}),
            replace(never, final=never.final | {"loss": 1.5}),
        ]
    )
    said = "Nobody met the target; the smallest loss at the end is that of adsgd, 0.25; dsgd 1.5."
    assert verdict(nobody)[0] == said
    assert verdict(Comparison([fast])) == []


def test_a_verdict_on_several_worlds_names_them() -> None:
    said = verdict(worlds())
    assert len(said) == 5 and said[0].startswith("topology ring, case base: ")
    assert said[-1].startswith("There are 2 seeds")


def test_a_metric_that_some_seeds_have_says_of_how_many_it_is() -> None:
    asked: dict[str, Any] = {"task": "quadratic", "until": 3.0}
    some = offbeat.compare("adsgd", metrics="gap", **asked).runs
    rest = offbeat.compare("adsgd", seed=1, **asked).runs
    assert "(of 1 of 2 seeds)" in str(Comparison([*some, *rest]))
    assert "seeds)" not in str(Comparison(some))


def test_panels_by_a_list_are_those_by_its_text(digits: Comparison) -> None:
    drawn = [digits.figure("loss", by=by) for by in (["topology", "case"], "topology,case")]
    assert [panel.title for panel in drawn[0].panels] == [panel.title for panel in drawn[1].panels]


def test_csv_counts_runs_that_stopped() -> None:
    run = offbeat.compare("adsgd", task="quadratic", until=3.0).runs[0]
    stopped = Comparison([run, replace(run, seed=1, error="it stands still")])
    (row,) = csv.DictReader(io.StringIO(stopped.to_csv()))
    assert row["stopped"] == "1"
