"""Several hyperparameters tuned together, by successive halving: what is tried, how long, who goes on."""

import json
import sys
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import Agent, Curve, Run, SettingError, Vector, mix
from offbeat.cli.commands import app
from offbeat.experiments.halving import ETA, HalvingSearch, drawn
from offbeat.experiments.space import parse_space, spelt
from offbeat.experiments.tuning import AWAY, Trial, outcome_of
from offbeat.results.again import command
from offbeat.results.headline import headline
from offbeat.results.trials import Halving

OWN = Path(__file__).parents[1] / "support" / "own_code" / "mine.py"
MINE = f"{OWN}:Mine"
QUICK: dict[str, Any] = {
    "task": "quadratic",
    "agents": 4,
    "topology": "ring",
    "until": 9.0,
    "eval_every": 1.0,
}
SMALL: dict[str, Any] = {"tune_budget": 2, "tune_seeds": 1} | QUICK


@dataclass(frozen=True)
class Model:
    x: Vector


@dataclass
class Scaled(Agent):
    """ADSGD whose gradients count `scale` times; `label` is no number."""

    scale: float = 1.0
    rounds: int = 3
    label: str = ""
    heard: dict[int, Vector] = field(init=False, default_factory=dict)

    def on_message(self, src: int, message: Any) -> None:
        self.heard[src] = message.x

    def on_gradient(self, g: Vector) -> None:
        self.x = mix(self.view.w, self.heard, own=self.x) - self.scale * self.rule(g)
        self.publish(self.view.listeners, Model(self.x))
        self.compute(self.x)


@cache
def base() -> Run:
    return offbeat.simulate("adsgd", task="digits", until=2.0)


def run(lr: float, seed: int, losses: list[float], accuracies: tuple[float, float] = (0.9, 0.8)) -> Run:
    """A run with this curve; accuracies: at the end, of average and worst model."""
    end: dict[str, float | None] = {
        "accuracy": accuracies[0],
        "accuracy_worst": accuracies[1],
        "loss": losses[-1],
    }
    curve = Curve(time=[float(t) for t in range(len(losses))], loss=losses)
    return replace(base(), lr=lr, seed=seed, final=base().final | end, curve=curve)


def halving(result: offbeat.Comparison, place: int = 0) -> Halving:
    tuning = result.runs[place].tuning
    assert isinstance(tuning, Halving)
    return tuning


def test_candidates_lie_within_their_ranges_and_spread_evenly() -> None:
    space = parse_space("lr=0.001:1:log, h=1:10:int,b=-1:1")
    assert spelt(space) == "lr=0.001:1:log,h=1:10:int,b=-1:1"
    found = drawn(space, 60, seed=3)
    assert found == drawn(space, 60, seed=3) != drawn(space, 60, seed=4)
    assert found[0] == {"lr": 0.0316, "h": 6, "b": 0.0}
    for each in found:
        assert 0.001 <= each["lr"] <= 1 and each["h"] in range(1, 11) and -1 <= each["b"] <= 1
        assert type(each["h"]) is int
    for decade in (0.001, 0.01, 0.1):
        assert 15 <= sum(decade <= each["lr"] < 10 * decade for each in found) <= 25
    assert {each["h"] for each in found} == {*range(1, 11)}


def test_a_third_goes_on_to_three_times_the_time_and_the_budget_is_kept() -> None:
    for budget, seeds, sizes in ((30, 3, (30, 10, 3)), (6, 3, (3, 1)), (12, 1, (36, 12, 4))):
        plan = offbeat.plan(["adsgd"], tune="lr=0.01:1:log", tune_budget=budget, tune_seeds=seeds, **QUICK)
        ladder = plan.ladders[0]
        assert ladder is not None and ladder.sizes == sizes
        assert ladder.rungs == tuple(9.0 / ETA**k for k in reversed(range(len(sizes))))
        cost = seeds * sum(size * until / 9.0 for size, until in zip(sizes, ladder.rungs, strict=True))
        assert cost <= budget and plan.count == seeds * sum(sizes) + 1


