"""Several worlds in one comparison."""

from pathlib import Path
from typing import Any

import pytest
from command_line import QUICK, Call, read

import offbeat
from offbeat.core.errors import SettingError
from offbeat.experiments.study import parse_over, study

SMALL: dict[str, Any] = {"task": "quadratic", "until": 10.0, "eval_every": 5.0}


def test_every_combination_is_what_it_is_alone() -> None:
    worlds: dict[str, list[Any]] = {"topology": ["ring", "complete"], "agents": [4, 6]}
    result = offbeat.compare(["adsgd", "dsgd"], over=worlds, seeds=2, **SMALL)
    assert len(result.runs) == 16
    assert {name: list(values) for name, values in result.differing.items()} == worlds
    alone = [
        run.digest
        for topology in worlds["topology"]
        for agents in worlds["agents"]
        for run in offbeat.compare(["adsgd", "dsgd"], topology=topology, agents=agents, seeds=2, **SMALL).runs
    ]
    assert [run.digest for run in result.runs] == alone


def test_learning_rates_are_tuned_in_each_world() -> None:
    tuned: dict[str, Any] = {"lr": "tuned", "tune_grid": [0.01, 0.1], "tune_seeds": 1}
    result = offbeat.compare("adsgd", over={"agents": [2, 12]}, **tuned, **SMALL)
    assert [run.tuning is not None for run in result.runs] == [True, True]
    alone = [offbeat.compare("adsgd", agents=n, **tuned, **SMALL).runs[0] for n in (2, 12)]
    assert [run.lr for run in result.runs] == [run.lr for run in alone]


def test_what_is_wrong_is_refused_before_anything_runs() -> None:
    for over, why in [
        ({"nothing": [1]}, "Unknown setting to compare over 'nothing'"),
        ({"topology": "ring"}, "expected a list of values"),
        ({"topology": []}, "expected a list of values"),
        ({"agents": [4, 4]}, "a value twice"),
        ({"agents": [4, 0]}, "at least one agent"),
        ({"agents": range(1, 10_000)}, "too many"),
        (
            {"metrics": ["gap", "disagreement"]},
            "metrics gap and metrics disagreement would give the same runs",
        ),
        ({"executor": ["batched", "event-by-event"]}, "executor changes nothing of what is run"),
        (
            {"agents": [4, 6], "skew": [0.0, 1.0]},
            "agents 4, skew 0.0 and agents 4, skew 1.0 would give the same",
        ),
    ]:
        with pytest.raises(SettingError, match=why):
            study("adsgd", over, **SMALL)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="is given, and compared over"):
        study("adsgd", {"agents": [4, 5]}, agents=6, **SMALL)


@pytest.mark.parametrize(
    "over", ["latency=0,0.2", "bandwidth=1,2", "loss=0,0.5", "compute=constant,exponential"]
)
def test_a_default_of_the_command_line_is_not_given(over: str, call: Call) -> None:
    words = ["compare", "--task", "quadratic", "--algorithms", "adsgd", "--until", "3", "--eval-every", "1"]
    assert call(*words, "--over", over, "--json", "a.json").code == 0
    name = over.partition("=")[0]
    assert len({str(run["settings"][name]) for run in read("a.json")["runs"]}) == 2


def test_the_command_line_says_it_in_words(call: Call) -> None:
    assert parse_over(["topology=ring,random-regular:4", "agents=4, 8"]) == {
        "topology": ["ring", "random-regular:4"],
        "agents": [4, 8],
    }
    assert parse_over(["speeds=1,1;1,2"])["speeds"] == ["1,1", "1,2"]
    for wrong in (["topology"], ["topology="], ["agents=4,x"], ["agents=4", "agents=5"], ["nope=1"]):
        with pytest.raises(SettingError):
            parse_over(wrong)
    words = (
        "compare",
        "--task",
        "quadratic",
        "--until",
        "5",
        "--over",
        "agents=4,6",
        "--algorithms",
        "adsgd",
    )
    assert call(*words, "--json", "a.json", "--traces", ".").code == 0
    assert [run["agents"] for run in read("a.json")["runs"]] == [4, 6]


def test_who_fails_costs_no_others_runs(call: Call) -> None:
    bad = "def on_gradient(self, g):\n        self.compute(self.x + 'a')"
    Path("mine.py").write_text(f"from offbeat import Agent\n\n\nclass Bad(Agent):\n    {bad}\n")
    outcome = call(*QUICK, "--algorithms", "adsgd,mine.py:Bad,dsgd", "--json", "a.json")
    assert outcome.code == 1 and "Error: Bad (agent 8), in on_gradient at time" in outcome.said
    assert [run["algorithm"] for run in read("a.json")["runs"]] == ["adsgd", "dsgd"]
    assert "Not all runs were made: these are those that were finished (adsgd 1 of 1, Bad 0" in outcome.out


def test_all_are_those_that_can_run_here(call: Call) -> None:
    words = ["compare", "--task", "quadratic", "--algorithms", "all", "--until", "2", "--json", "a.json"]
    outcome = call(*words, "--topology", "torus:4x4", "--eval-every", "1")
    assert "Left out: d2 diverges if its weights" in outcome.said
    assert {run["algorithm"] for run in read("a.json")["runs"]} == {*offbeat.ALGORITHMS} - {"d2"}


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('topology="a b,c.csv",ring', ["a b,c.csv", "ring"]),
        ('speeds="1,1,2","1,2,2"', ["1,1,2", "1,2,2"]),
        ("speeds=1,1,2;1,2,2", ["1,1,2", "1,2,2"]),
        ('topology="a;b.csv";"a,b.csv"', ["a;b.csv", "a,b.csv"]),
        ("per_agent=true,false", [True, False]),
    ],
)
def test_values_with_commas_stand_in_quotes(text: str, values: list[object]) -> None:
    assert parse_over([text]) == {text.partition("=")[0]: values}
