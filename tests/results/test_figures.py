"""Figures: what a description says, and that both renderers draw all of it."""

from __future__ import annotations

import json
import math
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest

import offbeat
from offbeat import Comparison, Run, SettingError
from offbeat.algorithms import USUAL
from offbeat.core.settings import Settings
from offbeat.results.axes import power, shortly, ticks
from offbeat.results.by_matplotlib import saved
from offbeat.results.curves import LIFT
from offbeat.results.figure import Figure
from offbeat.results.looks import DASHES, PALETTE, looks
from offbeat.results.scores import over_seeds
from offbeat.results.summary import centre_and_band, summary
from offbeat.results.values import Curve

FIVE = ["adsgd", "adpsgd", "rfast", "dsgd", "allreduce"]


def only(figure: Figure) -> Any:
    (panel,) = figure.panels
    return panel


def lines(figure: Figure) -> dict[str, Any]:
    return {line.label: line for panel in figure.panels for line in panel.lines}


def drawn_lines(figure: Figure) -> dict[str, Any]:
    """What plotly draws, by name."""
    traces = figure.plotly().data
    return {trace.name: trace for trace in traces if trace.mode and trace.mode.startswith("lines+")}


# -- centre and band -------------------------------------------------------------------------------


def test_centre_and_band_are_what_they_are_called() -> None:
    rows = np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]])
    for band, (middle, low, high) in {
        "range": (2.0, 1.0, 6.0),
        "std": (3.0, 3 - math.sqrt(7), 3 + math.sqrt(7)),
        "ci": (3.0, 3 - 4.302653 * math.sqrt(7 / 3), 3 + 4.302653 * math.sqrt(7 / 3)),
    }.items():
        found = [part.tolist() for part in centre_and_band(rows, band)]
        assert [part[0] for part in found] == pytest.approx([middle, low, high], rel=1e-6)
        assert [part[1] for part in found] == [5, 5, 5]
        assert all(part.tolist() == [1.0, 5.0] for part in centre_and_band(rows[:1], band))


def test_over_time_seeds_are_averaged_where_they_were_evaluated(digits: Comparison) -> None:
    one, two = digits.groups()[next(iter(digits.groups()))]
    s = summary([one, two], "loss")
    assert s.x.tolist() == one.curve.time
    assert np.allclose(s.middle, np.median([one.curve.loss, two.curve.loss], 0))
    assert np.allclose(s.high, np.maximum(one.curve.loss, two.curve.loss))
    alone = summary([one], "loss", "updates")
    assert alone.x.tolist() == one.curve.updates and alone.middle.tolist() == one.curve.loss


@cache
def base() -> Run:
    return offbeat.simulate("adsgd", task="quadratic", until=1, agents=2, topology="chain")


def run_of(seed: int = 0, algorithm: str = "adsgd", lr: float = 0.1, **changes: Any) -> Run:
    """A run with a curve of three points."""
    settings: dict[str, Any] = dict.fromkeys(("straggler", "target", "skew", "dirichlet"))
    settings |= {"task": "mine", "agents": 2, "topology": "ring", "own": [], "until": 2.0, "case": "base"}
    known = {"algorithm": algorithm, "lr": lr, "seed": seed}
    settings |= changes.pop("settings", {}) | known
    curve = Curve([0, 1, 2], [0, 10, 20], [0, 1, 2], [4.0, 2.0, 1.0], [], [0, 1, 1])
    return replace(base(), **{"curve": curve, "settings": Settings(settings), **known, **changes})


def test_over_updates_seeds_are_interpolated_up_to_the_one_that_ends_first() -> None:
    """Two lines, 4 - x/10 and 8 - x/10, of which the second is known further: the mean is 6 - x/10."""
    x = [0, 10, 20], [5, 15, 40]
    made = [
        run_of(k, curve=Curve([0, 1, 2], at, [0.0] * 3, [4 * (k + 1) - u / 10 for u in at], [], [0.0] * 3))
        for k, at in enumerate(x)
    ]
    s = summary(made, "loss", "updates", "std")
    assert (s.x[0], s.x[-1]) == (5, 20)
    assert s.middle == pytest.approx(6 - s.x / 10)
    assert s.high - s.middle == pytest.approx(stdev([4, 8]))
    logged = summary(made, "loss", "updates", "std", log_x=True)
    assert np.diff(np.log(logged.x)) == pytest.approx(math.log(2))
    figure = Comparison(made).figure("loss", "updates", log="")
    assert "interpolated" in figure.notes[1] and "interpolated" not in str(Comparison(made).figure().notes)