def test_the_best_go_on_and_the_best_of_the_last_rung_is_chosen() -> None:
    plan = offbeat.plan(["adsgd"], tune="lr=0.01:1:log", tune_by="final", **SMALL | {"tune_budget": 9})
    ladder = plan.ladders[0]
    assert ladder is not None and ladder.sizes == (27, 9, 3)
    search = HalvingSearch(ladder, [5])
    first = search.first
    assert {each.until for each in first} == {1.0} and len(first) == 27
    told: list[Trial] | None = []
    for k, each in enumerate(first):
        told = search.add(each, run(each.lr, 5, [2.0, 1.0 + 0.01 * ((k * 10) % 27)]))
        assert (told is None) == (k < 26)
    assert told is not None and {each.until for each in told} == {3.0}
    goes_on = {replace(first[k], until=3.0) for k in range(27) if (k * 10) % 27 < 9}
    drawn_first = [each.lr for each in first]
    assert {*told} == goes_on and told == sorted(told, key=lambda each: drawn_first.index(each.lr))
    for k, each in enumerate(second := told):
        told = search.add(each, run(each.lr, 5, [2.0, 3.0 if k < 4 else 1.0 + k / 100]))
    assert told == [replace(each, until=None) for each in second[4:7]]
    for each, loss in zip(third := told, (0.5, 0.4, 0.45), strict=True):
        told = search.add(each, run(each.lr, 5, [2.0, loss]))
    assert told == [] and search.best == third[1]
    assert search.found.best.params == {"lr": third[1].lr} and search.found.left == [27, 9, 3]


def test_half_of_those_that_go_on_are_stable_the_others_may_become_so() -> None:
    budget = SMALL | {"tune_budget": 6}
    ladder = offbeat.plan(["adsgd"], tune="lr=0.01:1:log", tune_by="final", **budget).ladders[0]
    assert ladder is not None and ladder.sizes == (18, 6, 2)
    search, told = HalvingSearch(ladder, [5]), None
    for k, each in enumerate(first := search.first):
        worst = 0.1 if k < 9 else 0.8  # the better half is not stable, for its worst agent has hardly begun
        told = search.add(each, run(each.lr, 5, [2.0, 1.0 + k / 100], accuracies=(0.9, worst)))
    assert told == [replace(first[k], until=3.0) for k in (0, 1, 2, 9, 10, 11)]
    for each in told:
        last = search.add(each, run(each.lr, 5, [2.0, 1.0 + told.index(each) / 100], accuracies=(0.9, 0.1)))
    assert last == [replace(each, until=None) for each in told[:2]]
    for each in last:
        search.add(each, run(each.lr, 5, [2.0, 0.5], accuracies=(0.9, 0.1)))
    assert search.best.lr == first[0].lr
    assert search.found.best.tried.unstable == "worst agent 10 %, average model 90 %"


def test_what_is_run_is_what_was_found_and_runs_again_alone() -> None:
    result = offbeat.compare([MINE, "rfast"], tune="lr=0.05:1:log,h=0.5:4", seeds=2, **SMALL)
    mine, rfast = halving(result), halving(result, 2)
    assert mine.seeds == (AWAY,) and mine.left == [3, 1] and mine.rungs == (3.0, 9.0)
    assert {*mine.best.params} == {"lr", "h"} and {*rfast.best.params} == {"lr"}
    first = result.runs[0]
    assert first.algorithm == "Mine" and first.lr == mine.best.params["lr"]
    assert first.settings["algorithm"] == f"{OWN}:Mine(h={mine.best.params['h']!r})"
    again = offbeat.simulate(first.settings["algorithm"], lr=first.lr, **QUICK)
    assert again.digest == first.digest
    assert all(0.2 <= each.params["lr"] <= 4 for each in rfast.candidates)  # n times the range


def test_a_run_to_a_rungs_end_is_the_beginning_of_the_whole_one() -> None:
    found = halving(offbeat.compare([Scaled], tune="lr=0.1:0.5,scale=0.5:2", tune_by="final", **SMALL))
    losers = [each for each in found.candidates if each.until == 3.0]
    for each in losers:
        one = Scaled(scale=each.params["scale"])
        alone = offbeat.simulate(one, lr=each.params["lr"], seed=AWAY, **QUICK | {"until": 3.0})
        assert each.tried.loss == alone.final["loss"]


def test_numbers_alone_may_be_tuned_at_a_given_learning_rate() -> None:
    result = offbeat.compare([Scaled, "adsgd"], lr=0.2, tune="rounds=1:3:int", **SMALL)
    assert {each.params["rounds"] for each in halving(result).candidates} <= {1, 2, 3}
    assert halving(result).candidates[0].params == {"rounds": 2}
    assert [each.lr for each in result.runs] == [0.2, 0.2] and result.runs[1].tuning is None


