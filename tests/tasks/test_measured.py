"""Metrics that are asked for: each by its formula, of the model that is judged, whoever evaluates."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from command_line import QUICK, Call, read
from torch import nn
from torch.nn.functional import cross_entropy

import offbeat
from offbeat import ModuleTask, Quadratic, SettingError
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import sweep
from offbeat.experiments.sweep.store import COLUMNS
from offbeat.tasks.logistic import Logistic
from offbeat.tasks.metrics import METRICS, Metric
from offbeat.tasks.metrics.evaluation import JUDGED, Evaluation

SMALL: dict[str, Any] = {"task": "quadratic", "until": 10.0, "eval_every": 2.0}
ALL = ("gradient_norm", "gap", "disagreement")


def digits(**more: Any) -> Logistic:
    task = prepare(Experiment(task="digits", agents=3, topology="ring", reg=0.01, **more), 0).task
    assert isinstance(task, Logistic)
    return task


def some(task: Any, m: int = 2) -> tuple[torch.Tensor, ...]:
    source = torch.Generator().manual_seed(1)
    return tuple(torch.randn((m, *part.shape), generator=source, dtype=part.dtype) for part in task.initial())


# -- formulas --------------------------------------------------------------------------------------


def test_the_full_gradient_is_that_of_the_loss() -> None:
    """By central differences along random directions, in the precision that the loss has."""
    x, y = torch.randn(300, 4, dtype=torch.float64), torch.randint(3, (300,))
    module = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    rng = np.random.default_rng(0)
    quadratic = Quadratic(rng.normal(size=(4, 3)), rng.uniform(0.5, 2.0, 4))
    for task, step, within in (
        (quadratic, 1e-6, 1e-8),
        (ModuleTask(module, cross_entropy, (x, y), agents=2, reg=0.1), 1e-6, 1e-8),
        (ModuleTask(module, cross_entropy, (x, y), partition="quantity:0.5", agents=3), 1e-6, 1e-8),
        (digits(), 1e-2, 2e-3),
        (digits(partition="quantity:0.5"), 1e-2, 2e-3),
    ):
        models, towards = some(task), torch.randn(task.initial()[0].shape, dtype=task.initial()[0].dtype)
        (found,) = task.full_gradients(models)
        ahead, behind = (task.losses((models[0] + sign * step * towards,)) for sign in (1, -1))
        slopes = (ahead - behind) / (2 * step)
        assert found.shape == models[0].shape
        assert (found.double() @ towards.double()).numpy() == pytest.approx(slopes, rel=within, abs=within)


def test_the_full_gradient_of_softmax_regression_does_not_depend_on_what_lies_beside_it() -> None:
    task, models = digits(), some(digits(), 3)
    (together,) = task.full_gradients(models)
    for row in range(3):
        (alone,) = task.full_gradients((models[0][row : row + 1],))
        assert torch.equal(alone[0], together[row])


def test_test_losses_leave_the_regulariser_out() -> None:
    task, models = digits(), some(digits())
    data, c = task.data, task.data.classes
    w = models[0][:, :-c].view(2, c, -1)
    logits = data.test_x.double() @ w.double().transpose(1, 2) + models[0][:, None, -c:].double()
    wanted = [float(cross_entropy(each, data.test_y)) for each in logits]
    assert task.test_losses(models) == pytest.approx(wanted, rel=1e-5)
    x, y = torch.randn(30, 4), torch.randint(3, (30,))
    kwargs: dict[str, Any] = {"agents": 2, "reg": 0.5}
    module = ModuleTask(nn.Linear(4, 3), cross_entropy, (x, y), (x, y), **kwargs)
    bare = ModuleTask(module.module, cross_entropy, (x, y), agents=2)
    assert module.test_losses is not None and bare.test_losses is None
    rows = tuple(part[None] for part in module.initial())
    assert module.test_losses(rows) == pytest.approx(bare.losses(rows))


def test_what_is_measured_of_a_run_is_what_its_last_models_have() -> None:
    run = offbeat.simulate("adsgd", metrics=ALL, per_agent=True, **SMALL)
    task = prepare(Experiment(**SMALL), 0).task
    assert isinstance(task, Quadratic)
    (x,) = run.models
    mean = x.mean(0)
    gradient = (torch.from_numpy(task.h[:, None]) * (mean - torch.from_numpy(task.b))).mean(0)
    assert run.final["gradient_norm"] == pytest.approx(float(gradient.square().sum()), rel=1e-12)
    assert run.final["gap"] == run.final["loss"] == run.curve.of("gap")[-1]
    assert run.final["disagreement"] == pytest.approx(float((x - mean).norm(dim=1).max()))
    consensus, most = run.final["consensus"], run.final["disagreement"]
    assert consensus is not None and most is not None and consensus <= most <= 3 * consensus
    own = run.details["per_agent"]["loss"]
    assert np.array(own).shape == (len(run.curve.time), 9)
    assert own[-1] == task.losses(run.models).tolist()
    assert set(run.to_frame()) >= {*ALL}


# -- who is judged ---------------------------------------------------------------------------------


@pytest.mark.parametrize("judge", JUDGED)
def test_loss_accuracy_and_target_are_of_the_model_that_is_judged(judge: str) -> None:
    settings: dict[str, Any] = {"task": "digits", "until": 60.0, "topology": "star", "eval_every": 20.0}
    run = offbeat.simulate("adsgd", judge=judge, target=0.3, metrics="test_loss", per_agent=True, **settings)
    task = prepare(Experiment(**settings), 0).task
    assert isinstance(task, Logistic)
    accuracies, losses = task.accuracies(run.models), task.losses(run.models)
    average = (run.models[0].mean(0)[None],)
    accuracy, loss, test = {
        "average": (task.accuracies(average)[0], task.losses(average)[0], task.test_losses(average)[0]),
        "server": (accuracies[0], losses[0], task.test_losses(run.models)[0]),
        "worst": (accuracies.min(), losses.max(), task.test_losses(run.models).max()),
        "each": (accuracies.mean(), losses.mean(), task.test_losses(run.models).mean()),
    }[judge]
    assert (run.final["accuracy"], run.final["loss"]) == (accuracy, loss)
    assert run.final["test_loss"] == test
    assert run.time_to_target == run.curve.crossing("accuracy", 0.3)
    assert (run.time_to_target is None) == (judge != "average")
    assert run.details["per_agent"]["accuracy"][-1] == accuracies.tolist()
    said = JUDGED[judge]
    assert (f"judged by {said}" in " ".join(str(offbeat.Comparison([run])).split())) == (judge != "average")


def test_an_agent_that_is_down_counts_as_it_was_but_not_in_averages() -> None:
    settings = SMALL | {"topology": "star", "crash": "agent 0 at 5", "metrics": "disagreement"}
    runs = {judge: offbeat.simulate("adsgd", judge=judge, per_agent=True, **settings) for judge in JUDGED}
    own = np.array(runs["average"].details["per_agent"]["loss"])
    assert own.shape == (6, 9)
    assert own[3, 0] == own[4, 0] == own[5, 0] and own[4, 1] != own[5, 1]
    assert runs["server"].curve.loss == own[:, 0].tolist()
    assert runs["worst"].curve.loss[-1] == own[-1, 1:].max()
    assert runs["each"].curve.loss[-1] == own[-1, 1:].mean()
    assert len(runs["average"].models[0]) == 8
    assert len({run.digest for run in runs.values()}) == 1, "who is judged changes nothing that happens"


# -- own metrics -----------------------------------------------------------------------------------


def test_a_metric_of_ones_own_is_a_function_of_the_evaluation() -> None:
    seen = list[Evaluation]()

    def spread(at: offbeat.Evaluation) -> Any:
        seen.append(at)
        return (at.models[0] - at.average[0]).square().sum(1).mean().sqrt()

    run = offbeat.simulate("dsgd", metrics=["gap", spread], **SMALL)
    assert run.curve.of("spread") == pytest.approx(run.curve.consensus)
    assert [at.time for at in seen[1:]] == run.curve.time, "and once before, so that errors come early"
    assert [at.updates for at in seen[1:]] == run.curve.updates
    named = offbeat.simulate("dsgd", metrics={"wide": spread}, **SMALL)
    assert named.curve.of("wide") == run.curve.of("spread")
    assert named.settings["own"] == ["the metric wide"] and named.settings["metrics"] == ["wide"]


@pytest.mark.parametrize(
    "metrics, said",
    [
        ({"loss": len}, "cannot be called 'loss': offbeat measures that"),
        ({"gap": len}, "cannot be called 'gap'"),
        ([lambda at: 1.0], "needs a name like 'sharpness'; got '<lambda>'"),
        ({"f": 3}, "The metric 'f' must be a function of an offbeat.Evaluation"),
        ({"f": lambda at: 1 / 0}, "The metric 'f' raised ZeroDivisionError: division by zero."),
        ({"f": lambda at: None}, "The metric 'f' must return a number; got None."),
        ({"f": lambda at: at.average[0]}, "The metric 'f' must return a number; got tensor"),
        ("gap,gap", "The metric 'gap' is named twice"),
        ("gp", r"Unknown metric 'gp'. Did you mean 'gap'\?"),
        (3, "'metrics' must be names, or functions by name; got 3"),
        ("test_loss", "The task quadratic has no `test_losses`, which the metric test_loss needs."),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_before_anything_runs(metrics: Any, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        offbeat.compare("adsgd", metrics=metrics, **SMALL)


def test_other_settings_that_make_no_sense_are_refused(call: Call) -> None:
    gap = call("compare", "--metric", "gap").refused()
    assert "Expected metrics that it has: gradient_norm, test_loss" in gap.said
    assert "No agent is the server on 'grid'" in call(*QUICK, "--judge", "server").refused().said
    assert "Unknown model to judge 'best'" in call(*QUICK, "--judge", "best").refused().said
    with pytest.raises(SettingError, match="'per_agent' must be true or false; got 1"):
        offbeat.compare("adsgd", per_agent=1, **SMALL)


# -- whoever evaluates, wherever it is written -----------------------------------------------------


def test_every_executor_and_worker_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offbeat.experiments.batches.WORTH", 0.0)
    asked: dict[str, Any] = {"metrics": ALL, "judge": "each", "per_agent": True, "seeds": 2}
    one = offbeat.compare("adsgd,dsgd", **asked, **SMALL)
    two = offbeat.compare("adsgd,dsgd", workers=2, **asked, **SMALL)
    assert one.record() == two.record()
    for executor in ("batched", "event-by-event"):
        other = offbeat.compare("adsgd,dsgd", executor=executor, **asked, **SMALL)
        for a, b in zip(one.runs, other.runs, strict=True):
            assert (a.curve, a.details, a.final) == (b.curve, b.details, b.final)


def test_nothing_is_there_that_was_not_asked_for() -> None:
    run = offbeat.simulate("adsgd", **SMALL)
    assert {*run.curve.more} == {"to_optimum", "to_limit"}, "of quadratics always"
    assert not run.details and "details" not in run.record()
    assert run.wall_s > run.eval_s > 0


def test_the_command_line_asks_in_one_option_and_says_it_again(call: Call) -> None:
    asked = ("--metrics", "gap,gradient_norm", "--metric", "disagreement", "--per-agent", "--judge", "worst")
    files = ("--json", "a.json", "--report", "a.html")
    shown = call(*QUICK, "--algorithms", "adsgd", *asked, *files)
    assert shown.code == 0 and "gradient norm" in shown.out and "s of it for evaluations)" in shown.err
    assert "judged by the worst of the agents' own models" in " ".join(shown.out.split())
    (run,) = read("a.json")["runs"]
    assert run["settings"]["metrics"] == ["gap", "gradient_norm", "disagreement"]
    assert len(run["curve"]["gap"]) == len(run["details"]["per_agent"]["loss"]) == 21
    again = "--metrics</span> gap,gradient_norm,disagreement"
    page = Path("a.html").read_text()
    assert again in page and "<span>--per-agent</span> <" in page and "<span>--judge</span> worst" in page
    listed = call("list", "metrics").out
    assert all(name in listed for name in METRICS)


def test_a_sweep_has_a_column_for_each(tmp_path: Path) -> None:
    fixed = SMALL | {"algorithm": "adsgd", "metrics": "gap,disagreement", "per_agent": True}
    grid = points({"fixed": fixed, "grid": {"judge": ["average", "worst"]}})
    assert sweep(grid, tmp_path / "a.parquet") == []
    frame = pandas.read_parquet(tmp_path / "a.parquet")
    names = ("to_optimum", "to_limit", "gap", "disagreement")
    more = [*(f"final_{name}" for name in names), *(f"curve_{name}" for name in names), "per_agent_loss"]
    assert list(frame.columns) == [*COLUMNS, *more]
    assert list(frame["metrics"][0]) == ["gap", "disagreement"] and bool(frame["per_agent"][0])
    own = np.stack(list(frame["per_agent_loss"][1]))
    assert own.shape == (6, 9) and own.max(1).tolist() == list(frame["curve_gap"][1])


def test_a_metric_that_is_not_finite_does_not_end_a_run() -> None:
    run = offbeat.simulate("adsgd", metrics={"f": lambda at: math.nan}, **SMALL)
    assert run.diverged_at is None and run.record()["final"]["f"] is None
    assert isinstance(METRICS["gap"], Metric)
