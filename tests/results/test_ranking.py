"""One rule says who is first, wherever it is said; and "never" hides no seed that got there."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import Comparison, Run
from offbeat.cli.commands import app
from offbeat.core.errors import SettingError
from offbeat.results.columns import cells
from offbeat.results.notes import of_seeds
from offbeat.results.page import page
from offbeat.results.verdict import verdict

Times = list[float | None]
MISSED: dict[str, Times] = {"adsgd": [4.0, 5, 6], "allreduce": [2.0, 3, None]}


@cache
def one_run() -> Run:
    return offbeat.simulate("adsgd", task="quadratic", agents=4, topology="ring", until=20, target=0.1)


def with_times(times: dict[str, Times], first_seed: int = 0) -> Comparison:
    return Comparison([
        replace(one_run(), algorithm=name, seed=first_seed + k, time_to_target=time)
        for name, several in times.items()
        for k, time in enumerate(several)
    ])  # fmt: skip


def table_of(comparison: Comparison, band: str = "range") -> dict[str, dict[str, str]]:
    heads, rows = cells(comparison, band)
    return {row[0]: dict(zip(heads, row, strict=True)) for row in rows}


def body_of(text: str) -> str:
    return " ".join(re.sub("<[^>]*>", " ", text[text.index("<main>") : text.index("</main>")]).split())


@pytest.mark.parametrize(
    ("band", "first", "centre"), [("range", "allreduce", "median"), ("std", "adsgd", "mean")]
)
def test_table_page_and_note_name_the_same_first(band: str, first: str, centre: str) -> None:
    result = with_times(MISSED)
    (best,) = (name for name, row in table_of(result, band).items() if row["vs best"] == "1.00x")
    opening, *_ = verdict(result, band)
    assert best == first and opening.startswith(
        f"{first} is first in {centre} time to gap 0.1 over 3 seeds: "
    )
    text = page(result, band)
    assert opening in body_of(text) and re.search(rf"<tr class=best><td>{first}</td>", text)
    assert f"Who is first in {centre} time to the target: too few seeds" in body_of(text)
    assert "never by time 20: allreduce (1 of 3 seeds)" in opening


def test_the_page_shows_the_spread_that_was_asked_for(tmp_path: Path) -> None:
    words = "compare --task quadratic --algorithms adsgd,dsgd --agents 4 --until 20 --target 0.5 --seeds 2"
    done = CliRunner().invoke(app, [*words.split(), "--spread", "std", "--report", str(tmp_path / "p.html")])
    assert done.exit_code == 0, done.output
    said = body_of((tmp_path / "p.html").read_text())
    assert "Means over the seeds" in said and "Median" not in said
    assert "Mean ± standard deviation of 2 seeds" in said and "--spread std" in said
    assert "There are 2 seeds: what of this is chance, they cannot tell" in said


def test_never_says_in_how_many_seeds_and_what_the_others_took() -> None:
    result = with_times(MISSED | {"rfast": [None, None, 7.0], "dsgd": [None] * 3})
    times = {name: row["time to gap 0.1"] for name, row in table_of(result).items()}
    assert times == {
        "adsgd": "5 [4 - 6]", "allreduce": "3 [2 - never in 1 of 3]", "rfast": "never in 2 of 3, else 7",
        "dsgd": "never",
    }  # fmt: skip
    assert table_of(result, "std")["allreduce"]["time to gap 0.1"] == "never in 1 of 3, else 2.50 ± 0.71"
    rows = {row["algorithm"]: row for row in csv.DictReader(io.StringIO(result.to_csv("std")))}
    some = rows["allreduce"]
    assert (some["seeds"], some["seeds_met"], some["time_to_target"]) == ("3", "2", "")
    assert (some["time_to_target_of_met"], some["vs_best"]) == ("2.5", "") and rows["adsgd"][
        "vs_best"
    ] == "1.0"
    assert rows["dsgd"]["seeds_met"] == "0" and rows["dsgd"]["time_to_target_of_met"] == ""
    assert "never in 1 of 3, else 2.5" in result.to_latex("std")
    bars = result.figure("time_to_target", band="std").panels[0].bars
    assert bars[1].text == "never in 1 of 3, else 2.50 ± 0.71"


def test_else_is_explained_where_it_stands() -> None:
    for missed, there in (([3.0, 2.0, None], False), ([None, None, 7.0], True)):
        said = of_seeds(with_times(MISSED | {"rfast": missed}), "range")
        assert "later than all" in said and ("'else'" in said) == there


def test_who_diverged_in_some_seeds_is_said_with_how_many() -> None:
    runs = with_times({"adsgd": [4.0, 5.0], "dsgd": [4.0, 5.0]}).runs
    lost = Comparison([replace(runs[0], diverged_at=9.0), *runs[1:]])
    assert table_of(lost)["adsgd"]["loss"] == "diverged in 1 of 2"


def test_groups_are_compared_over_the_seeds_that_all_have() -> None:
    many: Times = [10.0, 10, 1, 1, 1]
    result = with_times({"adsgd": many, "dsgd": [5.0, 5]})
    found = table_of(result)
    assert found["adsgd"]["time to gap 0.1"].startswith("1 ") and found["dsgd"]["vs best"] == "1.00x"
    assert found["adsgd"]["vs best"] == "2.00x", "over seeds 0 and 1"
    assert [row["seeds"] for row in found.values()] == ["5", "2"]
    assert "Compared (vs best, and who is first) over what all have: seeds 0 to 1." in str(result)
    apart = Comparison([*with_times({"adsgd": many}).runs, *with_times({"dsgd": [5.0]}, first_seed=7).runs])
    assert all("vs best" not in row for row in table_of(apart).values())
    assert "not all have a seed in common" in " ".join(str(apart).split()) and "not all have" in page(apart)
    assert "seeds" not in table_of(with_times(MISSED))["adsgd"]


def test_without_a_target_there_is_no_time_to_it() -> None:
    run = replace(one_run(), settings=one_run().settings | {"target": None}, time_to_target=None)
    result = Comparison([run, replace(run, algorithm="dsgd")])
    (heads, _), text = cells(result), str(result)
    assert not {"time to target", "vs best"} & {*heads} and "vs best" not in text and "never" not in text
    assert "time to" not in body_of(page(result)) and "time_to_target" not in result.to_csv()
    both = Comparison([run, replace(one_run(), seed=1, time_to_target=3.0)])
    assert [row[2] for row in cells(both)[1]] == ["-", "3"] or "-" in str(both)
    with pytest.raises(SettingError, match="no target"):
        result.figure("time_to_target")


def test_points_that_stand_alone_stand_at_their_mark() -> None:
    runs = with_times(MISSED).runs
    named = [replace(run, settings=run.settings | {"algorithm": run.algorithm}) for run in runs]
    lines = Comparison(named).figure("time_to_target", x="algorithm").panels[0].lines
    assert [line.x for line in lines] == [(0.0,), (1.0,)]