def test_what_the_optimizer_takes_is_tuned_with_the_learning_rate(tmp_path: Path) -> None:
    """Runs say by which optimizer they stepped, and are of one world all the same. EASGD has a momentum."""
    common: dict[str, Any] = {"schedule": "cosine", "tune_by": "final", **SMALL}
    result = offbeat.compare("adsgd,dsgd,easgd", tune="lr=0.05:0.5:log,momentum=0.3:0.9", **common)
    result.save_json(tmp_path / "a.json")
    for found in (result, offbeat.load(tmp_path / "a.json")):
        assert not found.differing and "optimizer" not in headline(found)
        words = command(found)[0]
        assert "--tune lr=0.05:0.5:log,momentum=0.3:0.9" in words and "--optimizer" not in words
        assert "--algorithms adsgd,dsgd,easgd " in words
    for place, run in enumerate(result.runs):
        best, ours = halving(result, place).best.params["momentum"], run.algorithm == "easgd"
        assert run.settings["optimizer"] == ("sgd" if ours else f"momentum:{best!r}")
        name = run.settings["algorithm"]
        assert name == (f"easgd:momentum={best!r}" if ours else run.algorithm)
        again: dict[str, Any] = {"lr": run.lr, "optimizer": run.settings["optimizer"], "schedule": "cosine"}
        assert offbeat.simulate(name, **again, **QUICK).digest == run.digest
    loser = next(each for each in halving(result).candidates if each.until == 3.0)
    early: dict[str, Any] = {
        "lr": loser.params["lr"],
        "optimizer": f"momentum:{loser.params['momentum']!r}",
        "seed": AWAY,
    }
    alone = offbeat.simulate("adsgd", schedule="cosine:9", **early, **QUICK | {"until": 3.0})
    assert loser.tried.loss == alone.final["loss"], "a rung has the beginning of the whole run's schedule"
    decay = offbeat.compare("dsgd", tune="weight_decay=0.1:0.5", optimizer="adamw", **SMALL).runs[0]
    assert decay.settings["optimizer"].startswith("adamw:weight_decay=0.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune": "lr"}, "Cannot read 'lr' in --tune; expected ranges by name"),
        ({"tune": ""}, "Cannot read tune = ''"),
        ({"tune": 3}, "Cannot read tune = 3"),
        ({"tune": "lr=1"}, "Cannot read the range '1' of lr"),
        ({"tune": "lr=0.1:1:lag"}, "Cannot read the range '0.1:1:lag' of lr"),
        ({"tune": "lr=1:0.1"}, "the smaller one first"),
        ({"tune": "lr=0.1:inf"}, "two finite numbers"),
        ({"tune": "lr=0:1:log"}, "a learning rate is > 0; got 0"),
        ({"tune": "lr=1:3:int"}, "a learning rate is no whole number"),
        ({"tune": "scale=-1:1:log"}, "both ends are > 0; got -1"),
        ({"tune": "rounds=1:2.5:int"}, "whole numbers at both ends"),
        ({"tune": "rounds=1:3"}, "'rounds' of Scaled is declared a whole number"),
        ({"tune": "lr=0.1:1,lr=1:2"}, "gives 'lr' twice"),
        ({"tune": "lr=0.1:1,scal=1:2"}, "Unknown hyperparameter to tune 'scal'. Did you mean 'scale'"),
        ({"tune": "label=1:2"}, "Unknown hyperparameter to tune 'label'"),
        ({"tune": "batch=1:2:int"}, "same simulated time whatever its batch.*expected --over batch="),
        ({"tune": "reg=1:2"}, "part of the objective.*expected --over reg="),
        ({"tune": "until=1:2"}, "the same for all algorithms.*expected --over until="),
        ({"tune": "momentum=0.5:1.5"}, "momentum of sgd takes .*at least 0, below 1, .*; got '1.5'"),
        ({"tune": "momentum=0:1"}, "below 1, .*; got '1.0'"),
        ({"tune": "momentum=0:0.9", "optimizer": "momentum:0.5"}, "optimizer is given, 0.5, and tuned"),
        ({"tune": "weight_decay=0:0.1"}, "'weight_decay' is of adamw; expected --optimizer adamw with it"),
        ({"tune": "lr=0.1:1", "lr": 0.3}, "The learning rate is tuned, and given as 0.3"),
        ({"tune": "scale=0.1:1", "lr": [0.3, 0.1]}, "so that one learning rate was expected"),
        ({"tune": "scale=0.1:1", "lr": "tuned"}, "so that one learning rate was expected"),
        ({"tune": "lr=0.1:1", "tune_grid": (0.1,)}, "'tune_grid' is for lr = 'tuned'"),
        ({"tune": "lr=0.1:1", "tune_budget": 5}, "too small to tune with 3 seeds; expected at least 6"),
        ({"tune": "lr=0.1:1", "tune_budget": float("nan")}, "'tune_budget' must be finite"),
        ({"tune_budget": 30}, "'tune_budget' says how much is tried of what 'tune' names"),
        ({"tune": "lr=0.1:1", "stop_at": "target"}, "tuned by 'loss', for which runs have to go on"),
    ],
)
def test_what_cannot_be_tuned_is_refused_before_anything_runs(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message.replace("(", r"\(")):
        offbeat.plan([Scaled], **QUICK | settings)


