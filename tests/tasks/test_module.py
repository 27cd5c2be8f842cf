"""An nn.Module as a task: L2, losses that see parameters, regression, metrics of one's own, partitions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, mse_loss

import offbeat
from offbeat import ModuleTask
from offbeat.core.errors import SettingError

RUN: dict[str, Any] = {"until": 12, "topology": "ring", "lr": 0.1}


def from_zero(outputs: int) -> nn.Linear:
    module = nn.Linear(3, outputs)
    nn.init.zeros_(module.weight)
    nn.init.zeros_(module.bias)
    return module


def regression(**more: Any) -> ModuleTask:
    source = torch.Generator().manual_seed(0)
    x = torch.randn((60, 3), generator=source)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    loss = more.pop("loss", mse_loss)
    return ModuleTask(from_zero(1), loss, (x, y), agents=4, batch=8, **more)


def classification(**more: Any) -> ModuleTask:
    source = torch.Generator().manual_seed(0)
    x, y = torch.randn((60, 3), generator=source), torch.arange(60) % 3
    test = x[:9], y[:9]
    return ModuleTask(from_zero(3), cross_entropy, (x, y), test=test, agents=4, batch=8, **more)


def at(task: ModuleTask, seed: int = 1) -> tuple[Tensor, ...]:
    source = torch.Generator().manual_seed(seed)
    return tuple(torch.randn((2, part.numel()), generator=source) for part in task.initial())


INDEX = [np.arange(8), np.arange(8, 16)]


def penalised(out: Tensor, y: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
    return mse_loss(out, y) + 0.05 * sum(p.square().sum() for p in parameters.values())


def test_a_loss_that_sees_parameters_can_say_l2_itself() -> None:
    plain, l2, own = regression(), regression(l2=0.1), regression(loss=penalised)
    models = at(plain)
    (g,), (a,), (b,) = (t.gradients([0, 1], INDEX, models) for t in (plain, l2, own))
    assert torch.allclose(a, g + 0.1 * models[0], atol=1e-6), "as torch's weight decay"
    assert torch.allclose(a, b, atol=1e-6)
    assert np.allclose(l2.losses(models), own.losses(models))
    squares = models[0].square().sum(1).numpy()
    assert np.allclose(l2.losses(models), plain.losses(models) + 0.05 * squares)


def test_a_module_as_a_loss_is_called_with_two() -> None:
    t = regression(loss=nn.MSELoss())
    assert np.allclose(t.losses(at(t)), regression().losses(at(t)))


def test_regression_learns_and_its_target_is_a_loss() -> None:
    x = torch.randn((20, 3), generator=torch.Generator().manual_seed(5))
    test = (x, x @ torch.tensor([[1.0], [-2.0], [0.5]]))
    metrics = {"mae": lambda out, y: (out - y).abs().mean(), "largest": lambda out, y: (out - y).abs().max()}
    t = regression(test=test, metrics=metrics)
    assert t.measure == "loss"
    run = offbeat.simulate("dsgd", task=t, target=0.05, until=60, topology="ring", lr=0.1)
    assert run.time_to_target is not None
    by_own = offbeat.simulate("dsgd", task=t, target="mae=0.5", until=60, topology="ring", lr=0.1)
    assert by_own.time_to_target is not None
    mae, largest = run.curve.of("mae"), run.curve.of("largest")
    assert mae[0] == pytest.approx(float(test[1].abs().mean()), rel=1e-5), "of zero, on the test data"
    assert largest[0] == pytest.approx(float(test[1].abs().max()), rel=1e-5)
    assert len(mae) == len(run.curve.loss)
    assert mae[-1] < 0.2 * mae[0]
    assert run.record()["curve"]["mae"] == mae


def test_metrics_are_of_the_training_data_where_there_are_no_others() -> None:
    t = regression(metrics={"mse": mse_loss})
    assert np.allclose(t.own_metrics(at(t))["mse"], t.losses(at(t)))


@pytest.mark.parametrize("objective", ["agents", "samples"])
def test_unequal_shards_are_judged_by_what_the_agents_minimise(objective: str) -> None:
    t = regression(partition="quantity:1", objective=objective, seed=3)
    sizes = np.array([*map(len, t.minibatches.shards)])
    assert len(set(sizes.tolist())) > 1
    models = tuple(part[:1] for part in at(t))
    shares = np.full(4, 0.25) if objective == "agents" else sizes / sizes.sum()
    each = []
    for shard in t.minibatches.shards:
        x, y = t.train[0][shard], t.train[1][shard]
        each.append(float(mse_loss(x @ models[0][0, :3, None] + models[0][0, 3], y)))
    assert t.losses(models)[0] == pytest.approx(float(shares @ each), rel=1e-5)
    four = tuple(part.expand(4, -1) for part in models)
    (g,) = t.gradients(range(4), [INDEX[0]] * 4, four)
    (plain,) = regression().gradients([0], [INDEX[0]], models)
    assert torch.allclose(g, plain * torch.from_numpy(4 * shares)[:, None].float(), rtol=1e-4)


def test_a_partition_that_is_asked_for_splits_a_task_of_ones_own_with_every_seed() -> None:
    t = classification(partition="iid")
    result = offbeat.compare("adsgd", task=t, partition="dirichlet:0.1", seeds=2, **RUN)
    assert [run.settings["partition"] for run in result.runs] == ["dirichlet:0.1"] * 2
    alone = [
        offbeat.simulate("adsgd", task=classification(partition="dirichlet:0.1", seed=seed), seed=seed, **RUN)
        for seed in (0, 1)
    ]
    assert [run.digest for run in result.runs] == [run.digest for run in alone]
    as_it_is = offbeat.simulate("adsgd", task=t, **RUN)
    assert as_it_is.settings["partition"] is None
    assert "Dirichlet 0.1" in str(result)
    assert "skew" not in str(offbeat.compare("adsgd", task=t, **RUN))


def test_what_agents_hold_is_counted() -> None:
    names, counts = classification(partition="quantity:1").label_counts()
    assert (names, counts.sum()) == (["0", "1", "2"], 60)
    names, counts = regression(partition="quantity:1").label_counts()
    assert (names, counts.shape, counts.sum()) == ([], (4, 1), 60)


def test_shorthands_are_the_partition() -> None:
    for short, text in (({"skew": 0.5}, "skew:0.5"), ({"alpha": 0.1}, "dirichlet:0.1"), ({}, "skew:1")):
        a, b = classification(**short), classification(partition=text)
        assert np.array_equal(a.minibatches.shards, b.minibatches.shards)
    natural = classification(partition="natural:writer", columns={"writer": np.arange(60) // 15})
    assert [shard.tolist() for shard in natural.minibatches.shards] == np.arange(60).reshape(4, 15).tolist()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"skew": 0.5, "alpha": 1.0}, "got both skew:0.5 and dirichlet:1.0"),
        ({"partition": "iid", "skew": 0.5}, "got both iid and skew:0.5"),
        ({"partition": "quantity"}, "expected quantity:ALPHA"),
        ({"objective": "all"}, "Unknown objective 'all'"),
        ({"l2": -1.0}, "got reg 0.0, l2 -1.0"),
        ({"shards": [np.arange(3), np.arange(0)]}, "Agent 1 has no sample"),
    ],
)
def test_what_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError) as caught:
        classification(**arguments)
    assert said in str(caught.value)


def test_targets_that_are_no_classes_are_split_uniformly_and_not_by_class() -> None:
    assert {len(shard) for shard in regression().minibatches.shards} == {15}
    with pytest.raises(SettingError, match="the targets are none"):
        regression(partition="dirichlet:0.1")


@pytest.mark.parametrize(
    ("module", "loss", "targets", "said"),
    [
        (nn.Linear(4, 1), mse_loss, torch.zeros(20, 1), "inputs [2, 5] float32, targets [2, 1] float32"),
        (nn.Linear(5, 1), mse_loss, torch.zeros(20), "outputs [2, 1]"),  # torch would broadcast, and warn
        (nn.Linear(5, 3), cross_entropy, torch.full((20,), 7), "out of bounds"),
        (nn.Linear(5, 3), lambda out, y: (out - y).square(), torch.zeros(20, 3), "one number"),
        (nn.Linear(5, 3), lambda out, y: 1.0, torch.zeros(20, 3), "got 1.0"),
    ],
)
def test_module_loss_and_data_that_do_not_fit_are_refused_with_their_shapes(
    module: nn.Module, loss: Any, targets: torch.Tensor, said: str
) -> None:
    data = torch.zeros(20, 5), targets
    good = (torch.zeros(20, 5), torch.zeros(20, 1)), nn.Linear(5, 1)
    with pytest.raises(SettingError, match=re.escape(said)):
        ModuleTask(module, loss, data, partition="iid")
    if said == "outputs [2, 1]":
        with pytest.raises(SettingError, match="of the test data"):
            ModuleTask(good[1], loss, good[0], test=data)
