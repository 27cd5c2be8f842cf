"""Runs on a pretended device, which shows what a GPU asks of the code; run by `test_devices.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pretend
import pytest
import torch
from on_devices import EVERY, TASKS, close, network, on_both
from pretend import NAME

import offbeat
from offbeat import SettingError, tasks
from offbeat.core.system import devices, kernel, machine
from offbeat.core.vector import Scope, Vector
from offbeat.engines.sim.executors import WIDEST, widest
from offbeat.experiments import comparison
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep.grid import points
from offbeat.results.again import command
from offbeat.tasks import module as modules


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The pretended device, under its name in the settings."""
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices that are written in Python")
    made, find = pretend.device(), devices.find
    monkeypatch.setattr(devices, "find", lambda name: made if name == NAME else find(name))
    monkeypatch.setattr(devices, "free", lambda device: 1e9)
    pretend.transfers.clear()
    return made


def test_the_pretended_device_refuses_what_a_gpu_would(device: torch.device) -> None:
    there, here = torch.ones(3, 2).to(device), torch.ones(3, 2)
    assert there.device == device and torch.equal(there.cpu(), here)
    forgotten: list[Callable[[], object]] = [
        lambda: there + here, lambda: there.index_select(0, torch.tensor([1])),
        lambda: there.addcmul_(there, here), lambda: there.numpy(), lambda: torch.stack([here[0], there[0]]),
        lambda: torch.mul(here, 2.0, out=there),
    ]  # fmt: skip
    for each in forgotten:
        with pytest.raises(RuntimeError):
            each()
    assert float((there * 2.0 + 1).sum()) == 18


@pytest.mark.parametrize("how", ["levels", "batched", "event-by-event"])
@pytest.mark.parametrize("task", ["digits", "quadratic"])
def test_a_run_there_is_the_run_here(task: str, how: str, device: torch.device) -> None:
    assert prepare(Experiment(task=task, device=NAME), 0).task.initial()[0].device == device
    on_both(NAME, "adsgd", task=task, case="combined", until=3, executor=how, lr=0.05)


def test_every_algorithm_and_rule_runs_there(device: torch.device) -> None:
    common: dict[str, Any] = {"task": "quadratic", "until": 3, "case": "combined"}
    on_both(NAME, EVERY, **common, loss=0.2)
    on_both(NAME, "adsgd,adpsgd,rfast,dsgd", **common, crash="1 at 1 until 2")
    for optimizer in ("nesterov", "adamw"):
        on_both(NAME, "adsgd,rfast", **common, optimizer=optimizer, schedule="warmup:1+cosine")


@pytest.mark.parametrize("name", TASKS)
def test_gradients_losses_and_accuracies_there_are_those_here(name: str, device: torch.device) -> None:
    here = TASKS[name]()
    there: Any = here.to(device)  # type: ignore[attr-defined]
    source = torch.Generator().manual_seed(1)
    models = tuple(torch.randn((3, len(x)), generator=source).to(x.dtype) for x in here.initial())
    moved = tuple(part.to(device) for part in models)
    samples = [here.draw(i, np.random.default_rng(i), 1)[0] for i in (2, 0, 1)]
    for a, b in zip(
        here.gradients([2, 0, 1], samples, models), there.gradients([2, 0, 1], samples, moved), strict=True
    ):
        assert b.device == device and close(a, b.cpu())
    assert there.losses(moved) == pytest.approx(here.losses(models), rel=1e-5)
    if here.measure == "accuracy":
        assert there.accuracies(moved).tolist() == pytest.approx(here.accuracies(models).tolist())
    assert all(part.device == device for part in there.initial())
    assert all(part.device.type == "cpu" for part in here.initial()), "the first one stays where it is"


def test_what_crosses_to_the_device_is_moved_once_a_call(device: torch.device) -> None:
    """However many rows a call has: data and models stay there."""

    def crossed(work: Callable[[], object]) -> int:
        pretend.transfers.clear()
        work()
        return len(pretend.transfers)

    rng = np.random.default_rng(0)
    for name, make in TASKS.items():
        task: Any = make().to(device)  # type: ignore[attr-defined]
        for m in (1, 4):
            models = tuple(torch.zeros(m, len(x), dtype=x.dtype).to(device) for x in task.initial())
            samples = [task.draw(i, rng, 1)[0] for i in range(m)]
            assert crossed(lambda: task.gradients(range(m), samples, models)) <= 2, name  # noqa: B023
    pool = torch.zeros(30, 5).to(device)
    for m in (1, 9):
        first, out, slots = np.arange(m + 1) * 2, np.arange(20, 20 + m), np.arange(2 * m)
        assert crossed(lambda: kernel.rows(pool, kernel.Forms(out, first, slots, np.ones(2 * m)))) == 2  # noqa: B023


def test_linear_forms_there(device: torch.device) -> None:
    x, y = (Vector((torch.full((4,), c).to(device),)) for c in (1.0, 2.0))
    with Scope():
        z = 0.5 * x + 3.0 * y - x
    assert z.parts[0].device == device and z.parts[0].cpu().tolist() == [5.5] * 4
    assert z.norm() == pytest.approx(11.0) and z.nbytes == 16
    out = torch.empty(4, device=device)
    kernel.linear(out, [(2.0, x.parts[0]), (-1.0, y.parts[0])])
    assert out.cpu().tolist() == [0.0] * 4