def test_an_option_is_given_or_tuned() -> None:
    for name, why in (("adsgd:theta=0.5", "'theta' of adsgd:theta=0.5 is given, 0.5, and tuned"),):
        with pytest.raises(SettingError, match=why):
            offbeat.plan(name, tune="theta=0.1:1", **QUICK)
    assert offbeat.plan("adsgd", tune="theta=0.1:1", **QUICK).ladders[0] is not None


def test_ranges_may_be_said_one_by_one() -> None:
    one = offbeat.plan([Scaled], tune=["lr=0.1:1", "scale=1:2"], **SMALL)
    assert one.ladders == offbeat.plan([Scaled], tune="lr=0.1:1,scale=1:2", **SMALL).ladders
    done = CliRunner().invoke(
        app, ["compare", "--task", "quadratic", "--tune", "lr=0.1:1", "--tune", "lr=1:2"]
    )
    assert done.exit_code != 0 and "gives 'lr' twice" in f"{done.exception} {done.output}"


def test_without_optuna_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(SettingError, match=r"pip install 'offbeat\[tune\]'"):
        offbeat.plan(["adsgd"], tune="lr=0.1:1", **QUICK)


def test_what_was_tried_is_said_before_in_the_table_the_file_and_on_the_page(tmp_path: Path) -> None:
    words = (
        f"compare --task quadratic --agents 4 --topology ring --until 9 --eval-every 1 "
        f"--algorithms adsgd,{MINE} --seeds 2 --tune lr=0.05:1:log,h=0.5:4 --tune-budget 6 --tune-seeds 2 "
        f"--tune-by final --show-tuning --workers 1 "
        f"--json {tmp_path / 'r.json'} --report {tmp_path / 'r.html'}"
    )
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 0, done.output
    flat = " ".join(done.output.split())
    assert (
        "budget of 6 whole runs for each, over 2 other seeds. adsgd: lr, candidates: 9 until time 1" in flat
    )
    assert "Mine: lr and h, candidates: 9 until time 1, 3 until time 3, 1 until time 9." in flat
    assert "the best 1 until 9" in flat and done.output.count("chosen") == 2
    record = json.loads((tmp_path / "r.json").read_text())["runs"][2]
    tuning = record["tuning"]
    assert (tuning["by"], tuning["budget"], tuning["seeds"]) == ("final", 6, [AWAY, AWAY + 1])
    assert tuning["space"] == "lr=0.05:1:log,h=0.5:4" and len(tuning["candidates"]) == 9
    assert record["lr"] == tuning["candidates"][tuning["chosen"]]["params"]["lr"]
    page = (tmp_path / "r.html").read_text("utf-8")
    assert page.count("<td>chosen</td>") == 2
    assert f"adsgd,{OWN}:Mine <span>" in page and "--lr</span>" not in page
    assert "--tune</span> lr=0.05:1:log,h=0.5:4 <span>--tune-budget</span> 6" in page
    loaded = offbeat.load(tmp_path / "r.json")
    assert halving(loaded, 2).best.params == tuning["candidates"][tuning["chosen"]]["params"]
    assert json.loads(json.dumps(halving(loaded, 2).record())) == tuning


def test_of_a_run_that_ended_at_its_target_no_agent_is_asked_whether_it_is_stable_yet() -> None:
    ends = {"target": "accuracy=0.5", "stop_at": "target"}
    ended = replace(base(), settings=base().settings | ends, time_to_target=1.0)
    worst = replace(ended, final=ended.final | {"accuracy": 0.9, "accuracy_worst": 0.1, "loss": 1.0})
    curve = Curve(time=[0.0, 1.0], loss=[2.0, 1.0])
    assert outcome_of([replace(worst, curve=curve)], "target", None).unstable == ""
    late = replace(worst, curve=curve, time_to_target=None)
    assert "worst agent 10 %" in outcome_of([late], "target", None).unstable
    assert outcome_of([replace(worst, curve=curve, diverged_at=1.0)], "target", None).unstable == "diverged"


def test_every_world_is_tuned_for_itself() -> None:
    result = offbeat.compare(["adsgd"], over={"case": ["base", "slow-comm"]}, tune="lr=0.05:1:log", **SMALL)
    one, other = halving(result), halving(result, 1)
    assert [each.params for each in one.candidates] == [each.params for each in other.candidates]
    assert [each.tried for each in one.candidates] != [each.tried for each in other.candidates]
    first, second = result.runs
    several = str(offbeat.Comparison([first, replace(second, lr=0.3)]))
    assert f"(tuned): adsgd {first.lr:g} (case base), adsgd 0.3 (case slow-comm)." in several
    assert f"(tuned): adsgd {first.lr:g}." in str(offbeat.Comparison([first, replace(second, lr=first.lr)]))
