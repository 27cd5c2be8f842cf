"""The search for an algorithm's own best step: over which seeds, by what, around which steps."""

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import Curve, Run, SettingError
from offbeat.cli.commands import app
from offbeat.experiments.tuning import AWAY, ROUNDS, Search, Trial, TuneSettings, between, level, unstable
from offbeat.results.trials import Tuning

QUICK: dict[str, Any] = {"task": "quadratic", "until": 20.0, "case": "combined", "eval_every": 1.0}
SEEDS = (7, 8, 9)


@cache
def base() -> Run:
    return offbeat.simulate("adsgd", task="digits", until=2.0, target=0.9)


def run(
    lr: float,
    seed: int,
    losses: list[float],
    target: float | None = None,
    accuracies: tuple[float, float] = (0.9, 0.8),
) -> Run:
    """A run with this curve, an evaluation a unit of time; accuracies: at the end, of average and worst
    model.
    """
    end: dict[str, float | None] = {
        "accuracy": accuracies[0],
        "accuracy_worst": accuracies[1],
        "loss": losses[-1],
    }
    diverged = None if math.isfinite(losses[-1]) else len(losses) - 1.0
    return replace(
        base(), lr=lr, seed=seed, time_to_target=target, diverged_at=diverged, final=base().final | end,
        curve=Curve(time=[float(t) for t in range(len(losses))], loss=losses),
    )  # fmt: skip


def chosen(asked: TuneSettings, runs: dict[float, list[Run]]) -> float:
    """The best of these steps; no others are tried."""
    search = Search(asked, list(runs), SEEDS)
    for lr in runs:
        for each in runs[lr]:
            search.add(Trial(each.lr), each)
    search.runs = {lr: search.runs[lr] for lr in runs}
    return search.best.lr


def test_steps_are_judged_in_several_worlds_none_of_which_is_compared() -> None:
    runs = offbeat.compare(["adsgd"], lr="tuned", seeds=2, tune_grid=(0.01, 0.1), target=0.2, **QUICK).runs
    tuning = runs[0].tuning
    assert isinstance(tuning, Tuning) and runs[1].tuning == tuning
    assert tuning.seeds == (AWAY, AWAY + 1, AWAY + 2) and not {run.seed for run in runs} & {*tuning.seeds}
    assert len(tuning.steps) == 2 + 2 * ROUNDS and all(
        len(tried.values) == 3 for tried in tuning.steps.values()
    )
    stable = {lr: tried.median for lr, tried in tuning.steps.items() if not tried.unstable}
    assert stable[runs[0].lr] == min(time for time in stable.values() if time is not None)
    assert runs[0].digest == offbeat.simulate("adsgd", lr=runs[0].lr, target=0.2, **QUICK).digest


def test_a_step_that_was_lucky_with_one_seed_is_not_chosen() -> None:
    lucky = [run(1.0, seed, [2, 1], time) for seed, time in zip(SEEDS, (1.0, 80.0, 90.0), strict=True)]
    sound = [run(0.1, seed, [2, 1], time) for seed, time in zip(SEEDS, (20.0, 21.0, 22.0), strict=True)]
    late = [run(0.01, seed, [2, 1], time) for seed, time in zip(SEEDS, (30.0, None, 30.0), strict=True)]
    assert chosen(TuneSettings("target"), {1.0: lucky, 0.1: sound, 0.01: late}) == 0.1
    assert chosen(TuneSettings("target"), {1.0: lucky, 0.01: late}) == 0.01


def test_the_clock_stops_at_nine_tenths_of_the_way_down_to_the_smallest_final_loss() -> None:
    slow = [run(0.1, seed, [2.0, 1.6, 1.5, 1.4, 1.0]) for seed in SEEDS]
    quick = [run(1.0, seed, [2.0, 1.0, 0.9, 0.8, 1.1]) for seed in SEEDS]
    assert level({0.1: slow, 1.0: quick}) == pytest.approx(2.0 - 0.9 * 1.0)
    search = Search(TuneSettings("loss", (0.1, 1.0)), (0.1, 1.0), SEEDS)
    for each in [*slow, *quick]:
        search.add(Trial(each.lr), each)
    assert search.found.steps[0.1].values == pytest.approx((3.75,) * 3)
    assert search.found.steps[1.0].values == pytest.approx((0.9,) * 3)
    assert search.best.lr == 1.0 and search.found.level == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (run(1.0, 8, [2.0, math.nan]), "diverged"),
        (replace(run(1.0, 8, [2.0, 0.1]), error="no agent computes"), "stopped before its end"),
        (run(1.0, 8, [2.0, 0.1, 2.5]), "the loss rose"),
        (run(1.0, 8, [2.0, 0.1], accuracies=(0.9, 0.4)), "worst agent 40 %, average model 90 %"),
    ],
)
def test_a_step_that_is_not_stable_with_every_seed_is_taken_only_if_none_is(broken: Run, why: str) -> None:
    wild = [run(1.0, 7, [2.0, 0.1], 1.0), replace(broken, time_to_target=1.0), run(1.0, 9, [2.0, 0.1], 1.0)]
    calm = [run(0.1, seed, [2.0, 1.5], 50.0) for seed in SEEDS]
    assert unstable(broken) == why and not unstable(calm[0])
    for by in ("loss", "target", "final"):
        assert chosen(TuneSettings(by), {0.1: calm, 1.0: wild}) == 0.1
        assert chosen(TuneSettings(by), {1.0: wild}) == 1.0