def test_chunks_there_are_as_wide_as_memory_says(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = torch.zeros(650)
    assert widest((model,), 5000) == WIDEST
    assert widest((model.to(device),), 5000) == 5000, "a level has one write of an agent"
    assert widest((torch.zeros(1 << 20).to(device),), 5000) == 64
    monkeypatch.setattr(devices, "CHUNK", 3 * 650 * 4 + 1)
    assert widest((model.to(device),), 5000) == 3
    on_both(NAME, "adsgd", task="digits", until=4, executor="levels")
    monkeypatch.setattr(devices, "CHUNK", 1)
    on_both(NAME, "adsgd", task="digits", until=2, executor="levels")


def test_settings_go_round_and_a_sweep_takes_them(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    short: dict[str, Any] = {"task": "quadratic", "until": 2}
    made, plain = (offbeat.compare("adsgd,dsgd", **short, device=name) for name in (NAME, "cpu"))
    assert made.record()["runs"][0]["settings"]["device"] == NAME
    line, missing = command(made)
    assert line.endswith("--seeds 1") and f"--device {NAME} " in line and not missing
    assert "--device" not in command(plain)[0]
    chosen = {"fixed": {"algorithm": "adsgd"} | short, "grid": {"device": ["cpu", NAME], "seed": [0, 1]}}
    built, build = [], tasks.build

    def counted(*given: Any, **more: Any) -> Any:
        built.append(given[-1])
        return build(*given, **more)

    monkeypatch.setattr(tasks, "build", counted)
    found = points(chosen)
    assert built == [torch.device("cpu"), device], "one task each"
    assert [point.settings["device"] for point in found] == ["cpu", "cpu", NAME, NAME]
    assert len({point.key for point in found}) == 4


def test_a_task_of_the_users_is_moved_once_for_all_seeds(device: torch.device) -> None:
    task = network()
    plan = comparison.plan("adsgd,dsgd", task=task, until=5, seeds=3, device=NAME)
    assert len({id(p.task) for p in plan.setups}) == 1 and plan.setups[0].task is not task
    assert all(part.device == device for part in plan.setups[0].task.initial())
    assert all(p.device.type == "cpu" for p in task.module.parameters())
    assert comparison.plan("adsgd", task=task, until=5).setups[0].task is task
    on_both(NAME, "adsgd,dsgd", task=task, until=4, lr=0.1)


def test_a_task_that_cannot_be_moved_is_refused(device: torch.device) -> None:
    class Fixed:
        name, agents, measure = "fixed", 4, "loss"

        def initial(self) -> tuple[torch.Tensor]:
            return (torch.zeros(3),)

        def gradients(self, *_: Any) -> None: ...

    class Lost(Fixed):
        def to(self, _: Any) -> None: ...

    with pytest.raises(
        SettingError, match=r"Got device 'pretend:0' for the task fixed, which lies on cpu; expected"
    ):
        comparison.plan("adsgd", task=Fixed(), until=5, device=NAME)
    with pytest.raises(SettingError, match="must return the task on pretend:0; got None"):
        comparison.plan("adsgd", task=Lost(), until=5, device=NAME)


@pytest.mark.parametrize(("convolves", "here"), [(False, True), (True, False)])
def test_who_is_vectorized_where(
    convolves: bool, here: bool, device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    vmap = torch.func.vmap
    monkeypatch.setattr(modules, "vmap", lambda function: calls.append(function) or vmap(function))  # type: ignore[func-returns-value]
    task = network(convolves)
    samples = [task.draw(i, np.random.default_rng(0), 1)[0] for i in range(2)]
    for each, wanted in ((task, here), (task.to(device), True)):
        calls.clear()
        (start,) = each.initial()
        each.gradients([0, 1], samples, (torch.stack([start, start]),))
        assert bool(calls) is wanted
    for asked in (True, False):
        task.vectorized = asked
        calls.clear()
        (start,) = task.initial()
        task.gradients([0, 1], samples, (torch.stack([start, start]),))
        assert bool(calls) is asked


def test_memory_of_the_device_is_held_against_the_models(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    large: dict[str, Any] = {"task": "digits", "agents": 1000, "topology": "ring", "device": NAME}
    monkeypatch.setattr(devices, "free", lambda device: 1e7)
    with pytest.raises(
        SettingError, match=r"for models on pretend:0; 0.0 GB are free there.* about [\d,]+ agents would"
    ):
        comparison.plan("adsgd", until=5, **large)
    monkeypatch.setattr(devices, "free", lambda device: 1e9)
    comparison.plan("adsgd", until=5, **large)
    monkeypatch.setattr(
        machine, "available", lambda: 5.5e7
    )  # less than all, enough for what is not on the device
    comparison.plan("adsgd", until=5, **large)
    with pytest.raises(SettingError, match=r"needs about .* GB of memory: .* for the trace"):
        comparison.plan("adsgd", until=1e5, **large)
