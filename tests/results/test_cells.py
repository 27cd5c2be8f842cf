"""What stands in cells: digits that mean something, empty columns, which rows a note means, what diverged."""

import math
from dataclasses import replace

import pytest

import offbeat
from offbeat.results.columns import cells
from offbeat.results.export import as_latex
from offbeat.results.limits import of_limits
from offbeat.results.notes import notes
from offbeat.results.run import Comparison
from offbeat.results.scores import megabytes_text, number_text, share_text, times_text
from offbeat.results.values import Curve


def test_a_value_has_the_decimals_of_its_spread() -> None:
    nan = math.nan
    for got, expected in (
        (number_text(1.2203, 0.00034), "1.22030 ± 0.00034"),
        (number_text(1.2203), "1.22"),
        (number_text(1.2203, 0.0, 3), "1.22 ± 0"),
        (number_text(0.5, 0.0996), "0.50 ± 0.10"),
        (number_text(123456.0, 7200.0), "123,456 ± 7,200"),
        (number_text(5.614e-7, 1.2e-8), "5.61e-07 ± 0.12e-07"),
        (number_text(1.2e51, 3e50), "1.20e+51 ± 0.30e+51"),
        (share_text(0.8804, nan), "88.0 %"),
        (share_text(0.28, 0.00034), "28.000 ± 0.034 %"),
        (times_text([2.0, 3.0], "std"), "2.50 ± 0.71"),
        (megabytes_text(335.66, nan), "335.7"),
        (megabytes_text(8.013, nan), "8.01"),
        (megabytes_text(0.010912, nan), "0.0109"),
        (megabytes_text(0.0, nan), "0"),
    ):
        assert got == expected


def curve(*loss: float) -> Curve:
    return Curve([*map(float, range(len(loss)))], [], [], [*loss], [], [0.0] * len(loss))


@pytest.mark.parametrize(
    ("loss", "at"),
    [
        ((1.0, 9.0, 2e3, 3e3, 4e5), 2.0),
        ((1.0, 2e3, 3.0, 2e3, 4e5), 3.0),
        ((1.0, 2e3, 9e4, 5e3, 4e3), None),  # it comes down again
        ((1.0, 2.0, 900.0), None),
        ((0.0, 1.0, 2.0), None),
        ((-5.0, 1e9, 1e12), None),
        ((1.0, 2.0, math.nan), 2.0),
        ((1.0,), None),
    ],
)
def test_a_run_whose_loss_has_grown_far_has_diverged(loss: tuple[float, ...], at: float | None) -> None:
    assert curve(*loss).diverged_at() == at


def test_it_is_said_in_table_note_and_json() -> None:
    result = offbeat.compare("dsgd", task="quadratic", until=5, lr=1e5)
    (run,) = result.runs
    assert run.final["loss"] is not None and math.isfinite(run.final["loss"])
    assert run.record()["diverged_at"] == run.diverged_at is not None
    assert "diverged" in cells(result)[1][0]
    assert any("more than 1,000 times that of the start" in note for note in notes(result))


def test_empty_columns_are_left_out_and_latex_has_a_legend_alone() -> None:
    result = offbeat.compare("adsgd", task="quadratic", until=5, seeds=2)
    assert "vs best" not in cells(result)[0] and not any("vs best" in note for note in notes(result))
    assert "vs best" in cells(result, chosen=["vs_best"])[0]
    met = Comparison([replace(run, time_to_target=3.0) for run in result.runs])
    assert "vs best" in cells(met)[0]
    text = as_latex(met)
    assert "vs best: the time" in text and "too few seeds" not in text


def test_a_note_names_the_rows_that_it_means() -> None:
    over = {"optimizer": ["sgd", "nesterov"]}
    result = offbeat.compare("adsgd,apsgd", task="quadratic", topology="star", until=3, over=over)
    said = of_limits(result)
    assert said[0] == (
        "No limit is known of adsgd, optimizer=nesterov; apsgd, optimizer=nesterov: with optimizer."
    )
    assert said[1].startswith("The limit of apsgd, optimizer=sgd: ")


def test_who_makes_no_update_any_more_without_an_end_is_named() -> None:
    """Those who wait for everybody while messages go on; not who goes on, nor whose run has ended."""
    result = offbeat.compare(
        ["apsgd", "spsgd", "ringleader", "amelie"], task="quadratic", topology="star", agents=5, until=200.0,
        crash=["agent 3 at 20"],
    )  # fmt: skip
    assert [run.error is None for run in result.runs] == [True, False, True, True]
    named = [note.split()[0] for note in notes(result) if "made no update after time" in note]
    assert named == ["ringleader", "amelie"]
