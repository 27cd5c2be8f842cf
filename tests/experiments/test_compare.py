"""`simulate` and `compare` from Python: settings, results, a user's own algorithm and module."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from runs import models, quadratic, started
from torch import nn
from user_scripts import example

import offbeat
from offbeat import Delay, ModuleTask, SettingError, World

QUICK: dict[str, Any] = {"task": "quadratic", "until": 30.0, "case": "combined", "check": True}
RARELY = QUICK | {"eval_every": 10.0}
"""The same runs, seldom evaluated."""


@pytest.mark.usefixtures("usually_evaluated")
def test_all_algorithms_run_and_the_table_names_them() -> None:
    result = offbeat.compare(["adsgd", "adpsgd:atomic", "rfast", "dsgd:after", "allreduce"], **QUICK)
    text = str(result)
    for run in result.runs:
        assert run.algorithm in text
        assert len(run.curve.time) == 201
        assert run.curve.time[-1] == 30.0
        assert run.updates == run.curve.updates[-1] > 0
        assert np.diff(run.curve.megabytes).min() >= 0
    assert "agent 4, 10 times slower" in text
    assert result.runs[2].lr == pytest.approx(0.09)


def test_a_seed_is_the_same_alone_or_beside_others() -> None:
    several = offbeat.compare(["adsgd", "rfast"], seeds=3, **RARELY)
    alone = offbeat.simulate("rfast", seed=2, **RARELY)
    assert alone.digest in {run.digest for run in several.runs}
    assert len({run.digest for run in several.runs}) == 6
    assert [run.trace is not None for run in several.runs] == [True, False, False] * 2


def test_the_digest_sees_the_models_and_the_schedule() -> None:
    base = offbeat.simulate("adsgd", **RARELY)
    assert offbeat.simulate("adsgd", **RARELY).digest == base.digest
    for change in ({"lr": 0.011}, {"seed": 1}, {"slowdown": 9.0}, {"compute": "gamma 0.3"}, {"loss": 0.01}):
        assert offbeat.simulate("adsgd", **(RARELY | change)).digest != base.digest
    assert offbeat.simulate("adsgd", executor="event-by-event", **RARELY).digest == base.digest


def test_steps_for_all_for_one_and_several() -> None:
    runs = offbeat.compare(["adsgd", "rfast"], lr={"": [0.01, 0.02], "rfast": 0.05}, **RARELY).runs
    assert [(run.algorithm, run.lr) for run in runs] == [("adsgd", 0.01), ("adsgd", 0.02), ("rfast", 0.05)]
    comparison = offbeat.Comparison(runs)
    assert [comparison.label(key) for key in comparison.groups()] == [
        "adsgd lr=0.01",
        "adsgd lr=0.02",
        "rfast",
    ]


def test_a_diverging_algorithm_is_reported_and_the_others_finish() -> None:
    result = offbeat.compare(["adsgd", "dsgd"], lr={"adsgd": 1e9}, **RARELY)
    diverged, fine = result.runs
    assert diverged.diverged_at is not None
    assert diverged.time_to_target is None
    assert fine.diverged_at is None
    assert "diverged" in str(result)
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert record["runs"][0]["final"]["loss"] is None


def test_time_to_target_is_interpolated_between_two_evaluations() -> None:
    settings: dict[str, Any] = {"target": 0.3, "lr": 0.05, **(QUICK | {"until": 200.0, "check": False})}
    coarse, fine = (offbeat.simulate("adsgd", eval_every=every, **settings) for every in (8.0, 2.0))
    assert coarse.time_to_target is not None and fine.time_to_target is not None
    k = next(k for k, loss in enumerate(coarse.curve.loss) if loss <= 0.3)
    assert coarse.curve.time[k - 1] < coarse.time_to_target < coarse.curve.time[k]
    assert coarse.time_to_target == np.interp(
        -0.3, -np.array(coarse.curve.loss[k - 1 : k + 1]), [8.0 * k - 8, 8.0 * k]
    )
    assert abs(coarse.time_to_target - fine.time_to_target) < 4.0


def test_a_crossing_is_the_first_one_and_needs_numbers_on_both_sides() -> None:
    curve = offbeat.Curve(
        time=[0, 10, 20, 30, 40], accuracy=[0.1, 0.5, 0.4, 0.6, 0.9], loss=[9, math.nan, 1, 2, 0.5]
    )
    assert curve.crossing("accuracy", 0.45) == pytest.approx(8.75)
    assert curve.crossing("accuracy", 0.55) == pytest.approx(27.5)
    assert curve.crossing("accuracy", 0.6) == 30
    assert (curve.crossing("accuracy", 0.05), curve.crossing("accuracy", 0.95)) == (0, None)
    assert curve.crossing("loss", 1.5) == 20
    assert curve.crossing("loss", 0.75) == pytest.approx(30 + 10 * 1.25 / 1.5)


def test_a_curve_carries_further_metrics_beside_its_own() -> None:
    made = offbeat.simulate("adsgd", **QUICK)
    assert made.curve.names() == ["loss", "consensus", "to_optimum", "to_limit"]
    plain = replace(made, curve=replace(made.curve, more={}))
    assert (plain.curve.of("time"), plain.curve.of("accuracy")) == (plain.curve.time, [])
    with pytest.raises(SettingError, match=r"Unknown metric 'los'.*Did you mean 'loss'"):
        plain.curve.of("los")
    halves = [loss / 2 for loss in plain.curve.loss]
    run = replace(plain, curve=replace(plain.curve, more={"half": halves}))
    assert run.curve.names() == ["loss", "consensus", "half"]
    assert run.curve.of("half") == run.record()["curve"]["half"] == halves
    assert list(plain.record()["curve"]) == ["time", "updates", "megabytes", "loss", "accuracy", "consensus"]
    assert list(run.to_frame()["half"]) == halves
    assert run.curve.crossing("half", plain.curve.loss[0] / 4) == run.curve.crossing(
        "loss", plain.curve.loss[0] / 2
    )


def test_runs_of_different_worlds_are_apart() -> None:
    quick = QUICK | {"until": 2.0, "eval_every": 0.5}
    one = offbeat.simulate("adsgd", **quick)
    for other, named in (
        ({"topology": "ring"}, {"topology": ["grid", "ring"]}),
        ({"until": 3.0, "eval_every": 1.0}, {"until": [2.0, 3.0], "eval_every": [0.5, 1.0]}),
        ({"slowdown": 5.0, "loss": 0.1}, {"slowdown": [10.0, 5.0], "loss": [0.0, 0.1]}),
        ({"case": "base"}, {"case": ["combined", "base"]}),  # from which follows that none is slow
        ({"compute": "gamma 0.25"}, {}),
        ({"crash": "agent 3 at 1"}, {"crash": [(), ("agent 3 at 1",)]}),
        ({"optimizer": offbeat.Momentum}, {"optimizer": ["sgd", "momentum"]}),
        ({"straggler": 2}, {"straggler": [(4,), (2,)]}),
    ):
        another = offbeat.simulate("adsgd", seed=1, **(quick | other))
        both = offbeat.Comparison([one, another])
        assert both.differing == named
        assert len(both.groups()) == 2 - (not named)
    usual = [offbeat.simulate("adsgd", **QUICK | {"until": until}) for until in (2.0, 3.0)]
    assert offbeat.Comparison(usual).differing == {"until": [2.0, 3.0]}  # from which follows how often
    with pytest.raises(SettingError, match=r"adsgd with lr 0\.01 and seed 0 is there twice"):
        offbeat.Comparison([one, one])
    graphs = [offbeat.with_weights(nx.path_graph(2), np.array([[w, 1 - w], [1 - w, w]])) for w in (0.5, 0.6)]
    runs = [
        offbeat.simulate(name, topology=graphs[k], task="quadratic", until=2)
        for k, name in enumerate(["adsgd", "dsgd"])
    ]
    with pytest.raises(SettingError, match="graphs differ though the seed is the same, 0, and so is"):
        offbeat.Comparison(runs)


def test_runs_of_one_world_may_come_from_several_comparisons() -> None:
    settings: dict[str, Any] = QUICK | {"until": 2.0, "topology": "erdos-renyi:0.4", "agents": 12}
    both = [offbeat.compare([name], seeds=3, **settings) for name in ("adsgd", "dsgd")]
    other = offbeat.simulate("adsgd", seed=5, executor="event-by-event", **settings)
    merged = offbeat.Comparison([*both[0].runs, *both[1].runs, other])
    assert [len(runs) for runs in merged.groups().values()] == [4, 3]
    assert len({tuple(run.settings["straggler"]) for run in merged.runs}) > 1


def test_evaluations_end_at_the_end() -> None:
    times = offbeat.simulate("adsgd", eval_every=0.7, **(QUICK | {"until": 2.0})).curve.time
    assert times == pytest.approx([0, 0.7, 1.4, 2.0])


def test_consensus_error_is_the_root_mean_square_distance_from_the_mean() -> None:
    run = offbeat.simulate("adsgd", **RARELY)
    x = run.models[0].numpy()
    expected = math.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
    assert run.final["consensus"] == pytest.approx(expected, rel=1e-12)


def test_frames_and_plots(tmp_path: Path) -> None:
    result = offbeat.compare(["adsgd", "dsgd"], seeds=2, **RARELY)
    frame = result.to_frame()
    assert len(frame) == 4 * 4
    assert {"algorithm", "seed", "time", "loss", "updates"} <= set(frame.columns)
    assert len(result.plot().data) >= 2
    assert len(result.runs[0].plot().data) >= 1
    result.save_json(tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["offbeat"] == offbeat.__version__


def test_adsgd_reaches_the_target_on_mnist_and_adpsgd_is_biased(real_data: Path) -> None:
    """A shorter run of the main experiment: by time 1500 ADSGD is clearly ahead of the biased AD-PSGD."""
    result = offbeat.compare(
        ["adsgd", "adpsgd"],
        task="mnist",
        case="combined",
        data=real_data,
        until=1500,
        target=0.8,
        eval_every=500,
    )
    adsgd, adpsgd = result.runs
    assert adsgd.final["accuracy"] is not None
    assert adpsgd.final["accuracy"] is not None
    assert adsgd.time_to_target is not None
    assert adsgd.final["accuracy"] > adpsgd.final["accuracy"] + 0.1


# -- what a user brings ----------------------------------------------------------------------------


def test_a_users_own_algorithm_runs_beside_ours() -> None:
    own = example("memory_efficient").MemoryEfficientADSGD
    result = offbeat.compare(["adsgd", own], **RARELY)
    assert [run.algorithm for run in result.runs] == ["adsgd", "MemoryEfficientADSGD"]


@pytest.mark.parametrize("quick", [True, False])
def test_algorithm_3_is_algorithm_2(quick: bool) -> None:
    """Whether links are so fast that no difference waits, or so slow that several are summed."""
    own = example("memory_efficient").MemoryEfficientADSGD
    world = World(
        seed=3, slow_compute={4: 10.0}, communication=Delay("lognormal", mean=0.01 if quick else 3.0)
    )
    sims = [started(algorithm, quadratic(), world, check=False) for algorithm in ("adsgd", own)]
    for agent in sims[0].agents:  # y starts from everybody's initial model; so do the buffers here
        agent.heard = dict.fromkeys(agent.view.listeners, agent.x)  # type: ignore[attr-defined]
    for sim in sims:
        sim.run(100)
    assert models(sims[1]) == pytest.approx(models(sims[0]), abs=1e-12)


def test_a_users_own_module_runs_in_compare() -> None:
    task = example("own_module").task()
    result = offbeat.compare(["adsgd", "rfast"], task=task, case="combined", lr=0.1, until=6, eval_every=3)
    for run in result.runs:
        assert run.settings["task"] == "digits-cnn"
        assert run.final["accuracy"] is not None
        assert run.curve.loss[-1] < run.curve.loss[0]


def test_a_users_own_graph_and_weights() -> None:
    run = offbeat.simulate("adsgd", topology=nx.petersen_graph(), **RARELY)
    assert run.settings["agents"] == 10
    graph = nx.cycle_graph(4)
    w = np.array([[0.6, 0.2, 0, 0.2], [0.2, 0.6, 0.2, 0], [0, 0.2, 0.6, 0.2], [0.2, 0, 0.2, 0.6]])
    assert offbeat.simulate("adsgd", topology=offbeat.with_weights(graph, w), **RARELY).updates > 0
    with pytest.raises(SettingError, match=r"numbers of agents differ.*agents has 9.*topology has 10"):
        offbeat.simulate("adsgd", topology=nx.petersen_graph(), agents=9, **QUICK)
    directed = offbeat.simulate("rfast", topology=nx.cycle_graph(5, create_using=nx.DiGraph), **RARELY)
    assert directed.updates > 0


def test_a_published_algorithm_is_refused_on_a_graph_that_it_is_not_for() -> None:
    directed = nx.cycle_graph(5, create_using=nx.DiGraph)
    uneven = offbeat.with_weights(nx.path_graph(2), np.array([[0.5, 0.5], [0.25, 0.75]]))
    for algorithm, topology, message in (
        ("adsgd", directed, "undirected"),
        ("adpsgd", directed, "undirected"),
        ("dsgd:after", uneven, "symmetric"),
    ):
        with pytest.raises(SettingError, match=message):
            offbeat.simulate(algorithm, topology=topology, **QUICK)
    offbeat.simulate("adpsgd", topology=uneven, **RARELY)
    offbeat.simulate(offbeat.ADSGD(), topology=uneven, **RARELY)  # of one's own: anything goes


def test_momentum_is_a_rule_for_every_algorithm() -> None:
    plain = offbeat.simulate("adsgd", **RARELY)
    heavy = offbeat.simulate("adsgd", optimizer="momentum", **RARELY)
    assert heavy.curve.loss[-1] < plain.curve.loss[-1]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), "running statistics"),
        (nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5)), "global random stream"),
    ],
)
def test_modules_with_hidden_state_are_refused(module: nn.Module, message: str) -> None:
    x, y = torch.randn(20, 4), torch.randint(4, (20,))
    with pytest.raises(SettingError, match=message):
        ModuleTask(module, nn.functional.cross_entropy, (x, y), agents=2)


def test_a_module_with_two_dtypes_and_tied_weights_is_two_parts() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight
            self.c = nn.Linear(4, 1, dtype=torch.float64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.c(self.b(torch.tanh(self.a(x))).double()).squeeze(-1)
            return out

    torch.manual_seed(0)
    x = torch.randn(90, 4)
    task = ModuleTask(Mixed(), nn.functional.mse_loss, (x, x.sum(1).double()), agents=9, batch=4)
    assert [(p.dtype, p.numel()) for p in task.initial()] == [(torch.float32, 16), (torch.float64, 5)]
    for algorithm in ("adsgd", "rfast", "allreduce", "adpsgd"):
        run = offbeat.simulate(algorithm, task=task, until=8, eval_every=4, lr=0.02, check=True)
        assert run.measure == "loss"
        assert run.curve.loss[-1] < run.curve.loss[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tsk": "digits"}, "Unknown setting 'tsk'. Did you mean 'task'"),
        ({"lr": "tunde"}, "or 'tuned'"),
        ({"lr": {"rfast": 0.1}}, "not compared"),
        ({"lr": float("nan")}, "finite number > 0"),
        ({"seeds": 0}, "at least one seed"),
        ({"seed": 1.5}, "'seed' must be a whole number; got 1.5"),
        ({"until": "long"}, "'until' must be a number; got 'long'"),
        ({"compute": 3}, "text like 'gamma 0.25'"),
        ({"crash": "agent 12 at 4"}, "no agent 12"),
        ({"until": 0}, "finite time > 0"),
        ({"eval_every": -1}, "time between evaluations"),
        ({"straggler": 9, "case": "combined"}, "no agent 9"),
        ({"crash": ("agent 12 at 4",)}, "no agent 12"),
        ({"crash": ("agent 1 at 4", "agent 1 at 5")}, "it is down then"),
        ({"skew": 1.5, "task": "digits"}, "1.5"),
        ({"loss": 1.0}, r"in \[0, 1\)"),
        ({"topology": nx.Graph([(0, 1), (2, 3)])}, "not connected"),
    ],
)
def test_settings_that_make_no_sense_are_refused_before_anything_runs(
    settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SettingError, match=message):
        offbeat.plan(["adsgd"], **(QUICK | settings))


def test_the_table_names_the_form_of_each_algorithm() -> None:
    """Of those that have several; an algorithm of the user's is not told what ours does."""

    class DSGD(offbeat.ADSGD):
        """The user's own, of the same name."""

    said = " ".join(
        str(offbeat.compare(["adsgd", "adpsgd:wait", "dsgd:after"], **QUICK | {"until": 2})).split()
    )
    form = (
        "adpsgd:wait computes, then averages and waits for the answer; "
        "dsgd:after computes, then sends its model."
    )
    assert form in said
    assert "sends its model" not in str(offbeat.compare([DSGD()], **QUICK | {"until": 2}))