def test_where_there_is_no_accuracy_the_worst_agents_loss_counts() -> None:
    calm, wild = offbeat.compare(["dsgd"], lr=[0.01, 20.0], **QUICK).runs
    assert calm.final["loss_worst"] is not None and calm.final["loss"] is not None
    assert calm.final["loss"] < calm.final["loss_worst"] < 2 * calm.curve.loss[0]
    assert not unstable(calm) and unstable(wild)
    assert unstable(replace(calm, final=calm.final | {"loss_worst": 2.1 * calm.curve.loss[0]}))


def test_steps_between_those_of_the_grid_are_tried_too() -> None:
    assert between([0.01, 0.1, 1.0], 0.1) == [0.0316, 0.316]
    assert between([0.01, 0.1, 1.0], 1.0) == [0.464, 0.215]
    assert between([0.01, 0.1, 1.0], 0.01) == [0.0215, 0.0464]
    assert between([0.1], 0.1) == []
    asked = TuneSettings("target", (0.01, 0.1, 1.0), 1)
    search, tried = Search(asked, asked.grid, [7]), [*asked.grid]
    more: list[float] | None = tried
    while more:
        told = [search.add(Trial(lr), run(lr, 7, [2, 1], abs(math.log(lr / 0.2)))) for lr in more]
        assert told[:-1] == [None] * (len(told) - 1)
        more = None if told[-1] is None else [each.lr for each in told[-1]]
        tried += more or []
    assert len(tried) == asked.most == 3 + 2 * ROUNDS
    assert search.best.lr == 0.178 and sorted(tried) == [*search.found.steps]


def test_what_every_step_gave_is_in_the_table_the_json_and_the_page(tmp_path: Path) -> None:
    words = (
        "compare --task quadratic --until 10 --eval-every 1 --algorithms adsgd,rfast --target 0.3 --lr tuned "
        f"--tune-by target --tune-grid 0.02,0.2 --tune-seeds 2 --show-tuning --json {tmp_path / 'r.json'} "
        f"--report {tmp_path / 'r.html'}"
    )
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 0, done.output
    for each in json.loads((tmp_path / "r.json").read_text())["runs"]:
        tuning = each["tuning"]
        assert (tuning["by"], tuning["level"], tuning["seeds"]) == ("target", None, [AWAY, AWAY + 1])
        assert tuning["grid"] == [0.02, 0.2] and len(tuning["steps"]) == 6
        one = tuning["steps"][f"{each['lr']:g}"]
        assert one["stable"] and one["smallest"] <= one["median"] <= one["largest"] <= 10
        assert f" {each['lr']:g} " in done.output
    assert done.output.count("chosen") == 2 and "over 2 seeds that are not compared" in done.output
    text = (tmp_path / "r.html").read_text("utf-8")
    assert text.count("<td>chosen</td>") == 2
    assert "--tune-by</span> target <span>--tune-grid</span> 0.02,0.2 <span>--tune-seeds</span> 2" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune_by": "loss"}, "'tune_by' says how learning rates are tuned, and none is"),
        ({"lr": "tuned", "tune_by": "los"}, "Unknown criterion of tuning 'los'. Did you mean 'loss'"),
        ({"lr": "tuned", "tune_grid": (0.1, -1)}, "different learning rates > 0; got .0.1, -1"),
        ({"lr": "tuned", "tune_grid": ()}, "different learning rates > 0"),
        ({"lr": "tuned", "tune_grid": "0.1"}, "different learning rates > 0; got .'0', '.', '1'"),
        ({"lr": "tuned", "tune_seeds": 0}, "one or more seeds; got 0"),
        ({"lr": "tuned", "tune_seeds": 1.5}, "one or more seeds; got 1.5"),
        ({"lr": {"": "tuned", "adsgd": 0.1}, "tune_seeds": 2}, "none is"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused_before_anything_runs(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        offbeat.plan(["adsgd"], **(QUICK | settings))


def test_without_a_target_nothing_is_tuned_by_it() -> None:
    task = offbeat.tasks.build("quadratic", 4, 0)
    with pytest.raises(SettingError, match="there is none; expected a target"):
        offbeat.plan(["adsgd"], task=task, topology="ring", until=5, lr="tuned", tune_by="target")
