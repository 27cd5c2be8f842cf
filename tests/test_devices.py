"""Runs on a device of their own: what a GPU asks of the code, shown on a pretended one; and real ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pretend
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from runs import quadratic
from torch import nn
from typer.testing import CliRunner

import offbeat
from offbeat import ModuleTask, SettingError, comparison, devices, kernel, memory, tasks
from offbeat.cli import app
from offbeat.experiment import Experiment, prepare
from offbeat.report.again import command
from offbeat.results import Run
from offbeat.sim import levels
from offbeat.sweeping.grid import points
from offbeat.task import Task
from offbeat.tasks import module as modules
from offbeat.vector import Vector, settle

TABLES = ("events", "writes", "mixed", "transmissions")
EVERY = "adsgd,adpsgd,adpsgd:atomic,rfast,dsgd,dsgd:overlap,allreduce"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """The pretended device, under its name in the settings."""
    if not hasattr(torch.utils.backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch has no devices that are written in Python")
    made, find = pretend.device(), devices.find
    monkeypatch.setattr(devices, "find", lambda name: made if name == pretend.NAME else find(name))
    monkeypatch.setattr(devices, "free", lambda device: 1e9)
    pretend.transfers.clear()
    return made


def network(convolves: bool = False) -> ModuleTask:
    torch.manual_seed(0)
    x, y = torch.randn(90, 1, 4, 4), torch.randint(3, (90,))
    first = [nn.Conv2d(1, 2, 3), nn.Flatten()] if convolves else [nn.Flatten()]
    net = nn.Sequential(*first, nn.Linear(8 if convolves else 16, 5), nn.Tanh(), nn.Linear(5, 3))
    return ModuleTask(net, nn.functional.cross_entropy, (x, y), (x, y), agents=4, batch=4, reg=0.01)


TASKS: dict[str, Callable[[], Task]] = {
    "logistic": lambda: tasks.build("digits", 4, 0),
    "quadratic": lambda: quadratic(4, noise=0.1),
    "exact quadratic": lambda: quadratic(4),
    "perceptron": network,
    "convolution": lambda: network(convolves=True),
}


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=1e-4, atol=1e-5)


def agree(here: Run, there: Run) -> None:
    """The same trace, models to rounding, and these on the CPU."""
    assert here.trace is not None and there.trace is not None
    for each in TABLES:
        assert getattr(here.trace, each).tobytes() == getattr(there.trace, each).tobytes(), each
    for a, b in zip(here.models, there.models, strict=True):
        assert b.device.type == "cpu"
        assert close(a, b)
    assert there.curve.loss == pytest.approx(here.curve.loss, rel=1e-4, abs=1e-6)
    assert there.curve.consensus == pytest.approx(here.curve.consensus, rel=1e-4, abs=1e-6)


def on_both(algorithms: str, name: str = pretend.NAME, **settings: Any) -> None:
    here, there = (offbeat.compare(algorithms, **settings, device=each).runs for each in ("cpu", name))
    for a, b in zip(here, there, strict=True):
        assert (a.settings["device"], b.settings["device"]) == ("cpu", name)
        agree(a, b)


# -- which devices there are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [("gpu", "Got device 'gpu', expected 'cpu', or 'cuda'"), ("mps", "float64"), ("meta", "no other kind"),
     ("", "Got device ''"), (3, "The device must be a name")],
)  # fmt: skip
def test_what_is_no_device_for_runs_is_refused(name: Any, why: str) -> None:
    with pytest.raises(SettingError, match=why):
        prepare(Experiment(task="quadratic", device=name), 0)


def test_a_gpu_that_is_not_there_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(SettingError, match=r"Got device 'cuda', expected 'cpu': this torch build, .*, has no CUDA"):
        devices.find("cuda")
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SettingError, match="Got device 'cuda:1', expected 'cpu': no GPU is visible"):
        devices.find("cuda:1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    with pytest.raises(SettingError, match="Got device 'cuda:2', expected one of cuda:0, cuda:1"):
        devices.find("cuda:2")
    assert [devices.find(name) for name in ("cuda", "cuda:0")] == [torch.device("cuda:1"), torch.device("cuda:0")]
    assert devices.find("cpu:0") == torch.device("cpu")


def test_it_is_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    monkeypatch.setattr(tasks, "build", lambda *given: pytest.fail("the task was built"))
    with pytest.raises(SettingError, match="has no CUDA"):
        comparison.plan("adsgd", device="cuda")
    with pytest.raises(SettingError, match=r"The point 'device cuda': .* has no CUDA"):
        points({"fixed": {"task": "quadratic", "algorithm": "adsgd"}, "grid": {"device": ["cuda"]}})
    result = CliRunner().invoke(app, ["compare", "--task", "quadratic", "--device", "cuda", "--quiet"])
    assert isinstance(result.exception, SettingError)


def test_convolutions_are_in_full_precision_within_a_run_and_as_before_after_it() -> None:
    cudnn: Any = torch.backends.cudnn

    def state() -> list[Any]:
        return [cudnn.benchmark, cudnn.deterministic, cudnn.conv.fp32_precision]

    before = state()
    with pytest.raises(KeyboardInterrupt), devices.exact():
        assert state() == [False, True, "ieee"]
        raise KeyboardInterrupt
    assert state() == before != [False, True, "ieee"]
    seen = []
    offbeat.simulate("adsgd", task="quadratic", until=2, progress=lambda *_: seen.append(state()))
    assert seen[-1] == [False, True, "ieee"]


# -- whole runs on the pretended device ------------------------------------------------------------


def test_the_pretended_device_refuses_what_a_gpu_would(device: torch.device) -> None:
    there, here = torch.ones(3, 2).to(device), torch.ones(3, 2)
    assert there.device == device and torch.equal(there.cpu(), here)
    forgotten: list[Callable[[], object]] = [
        lambda: there + here, lambda: there.index_select(0, torch.tensor([1])), lambda: there.addcmul_(there, here),
        lambda: there.numpy(), lambda: torch.stack([here[0], there[0]]), lambda: torch.mul(here, 2.0, out=there),
    ]  # fmt: skip
    for each in forgotten:
        with pytest.raises(RuntimeError):
            each()
    assert float((there * 2.0 + 1).sum()) == 18


@pytest.mark.parametrize("how", ["levels", "batched", "event-by-event"])
@pytest.mark.parametrize("task", ["digits", "quadratic"])
def test_a_run_there_is_the_run_here(task: str, how: str, device: torch.device) -> None:
    assert prepare(Experiment(task=task, device=pretend.NAME), 0).task.initial()[0].device == device
    on_both("adsgd", task=task, case="combined", until=20, executor=how, lr=0.05)


def test_every_algorithm_and_rule_runs_there(device: torch.device) -> None:
    common: dict[str, Any] = {"task": "quadratic", "until": 15, "case": "combined"}
    on_both(EVERY, **common, loss=0.2)
    on_both("adsgd,adpsgd,rfast,dsgd", **common, crash="1 at 5 until 8")
    for rule in (offbeat.Momentum, offbeat.Adam):
        on_both("adsgd,rfast", **common, rule=rule)


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


def test_gradients_in_a_pool_there(device: torch.device) -> None:
    task = tasks.build("digits", 4, 0).to(device)  # type: ignore[attr-defined]
    source = torch.Generator().manual_seed(1)
    pool = torch.randn((6, 650), generator=source).to(device)
    index = np.arange(64).reshape(2, 32)
    (wanted,) = task.gradients([0, 1], list(index), (pool[1:3],))
    task.gradients_into(pool, np.array([1, 2]), np.array([5, 0]), index)
    assert torch.equal(pool.cpu()[[5, 0]], wanted.cpu())


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
        assert crossed(lambda: kernel.rows(pool, out, first, slots, np.ones(2 * m))) == 2  # noqa: B023


def test_linear_forms_there(device: torch.device) -> None:
    x, y = (Vector((torch.full((4,), c).to(device),)) for c in (1.0, 2.0))
    z = 0.5 * x + 3.0 * y - x
    settle()
    assert z.parts[0].device == device and z.parts[0].cpu().tolist() == [5.5] * 4
    assert z.norm() == pytest.approx(11.0) and z.nbytes == 16
    out = torch.empty(4, device=device)
    kernel.linear(out, [(2.0, x.parts[0]), (-1.0, y.parts[0])], also=(also := torch.empty(4, device=device)))
    assert out.cpu().tolist() == also.cpu().tolist() == [0.0] * 4


def test_chunks_there_are_as_wide_as_memory_says(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.zeros(650)
    assert levels._widest(model, 5000) == levels.WIDEST
    assert levels._widest(model.to(device), 5000) == 5000, "a level has one write of an agent"
    assert levels._widest(torch.zeros(1 << 20).to(device), 5000) == 64
    monkeypatch.setattr(devices, "CHUNK", 3 * 650 * 4 + 1)
    assert levels._widest(model.to(device), 5000) == 3
    on_both("adsgd", task="digits", until=10, executor="levels")
    monkeypatch.setattr(devices, "CHUNK", 1)
    on_both("adsgd", task="digits", until=4, executor="levels")


def test_settings_go_round_and_a_sweep_takes_them(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    short: dict[str, Any] = {"task": "quadratic", "until": 5}
    made, plain = (offbeat.compare("adsgd,dsgd", **short, device=name) for name in (pretend.NAME, "cpu"))
    assert made.record()["runs"][0]["settings"]["device"] == pretend.NAME
    line, missing = command(made)
    assert line.endswith("--seeds 1") and f"--device {pretend.NAME} " in line and not missing
    assert "--device" not in command(plain)[0]
    chosen = {"fixed": {"algorithm": "adsgd"} | short, "grid": {"device": ["cpu", pretend.NAME], "seed": [0, 1]}}
    built, build = [], tasks.build
    monkeypatch.setattr(tasks, "build", lambda *given: built.append(given[-1]) or build(*given))  # type: ignore[func-returns-value]
    found = points(chosen)
    assert built == [torch.device("cpu"), device], "one task each"
    assert [point.settings["device"] for point in found] == ["cpu", "cpu", pretend.NAME, pretend.NAME]
    assert len({point.key for point in found}) == 4


# -- a task of the user's --------------------------------------------------------------------------


def test_a_task_of_the_users_is_moved_once_for_all_seeds(device: torch.device) -> None:
    task = network()
    plan = comparison.plan("adsgd,dsgd", task=task, until=5, seeds=3, device=pretend.NAME)
    assert len({id(p.task) for p in plan.prepared}) == 1 and plan.prepared[0].task is not task
    assert all(part.device == device for part in plan.prepared[0].task.initial())
    assert all(p.device.type == "cpu" for p in task.module.parameters())
    assert comparison.plan("adsgd", task=task, until=5).prepared[0].task is task
    on_both("adsgd,dsgd", task=task, until=8, lr=0.1)


def test_a_task_that_cannot_be_moved_is_refused(device: torch.device) -> None:
    class Fixed:
        name, agents, measure = "fixed", 4, "loss"

        def initial(self) -> tuple[torch.Tensor]:
            return (torch.zeros(3),)

        def gradients(self, *_: Any) -> None: ...

    class Lost(Fixed):
        def to(self, _: Any) -> None: ...

    with pytest.raises(SettingError, match=r"Got device 'pretend:0' for the task fixed, which lies on cpu; expected"):
        comparison.plan("adsgd", task=Fixed(), until=5, device=pretend.NAME)
    with pytest.raises(SettingError, match="must return the task on pretend:0; got None"):
        comparison.plan("adsgd", task=Lost(), until=5, device=pretend.NAME)


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


# -- forms and memory ------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 6), max_size=9), st.integers(0, 99), st.sampled_from([torch.float32, torch.float64]))
def test_rows_together_are_rows_one_by_one(lengths: list[int], seed: int, dtype: torch.dtype) -> None:
    """With forms of any length, in any order, to rounding."""
    rng, m = np.random.default_rng(seed), len(lengths)
    first = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    slots, coefficients = rng.integers(0, 8, first[-1]), rng.normal(size=first[-1])
    out = 8 + rng.permutation(12)[:m].astype(np.int64)
    one = torch.from_numpy(rng.normal(size=(20, 33))).to(dtype)
    together = one.clone()
    kernel.rows(one, out, first, slots, coefficients)
    kernel._rows_together(together, out, first, slots, coefficients)
    few = 40 * torch.finfo(dtype).eps
    assert torch.allclose(together, one, rtol=few, atol=few)
    others = [r for r in range(20) if r not in out.tolist()]
    assert torch.equal(together[others], one[others])


def test_rows_together_of_narrow_numbers_are_rounded_once() -> None:
    """Weights are not rounded to them: those of a model that agrees with all others add up to one."""
    pool = torch.full((5, 4), 3.0, dtype=torch.bfloat16)
    kernel._rows_together(pool, np.array([4]), np.array([0, 3]), np.array([0, 1, 2]), np.full(3, 1 / 3))
    assert pool[4].tolist() == [3.0] * 4


def test_a_model_that_diverged_stays_in_its_own_row() -> None:
    pool = torch.zeros(6, 2)
    pool[0] = float("nan")
    kernel._rows_together(pool, np.array([4, 5]), np.array([0, 1, 3]), np.array([1, 0, 1]), np.ones(3))
    assert pool[4].tolist() == [0.0, 0.0] and bool(pool[5].isnan().all())


def test_memory_of_the_device_is_held_against_the_models(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    large: dict[str, Any] = {"task": "digits", "agents": 1000, "topology": "ring", "device": pretend.NAME}
    monkeypatch.setattr(devices, "free", lambda device: 1e7)
    with pytest.raises(
        SettingError, match=r"for models on pretend:0; 0.0 GB are free there.* about [\d,]+ agents would"
    ):
        comparison.plan("adsgd", until=5, **large)
    monkeypatch.setattr(devices, "free", lambda device: 1e9)
    comparison.plan("adsgd", until=5, **large)
    monkeypatch.setattr(memory, "available", lambda: 5.5e7)  # less than all, enough for what is not on the device
    comparison.plan("adsgd", until=5, **large)
    with pytest.raises(SettingError, match=r"needs about .* GB of memory: .* for the trace"):
        comparison.plan("adsgd", until=1e5, **large)


# -- a real GPU ------------------------------------------------------------------------------------


@needs_gpu
@pytest.mark.parametrize("how", ["levels", "batched"])
@pytest.mark.parametrize("task", ["digits", "quadratic"])
def test_a_run_on_a_gpu_is_the_run_here(task: str, how: str) -> None:
    on_both("adsgd", "cuda", task=task, case="combined", until=20, executor=how, lr=0.05)


@needs_gpu
@pytest.mark.parametrize("convolves", [False, True])
def test_a_module_on_a_gpu_is_the_module_here(convolves: bool) -> None:
    on_both(EVERY, "cuda", task=network(convolves), until=10, lr=0.1, topology="ring")


@needs_gpu
def test_memory_of_a_gpu_is_known() -> None:
    assert 1e8 < devices.free(devices.find("cuda")) < 1e13