def test_epochs_are_passes_over_the_training_data() -> None:
    run = offbeat.simulate("adsgd", task="digits", until=30, batch=16)
    assert run.epoch == 9 * (1438 // 9) / 16 and run.record()["epoch"] == run.epoch
    (line,) = only(run.figure(x="epochs")).lines
    assert line.x[-1] == run.curve.updates[-1] / run.epoch
    with pytest.raises(SettingError, match="gradients make an epoch of the task mine is not known"):
        run_of(epoch=None).figure(x="epochs")


# -- what ends ----------------------------------------------------------------------------------------


def test_curves_have_a_line_and_a_band_for_every_group(digits: Comparison) -> None:
    for x in ("time", "updates", "megabytes", "epochs"):
        for metric in ("loss", "accuracy", "consensus"):
            figure = digits.figure(metric, x)
            panel, traces = only(figure), figure.plotly().data
            assert [line.label for line in panel.lines] == FIVE
            assert len({line.look for line in panel.lines}) == 5
            assert all(len(line.low) == len(line.x) > 0 for line in panel.lines)
            assert len(traces) == 10 + (metric == "accuracy")
            assert ("target 30 %" in [trace.name for trace in traces]) == (metric == "accuracy")
            assert panel.y.log == (metric == "loss")
            json.loads(figure.plotly().to_json())


def test_lines_end_at_the_slowest_seed_and_the_figure_says_so(digits: Comparison) -> None:
    ends = [run.curve.updates[-1] for run in digits.runs if run.algorithm == "adsgd"]
    assert len(set(ends)) == 2
    figure = digits.figure("loss", "updates")
    assert lines(figure)["adsgd"].x[-1] == min(ends)
    assert "end with the one that ends first" in figure.notes[1]
    one = Comparison([run for run in digits.runs if run.seed == 0]).figure("loss", "updates")
    assert one.notes == ("One seed, 0: no band.",) and lines(one)["adsgd"].x[-1] == ends[0]


def test_a_diverged_line_ends_in_a_cross_below_the_ceiling(diverged: Comparison) -> None:
    figure = diverged.figure()
    found, traces = lines(figure), figure.plotly().data
    assert [line.end for line in found.values()] == ["", "diverged"]
    (cross,) = (trace for trace in traces if trace.marker.symbol == "x")
    assert cross.x[0] == found["dsgd"].x[-1] < found["adsgd"].x[-1]
    assert cross.y[0] <= LIFT * max(found["adsgd"].y) * 1.5
    assert "× diverged: dsgd 2 of 2 seeds." in figure.notes
    (axes,) = figure.matplotlib().axes
    assert sum(line.get_marker() == "X" for line in axes.lines) == 1


def test_a_line_that_ends_before_its_experiment_has_a_stroke() -> None:
    short = Curve([0, 1], [0, 10], [0, 1], [4.0, 2.0], [], [0, 1])
    made = Comparison([run_of(0), run_of(1, curve=short), run_of(algorithm="dsgd")])
    figure = made.figure()
    assert [(line.end, line.x[-1]) for line in lines(figure).values()] == [("ended early", 1), ("", 2)]
    assert figure.notes == (
        "Median and range of 1 to 2 seeds (adsgd 2, dsgd 1).",
        "| ended before the end of the experiment: adsgd 1 of 2 seeds.",
    )
    assert "line-ns" in [trace.marker.symbol for trace in figure.plotly().data]
    stopped = replace(made, interrupted=True).figure()
    assert stopped.notes[-1] == "Not all runs of the plan were made."


def test_a_run_that_explodes_does_not_set_the_scale() -> None:
    runs = offbeat.compare("dsgd", task="quadratic", until=40, lr=[0.1, 20.0]).runs
    made = Comparison([replace(run, diverged_at=None) for run in runs])
    assert made.runs[1].curve.loss[-1] > 1e6
    figure = made.figure()
    calm, wild = only(figure).lines
    assert max(wild.y) == LIFT * max(calm.y) and len(wild.x) < len(calm.x)
    assert "far above it" in figure.notes[-1]
    alone = Comparison(made.runs[1:]).figure()
    assert max(only(alone).lines[0].y) == max(made.runs[1].curve.loss)
    assert len(only(alone).y.ticks) <= 10


def test_the_marks_of_a_logarithmic_axis_are_over_all_that_is_drawn() -> None:
    """Also where curves that have hardly begun to fall are far above the target: marks of them lay on top of
    each other.
    """
    made = offbeat.compare("adsgd", task="quadratic", until=20, target=0.01, seeds=2)
    panel = only(made.figure(log="y"))
    (line,) = panel.lines
    assert min(line.y) > 10 * panel.level[0] == 0.1
    assert min(panel.y.ticks) <= 0.01 and max(panel.y.ticks) >= max(line.high)


def test_bands_that_are_not_positive_are_cut_on_a_logarithmic_axis() -> None:
    made = Comparison(
        [
            run_of(k, curve=Curve([0, 1], [0, 1], [0, 1], [v, v], [], [0, 0]), settings={"until": 1.0})
            for k, v in enumerate((0.01, 0.02, 3.0))
        ]
    )
    figure = made.figure(band="std")
    (line,) = only(figure).lines
    assert min(line.low) == pytest.approx(mean([0.01, 0.02, 3.0]) / 10)
    assert figure.notes[-1] == "Bands are cut below 0.1."
    assert min(lines(made.figure(band="std", log=""))["adsgd"].low) < 0
    assert min(lines(made.figure())["adsgd"].low) == 0.01 and len(made.figure().notes) == 1


def test_what_is_not_positive_is_left_out_of_logarithmic_axes(digits: Comparison) -> None:
    figure = digits.figure("consensus", "updates", log="xy")
    for line in only(figure).lines:
        assert line.x and min(line.x) > 0 and min(line.y) > 0
    low, high = only(figure).x.limits
    assert 0 < low < high


# -- looks ------------------------------------------------------------------------------------------


def test_an_algorithm_has_its_colour_in_every_figure(digits: Comparison) -> None:
    whole = {label: line.look.colour for label, line in lines(digits.figure()).items()}
    some = Comparison([run for run in digits.runs if run.algorithm in ("dsgd", "rfast")])
    assert {label: line.look.colour for label, line in lines(some.figure("accuracy", "updates")).items()} == {
        name: whole[name] for name in ("dsgd", "rfast")
    }
    assert whole == dict(zip(USUAL, PALETTE, strict=False))


def test_colours_hold_in_grey() -> None:
    """L* of CIELAB; of two that come one after the other it differs by ten at least."""

    def lightness(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        y = sum(a * b for a, b in zip((0.2126, 0.7152, 0.0722), linear, strict=True))
        return 116 * (y ** (1 / 3) if y > 0.008856 else 7.787 * y + 16 / 116) - 16

    found = [lightness(colour) for colour in PALETTE]
    assert [round(value) for value in found[:4]] == [46, 71, 0, 58]
    assert min(abs(a - b) for k, a in enumerate(found[:4]) for b in found[:k]) > 10


def test_looks_differ_without_colour_too(quadratic: Comparison) -> None:
    found = looks({quadratic.label(key): runs for key, runs in quadratic.groups().items()})
    assert len({(look.dash, look.marker) for look in found.values()}) == 4
    assert found["adsgd lr=0.1"].colour == found["adsgd lr=0.05"].colour != found["dsgd lr=0.1"].colour
    many = {f"adsgd lr={k}": [run_of(lr=k + 1.0)] for k in range(30)} | {"dsgd": [run_of(algorithm="dsgd")]}
    some = list(looks(many).values())
    assert len(set(some)) == len(many) and len({look.dash for look in some[:6]}) == len(DASHES)
    alone = looks({label: runs for label, runs in many.items() if label != "dsgd"})
    assert [look.colour for look in list(alone.values())[:7]] == list(PALETTE)


def test_colours_can_be_chosen(digits: Comparison) -> None:
    figure = digits.figure(colours={"dsgd": "#123456"})
    assert lines(figure)["dsgd"].look.colour == "#123456" and lines(figure)["adsgd"].look.colour == PALETTE[0]
    with pytest.raises(SettingError, match="no algorithm sgd to be coloured"):
        digits.figure(colours={"sgd": "#FF0000"})


# -- panels ----------------------------------------------------------------------------------------


def test_panels_by_a_setting_share_axes_colours_and_legend(quadratic: Comparison) -> None:
    figure = quadratic.figure(by="lr", width=6.9)
    assert [panel.title for panel in figure.panels] == ["lr 0.05", "lr 0.1"]
    assert [[line.label for line in panel.lines] for panel in figure.panels] == [["adsgd", "dsgd"]] * 2
    assert figure.panels[0].x == figure.panels[1].x and figure.panels[0].y == figure.panels[1].y
    assert [*figure.labels] == ["adsgd", "dsgd"] and figure.shape == (1, 2)
    assert replace(figure, width=3.3).shape == (2, 1)
    named = [trace.name for trace in figure.plotly().data if trace.showlegend]
    assert named == ["adsgd", "dsgd", "target 0.01"]
    printed = figure.matplotlib()
    assert len(printed.axes) == 2 and [axes.get_title("left") for axes in printed.axes] == [
        "lr 0.05",
        "lr 0.1",
    ]
    assert [text.get_text() for text in printed.legends[0].texts] == named


# -- time to target -----------------------------------------------------------------------------------


def test_bars_say_never(digits: Comparison) -> None:
    (panel,) = digits.figure("time_to_target").panels
    until = digits.runs[0].settings["until"]
    for bar, runs in zip(panel.bars, digits.groups().values(), strict=True):
        times = [run.time_to_target for run in runs]
        never = np.median([np.inf if time is None else time for time in times]) == np.inf
        assert bar.never == never and (bar.length == until if never else bar.length < until)
        assert ("never" in bar.text) or None not in times
    assert "Hatched" in digits.figure("time_to_target").notes[1]
    shapes = digits.figure("time_to_target").plotly().data[0].marker.pattern.shape
    assert [shape == "/" for shape in shapes] == [bar.never for bar in panel.bars]
    hatched = [
        bar.get_hatch() is not None for bar in digits.figure("time_to_target").matplotlib().axes[0].patches
    ]
    assert hatched == [bar.never for bar in panel.bars]


def test_what_bars_are_called_fits_beside_the_next_panel_and_in_the_figure() -> None:
    runs = offbeat.compare(
        ["adsgd", "dsgd"], task="quadratic", over={"case": ["base", "slow-comm", "combined"]}, seeds=2,
        until=20, target=1e-9, eval_every=5,
    )  # fmt: skip
    drawing = runs.figure("time_to_target", by="case", width=6.9)
    assert drawing.shape == (1, 3)
    (first, *others), text = drawing.panels, "never in 3 of 5, else 37,239 [35,188 - 39,291]"
    long = replace(first, bars=tuple(replace(bar, text=text) for bar in first.bars))
    drawing = replace(drawing, panels=(*others, long))
    assert drawing.shape == (2, 2)
    printed = drawing.matplotlib()
    printed.draw_without_rendering()
    right = max(words.get_window_extent().x1 for at in printed.axes for words in at.texts)
    assert right <= printed.bbox.x1
    (of_first,) = [at for at in printed.axes if at.get_title("left") == drawing.panels[0].title]
    assert max(words.get_window_extent().x1 for words in of_first.texts) < printed.axes[1].bbox.x0


def test_no_mean_where_a_seed_never_met_the_target() -> None:
    assert over_seeds([1.0, 2.0, None], "range") == (2.0, 1.0, math.inf)
    assert over_seeds([1.0, 2.0, None], "std") == (math.inf,) * 3
    assert over_seeds([1.0, 3.0], "std") == pytest.approx((2.0, 2 - math.sqrt(2), 2 + math.sqrt(2)))
    made = Comparison(
        [run_of(0, time_to_target=1.0, settings={"target": 2.0}), run_of(1, settings={"target": 2.0})]
    )
    (bar,) = only(made.figure("time_to_target", band="ci")).bars
    assert bar.never and bar.text == "never in 1 of 2, else 1"


# -- over a setting --------------------------------------------------------------------------------


def test_points_over_a_setting_are_times_to_the_target() -> None:
    times = {0.1: (4.0, 6.0), 0.2: (2.0, 3.0), 0.8: (1.0, None)}
    target = {"target": 2.0}
    made = Comparison(
        [
            run_of(seed, lr=lr, time_to_target=time, settings=target)
            for lr, some in times.items()
            for seed, time in enumerate(some)
        ]
    )
    figure = made.figure("time_to_target", x="lr")
    (line,) = only(figure).lines
    assert line.label == "adsgd" and line.points
    assert (line.x[:2], line.y[:2]) == ((0.1, 0.2), (5.0, 2.5)) and line.never == (0.8,)
    assert math.isnan(line.x[2]), "a gap, so that no line leads over what was never reached"
    assert (line.low[:2], line.high[:2]) == ((4.0, 2.0), (6.0, 3.0))
    assert only(figure).x.log and only(figure).x.names == ("0.1", "0.2", "0.8")
    assert figure.notes == (
        "Median and range of 2 seeds.", "△ at the upper border: the target was not met.",
    )  # fmt: skip
    markers = [trace.marker.symbol for trace in figure.plotly().data]
    assert markers == ["circle", "triangle-up-open"]
    (axes,) = figure.matplotlib().axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "0.2", "0.8"]
    with pytest.raises(SettingError, match="had no target"):
        Comparison([run_of(lr=0.1), run_of(lr=0.2)]).figure("time_to_target", x="lr")


def test_points_over_a_setting_are_where_the_metric_ended(quadratic: Comparison) -> None:
    figure = quadratic.figure("loss", x="lr", band="std")
    assert [line.label for line in only(figure).lines] == ["adsgd", "dsgd"]
    for line in only(figure).lines:
        for lr, value in zip(line.x, line.y, strict=True):
            runs = [run for run in quadratic.runs if (run.algorithm, run.lr) == (line.label, lr)]
            assert value == pytest.approx(mean(run.curve.loss[-1] for run in runs))
    named = quadratic.figure("loss", x="algorithm", by="lr", width=6.9)
    assert named.panels[0].x.names == ("adsgd", "dsgd") and len(named.panels) == 2


@pytest.mark.parametrize(
    ("said", "title", "names"),
    [
        (("rtt:a.npz mean 0.3", "rtt:a.npz mean 1"), "latency rtt:a.npz mean", ("0.3", "1")),
        (("gamma", "gamma 0.5"), "latency", ("gamma", "gamma 0.5")),
        (("a b", "b b"), "latency", ("a b", "b b")),
        (("a b",), "latency", ("a b",)),
    ],
)
def test_words_with_which_all_values_begin_are_in_the_title(
    said: tuple[str, ...], title: str, names: tuple[str, ...]
) -> None:
    runs = [run_of(settings={"latency": each}) for each in said]
    axis = only(Comparison(runs).figure("loss", x="latency")).x
    assert (axis.title, axis.names) == (title, names)
    assert axis.said.format(axis.names[0]) == f"latency {said[0]}"


# -- files ------------------------------------------------------------------------------------------


def test_files_are_what_they_are_called_and_the_same_every_time(
    quadratic: Comparison, tmp_path: Path
) -> None:
    begins = {"pdf": b"%PDF-1.4", "svg": b"<?xml", "png": b"\x89PNG", "html": b"<!doctype html>"}
    for ending, begin in begins.items():
        path = tmp_path / f"figure.{ending}"
        quadratic.figure(band="ci").save(path)
        first = path.read_bytes()
        assert first.startswith(begin)
        quadratic.figure(band="ci").save(path)
        assert path.read_bytes() == first
    pdf = (tmp_path / "figure.pdf").read_bytes()
    assert b"/FontFile2" in pdf and b"/Subtype /Type3" not in pdf and b"CreationDate" not in pdf
    (box,) = re.findall(rb"/MediaBox \[ 0 0 ([\d.]+) ", pdf)
    assert float(box) / 72 == pytest.approx(3.3)
    assert [path.suffix for path in tmp_path.iterdir()].count(".pdf") == 1 and len([*tmp_path.iterdir()]) == 4


def test_the_axes_can_be_gone_on_with(quadratic: Comparison, tmp_path: Path) -> None:
    from matplotlib.figure import Figure as Printed

    figure = quadratic.figure()
    drawn = figure.matplotlib()
    assert "found it" not in str(figure)
    drawn.axes[0].set_title("found it")
    figure.save(tmp_path / "mine.svg", drawn)
    figure.save(tmp_path / "ours.svg")
    assert (tmp_path / "mine.svg").stat().st_size > (tmp_path / "ours.svg").stat().st_size
    mine = Printed()
    axes = mine.subplots(1, 2)
    assert figure.matplotlib([axes[1]]) is mine
    assert len(axes[1].lines) >= 4 and not axes[0].lines
    with pytest.raises(SettingError, match="an axes for each of 1 panels; got 2"):
        figure.matplotlib(axes)


@pytest.mark.parametrize("width", [3.3, 6.9])
def test_nothing_sticks_out_of_the_page(digits: Comparison, width: float) -> None:
    for figure in (digits.figure(width=width), digits.figure("accuracy", by="algorithm", width=width)):
        drawn = figure.matplotlib()
        drawn.draw_without_rendering()
        box = drawn.bbox
        texts: list[Any] = [*drawn.texts, *drawn.legends, *(axes.xaxis.label for axes in drawn.axes)]
        texts += [axes.yaxis.label for axes in drawn.axes]
        for text in texts:
            extent = text.get_window_extent()
            assert min(extent.x0, extent.y0) >= -0.5
            assert extent.x1 <= box.x1 + 0.5 and extent.y1 <= box.y1 + 0.5
        assert all(float(text.get_fontsize()) >= 6 for text in drawn.texts)


def test_without_matplotlib_a_figure_says_what_to_install(
    quadratic: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    figure = quadratic.figure()
    figure.save(tmp_path / "figure.html")
    for way in (figure.matplotlib, lambda: figure.save(tmp_path / "figure.pdf")):
        with pytest.raises(SettingError, match=r"pip install 'offbeat\[figures\]'"):
            way()
    assert [path.name for path in tmp_path.iterdir()] == ["figure.html"]


def test_what_cannot_be_drawn_is_refused_in_words(quadratic: Comparison, tmp_path: Path) -> None:
    how: dict[str, Any]
    for how, said in (
        ({"metric": "lss"}, "Unknown metric 'lss'. Did you mean 'loss'"),
        ({"metric": "accuracy"}, "Unknown metric 'accuracy'"),
        ({"x": "update"}, "Unknown x 'update'. Did you mean 'updates'"),
        ({"x": "lr", "log": "z"}, "'x', 'y' or 'xy'; got 'z'"),
        ({"colours": {"dsgd": "red"}}, "A colour is written as in '#0072B2'; got 'red' for dsgd"),
        ({"x": "epochs"}, "make an epoch of the task quadratic is not known"),
        ({"band": "sd"}, "Unknown band 'sd'"),
        ({"log": "z"}, "'x', 'y' or 'xy'; got 'z'"),
        ({"by": "cases"}, "Unknown setting 'cases'. Did you mean 'case'"),
        ({"width": 0}, "width"),
        ({"width": math.nan}, "width"),
        ({"width": "6.9"}, "width"),
    ):
        with pytest.raises(SettingError, match=re.escape(said)):
            quadratic.figure(**how)
    with pytest.raises(SettingError, match="no run was finished"):
        Comparison([]).figure()
    with pytest.raises(SettingError, match=r"saved as \.pdf, \.svg, \.png, \.html; got"):
        quadratic.figure().save(tmp_path / "figure.jpeg")
    assert [*tmp_path.iterdir()] == []


# -- marks ---------------------------------------------------------------------------------------------


def test_marks_of_logarithmic_axes() -> None:
    assert ticks([0.011, 2.3]) == (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50)
    assert ticks([1e-9, 1]) == tuple(10.0**e for e in range(-9, 1, 2))
    assert ticks([1.1, 2.3]) == (1.25, 1.5, 1.75, 2, 2.25) and ticks([3.0, 3.0]) == (3,)
    assert ticks([0.0, -1.0, math.inf]) == ()
    assert [power(v) for v in (0.5, 1e-4, 2e-4, 1e4, 2000)] == [
        ("0.5", None), ("", -4), ("2", -4), ("", 4), ("2000", None),
    ]  # fmt: skip
    assert [shortly(v) for v in (0, 0.5, 2000, 20_000, 2.5e6)] == ["0", "0.5", "2000", "20k", "2.5M"]


def test_a_group_without_a_point_does_not_press_the_panels_flat(quadratic: Comparison) -> None:
    """An artist without data would count as one in the corner of the figure, which a PDF heeds."""
    runs = [replace(run, time_to_target=None) if run.algorithm == "dsgd" else run for run in quadratic.runs]
    printed = Comparison(runs).figure("time_to_target", x="agents", by="lr").matplotlib()
    assert saved(printed, "pdf").startswith(b"%PDF")
    inches = printed.get_size_inches()[1]
    heights = [axes.get_position().height * inches for axes in printed.axes]
    assert len(heights) == 2 and min(heights) > 1.2
