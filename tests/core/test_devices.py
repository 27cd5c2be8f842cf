"""Devices: which there are, forms as a GPU evaluates them, and runs on a GPU, a pretended or a real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from on_devices import EVERY, network, on_both
from typer.testing import CliRunner
from warm import on_linux, ran

import offbeat
from offbeat import SettingError, tasks
from offbeat.cli.commands import app
from offbeat.core.system import devices, kernel
from offbeat.experiments import comparison
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep.grid import points

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


# -- which devices there are -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [("gpu", "Got device 'gpu', expected 'cpu', or 'cuda'"), ("mps", "float64"), ("meta", "no other kind"),
     ("", "Got device ''"), (3, "'device' must be text; got 3")],
)  # fmt: skip
def test_what_is_no_device_for_runs_is_refused(name: Any, why: str) -> None:
    with pytest.raises(SettingError, match=why):
        prepare(Experiment(task="quadratic", device=name), 0)


def test_a_gpu_that_is_not_there_is_refused_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: False)
    with pytest.raises(
        SettingError, match=r"Got device 'cuda', expected 'cpu': this torch build, .*, has no CUDA"
    ):
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
    assert [devices.find(name) for name in ("cuda", "cuda:0")] == [
        torch.device("cuda:1"),
        torch.device("cuda:0"),
    ]
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
        precise = cudnn.conv.fp32_precision == "ieee" if hasattr(cudnn, "conv") else not cudnn.allow_tf32
        return [cudnn.benchmark, cudnn.deterministic, precise]

    before = state()
    with pytest.raises(KeyboardInterrupt), devices.exact():
        assert state() == [False, True, True]
        raise KeyboardInterrupt
    assert state() == before != [False, True, True]
    seen = []
    offbeat.simulate("adsgd", task="quadratic", until=2, progress=lambda *_: seen.append(state()))
    assert seen[-1] == [False, True, True]


# -- forms -----------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(1, 6), max_size=9),
    st.integers(0, 99),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_rows_together_are_rows_one_by_one(lengths: list[int], seed: int, dtype: torch.dtype) -> None:
    """With forms of any length, in any order, to rounding."""
    rng, m = np.random.default_rng(seed), len(lengths)
    first = np.concatenate(([0], np.cumsum(lengths, dtype=np.int64))).astype(np.int64)
    slots, coefficients = rng.integers(0, 8, first[-1]), rng.normal(size=first[-1])
    out = 8 + rng.permutation(12)[:m].astype(np.int64)
    one = torch.from_numpy(rng.normal(size=(20, 33))).to(dtype)
    together = one.clone()
    kernel.rows(one, kernel.Forms(out, first, slots, coefficients))
    kernel._rows_together(together, kernel.Forms(out, first, slots, coefficients))
    few = 40 * torch.finfo(dtype).eps
    assert torch.allclose(together, one, rtol=few, atol=few)
    others = [r for r in range(20) if r not in out.tolist()]
    assert torch.equal(together[others], one[others])


def test_rows_together_of_narrow_numbers_are_rounded_once() -> None:
    """Weights are not rounded to them: those of a model that agrees with all others add up to one."""
    pool = torch.full((5, 4), 3.0, dtype=torch.bfloat16)
    kernel._rows_together(
        pool, kernel.Forms(np.array([4]), np.array([0, 3]), np.array([0, 1, 2]), np.full(3, 1 / 3))
    )
    assert pool[4].tolist() == [3.0] * 4


def test_a_model_that_diverged_stays_in_its_own_row() -> None:
    pool = torch.zeros(6, 2)
    pool[0] = float("nan")
    kernel._rows_together(
        pool, kernel.Forms(np.array([4, 5]), np.array([0, 1, 3]), np.array([1, 0, 1]), np.ones(3))
    )
    assert pool[4].tolist() == [0.0, 0.0] and bool(pool[5].isnan().all())


# -- runs on a device that is none, and on a real GPU ----------------------------------------------


@on_linux
def test_all_that_runs_on_a_pretended_device(tmp_path: Path) -> None:
    """In a process of its own: torch takes a new device only before it has differentiated anything."""
    tests = Path(__file__).parents[1] / "support" / "on_pretended.py"
    program = f"import os, sys, pytest; os.chdir({str(tests.parents[2])!r}); "
    program += f"sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', {str(tests)!r}]))"
    done = ran(tmp_path, program)
    assert done.code == 0 and " failed" not in done.said and "...." in done.said, done.said


@needs_gpu
@pytest.mark.parametrize("how", ["levels", "batched"])
@pytest.mark.parametrize("task", ["digits", "quadratic"])
def test_a_run_on_a_gpu_is_the_run_here(task: str, how: str) -> None:
    on_both("cuda", "adsgd", task=task, case="combined", until=20, executor=how, lr=0.05)


@needs_gpu
@pytest.mark.parametrize("convolves", [False, True])
def test_a_module_on_a_gpu_is_the_module_here(convolves: bool) -> None:
    on_both("cuda", EVERY, task=network(convolves), until=10, lr=0.1, topology="ring")


@needs_gpu
def test_memory_of_a_gpu_is_known() -> None:
    assert 1e8 < devices.free(devices.find("cuda")) < 1e13
