"""The compiled gradient of softmax regression: the formula's values, rows of their own, and torch in its
place.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from offbeat.core.errors import SettingError
from offbeat.core.system import native
from offbeat.tasks import Logistic, Minibatches, softmax
from offbeat.tasks.data import load
from offbeat.tasks.dataset import DataSet

REG = 0.01
FLOATS, BYTES, SIXTEENTHS = 0, 255, 16


@pytest.fixture
def forgotten() -> Iterator[None]:
    """An empty memory of what was loaded."""
    softmax._load.cache_clear()
    yield
    softmax._load.cache_clear()


@pytest.fixture
def fresh(forgotten: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """And an empty cache of what was compiled."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def functions() -> ctypes.CDLL:
    found, title = softmax._load()
    if found is None:
        assert title == "torch (no C compiler found)"
        pytest.skip(title)
    return found


def task(features: int, classes: int, scale: int = BYTES, seed: int = 0, count: int = 50) -> Logistic:
    source = torch.Generator().manual_seed(seed)
    x = torch.rand((count, features), generator=source)
    x = (x * scale).round() / scale if scale else x
    y = torch.randint(classes, (count,), generator=source)
    data = DataSet("random", x, y, x[: count // 2], y[: count // 2], classes)
    return Logistic(data, Minibatches(np.zeros((9, 1), np.int64), 1), REG)


def torchs(t: Logistic) -> Logistic:
    return Logistic(t.data, t.minibatches, t.reg, compiled=False)


def drawn(t: Logistic, m: int, batch: int, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, np.ndarray]:
    source = torch.Generator().manual_seed(seed)
    models = spread * torch.randn((m, len(t.initial()[0])), generator=source)
    return models, torch.randint(len(t.data.train_y), (m, batch), generator=source).numpy()


def in_pool(t: Logistic, pool: Tensor, rows: list[int], outs: list[int], index: np.ndarray) -> None:
    """pool[outs[r]] <- the gradient at pool[rows[r]], by the compiled function."""
    samples = softmax.kept(t.data, "train")
    assert isinstance(samples, softmax.Samples)
    samples.gradients(pool, np.array(rows), pool, np.array(outs), index, t.reg)


def within_rounding(t: Logistic, gradients: Tensor, models: Tensor, index: np.ndarray) -> None:
    for row, model, mine in zip(gradients, models, index, strict=True):
        x, y = t.data.train_x[mine], t.data.train_y[mine]
        wanted, _, bound = softmax.reference(x, y, t.data.classes, model, t.reg)
        assert bool(((row - wanted).abs() <= bound).all()), float(((row - wanted).abs() / bound).max())


shapes = st.tuples(st.integers(1, 150), st.integers(2, 23), st.sampled_from((FLOATS, BYTES, SIXTEENTHS)))


@settings(max_examples=120, deadline=None)
@example((33, 17, FLOATS), 32, 2, 3, 1.0)  # where the regulariser is what is rounded
@given(shapes, st.integers(1, 40), st.integers(1, 4), st.integers(0, 99), st.sampled_from((0.01, 1.0, 30.0)))
def test_gradients_are_the_formulas(
    shape: tuple[int, int, int], batch: int, m: int, seed: int, spread: float
) -> None:
    """With either engine, and the bound is tight enough to tell a wrong one."""
    t = task(*shape, seed)
    models, index = drawn(t, m, batch, seed, spread)
    (gradients,) = t.gradients(range(m), list(index), (models,))
    within_rounding(t, gradients, models, index)
    assert t.losses((models,)) == pytest.approx(torchs(t).losses((models,)), rel=1e-4, abs=1e-5)
    assert t.accuracies((models,)) == pytest.approx(torchs(t).accuracies((models,)), abs=0.05)


def test_the_reference_is_autograds() -> None:
    t = task(7, 4)
    models, index = drawn(t, 1, 12)
    v = models[0].double().requires_grad_()
    x, y = t.data.train_x[index[0]].double(), t.data.train_y[index[0]]
    loss = torch.nn.functional.cross_entropy(x @ v[:-4].view(4, 7).T + v[-4:], y)
    (loss + REG * (v**2 / (1 + v**2)).sum()).backward()  # type: ignore[no-untyped-call]
    wanted, value, bound = softmax.reference(x.float(), y, 4, models[0], REG)
    assert v.grad is not None
    assert torch.allclose(wanted, v.grad, rtol=1e-12, atol=1e-14)
    assert value == pytest.approx(float(loss.detach()), rel=1e-12)
    assert float(bound.max()) < 1e-5


def test_real_pixels_are_kept_as_bytes(functions: ctypes.CDLL) -> None:
    data = load("digits")
    samples = softmax.Samples(data.train_x, data.train_y, 10, functions)
    assert samples.kind == "pixels k/16 as bytes"
    pixels = np.arange(256, dtype=np.uint8)[None].repeat(3, 0)
    x = torch.from_numpy(np.divide(pixels, np.float32(255), dtype=np.float32))
    scale, rows = softmax._pixels(x)
    assert scale == 255 and torch.equal(rows, torch.from_numpy(pixels))
    assert softmax._pixels(torch.full((5000, 16), 0.25))[0] == 16
    late = torch.full((5000, 17), 0.25)
    late[4999, 3] = 0.3
    scale, rows = softmax._pixels(late)
    assert (
        scale == 0 and rows.shape == (5000, 32) and torch.equal(rows[:, :17], late) and not rows[:, 17:].any()
    )
    for odd in (-0.25, float("nan"), float("inf"), 300.0):
        assert softmax._pixels(torch.tensor([[odd, 0.5]]))[0] == 0


@pytest.mark.parametrize("scale", [FLOATS, BYTES])
@pytest.mark.parametrize("shape", [(784, 10, 32), (61, 7, 5)])
def test_bits_depend_on_no_other_row(scale: int, shape: tuple[int, int, int], functions: ctypes.CDLL) -> None:
    features, classes, batch = shape
    t = task(features, classes, scale)
    models, index = drawn(t, 9, batch)
    (together,) = t.gradients(range(9), list(index), (models,))
    order = np.random.default_rng(1).permutation(9)
    (mixed,) = t.gradients(range(9), list(index[order]), (models[torch.from_numpy(order)],))
    assert torch.equal(mixed, together[torch.from_numpy(order)])
    pool = torch.full((30, models.shape[1]), 7.0)
    rows, outs = [*range(3, 12)], [20, 12, 29, 0, 1, 2, 13, 25, 17]
    pool[3:12] = models
    in_pool(t, pool, rows, outs, index)
    assert torch.equal(pool[outs], together)
    assert torch.equal(pool[3:12], models)
    others = [i for i in range(30) if i not in {*rows, *outs}]
    assert bool((pool[others] == 7).all())
    for i in range(9):
        (alone,) = t.gradients([i], [index[i]], (models[i : i + 1],))
        assert torch.equal(alone[0], together[i])
        pool[0] = models[i]
        in_pool(t, pool, [0], [29], index[i : i + 1])
        assert torch.equal(pool[29], together[i])


def test_bits_do_not_depend_on_the_width_of_the_vectors(functions: ctypes.CDLL) -> None:
    """Of the processor's, as long as it multiplies and adds with one rounding."""
    info = Path("/proc/cpuinfo")
    if not info.exists() or not {"avx512f", "fma"} <= set(info.read_text().split()):
        pytest.skip("needs a processor with AVX-512")
    narrow, _ = native.loaded("offbeat.tasks", ("softmax.c",), (*softmax.FLAGS, "-mno-avx512f"))
    for features, classes, scale in ((784, 10, BYTES), (50, 7, FLOATS)):
        t = task(features, classes, scale)
        models, index = drawn(t, 4, 33)
        both, rows = [torch.empty_like(models) for _ in range(2)], np.arange(4)
        for out, f in zip(both, (functions, narrow), strict=True):
            samples = softmax.Samples(t.data.train_x, t.data.train_y, classes, f)
            samples.gradients(models, rows, out, rows, index, REG)
        assert torch.equal(*both)


HIDDEN = 0.7  # the share of the pieces of a picture that are all zero


def bits(
    t: Logistic, models: Tensor, index: np.ndarray, marked: bool
) -> tuple[Tensor, list[tuple[float, int]]]:
    """Gradients as integers, NaN as one of them, and scores."""
    library, _ = softmax._load()
    assert library is not None
    samples = softmax.Samples(t.data.train_x, t.data.train_y, t.data.classes, library)
    assert samples.marked
    if not marked:
        samples.unmark()
    out, rows = torch.empty_like(models), np.arange(len(models))
    samples.gradients(models, rows, out, rows, index, t.reg)
    scores = [samples.scores(row) for row in models]
    return out.nan_to_num(nan=123.0).view(torch.int32), [(-1.0 if s != s else s, hits) for s, hits in scores]


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 1024), st.integers(2, 23)), st.integers(1, 70), st.integers(0, 99),
    st.sampled_from((1e-41, 1e-3, 1.0, 30.0, 1e30)), st.sampled_from((None, 0.0, -0.0, np.nan, np.inf)),
    st.sampled_from((0.0, 0.001)),
)  # fmt: skip
def test_marked_vectors_give_the_same_bits(
    shape: tuple[int, int], batch: int, seed: int, spread: float, odd: float | None, reg: float
) -> None:
    """Signs of zeros included; models with what is no number, or too near to 0 from below, among others."""
    if softmax._load()[0] is None:
        pytest.skip(softmax.name())
    (features, classes), source = shape, torch.Generator().manual_seed(seed)
    x = (torch.rand((50, features), generator=source) * 255).round() / 255
    x *= (torch.rand((50, -(-features // 16)), generator=source) > HIDDEN).repeat_interleave(16, 1)[
        :, :features
    ]
    x[:, features // 2 :] *= (
        torch.arange(50)[:, None] % 3 == 0
    )  # with one vector or two there are enough as well
    y = torch.randint(classes, (50,), generator=source)
    t = Logistic(DataSet("sparse", x, y, x, y, classes), Minibatches(np.zeros((9, 1), np.int64), 1), reg)
    models, index = drawn(t, 3, batch, seed, spread)
    if odd is not None:
        models[1, seed % models.shape[1] :: 3] = odd
    (ours, scores), (theirs, others) = (bits(t, models, index, marked) for marked in (True, False))
    assert torch.equal(ours, theirs) and scores == others


def test_what_is_marked(functions: ctypes.CDLL) -> None:
    """Pictures that are mostly empty; not those that are full, nor pixels that are no bytes."""
    full = torch.full((60, 784), 0.2)
    empty = full * (torch.arange(784) < 100)
    y = torch.zeros(60, dtype=torch.int64)
    for x, marked in ((full, False), (empty, True), (empty * 0.77, False)):
        assert softmax.Samples(x, y, 10, functions).marked is marked


def test_models_that_diverged(functions: ctypes.CDLL) -> None:
    """Infinities and NaN come through as they do in torch, and in their own rows only."""
    t = task(20, 5)
    models, index = drawn(t, 4, 8)
    models[1] *= 1e30
    models[2, 3] = float("nan")
    models[3, 50] = float("inf")
    (ours,), (theirs,) = (each.gradients(range(4), list(index), (models,)) for each in (t, torchs(t)))
    assert torch.equal(ours.isnan(), theirs.isnan())
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-6, equal_nan=True)
    assert bool(ours[:2].isfinite().all())
    assert np.isnan(t.losses((models,))[2:]).all()


def test_what_points_at_nothing_is_refused(functions: ctypes.CDLL) -> None:
    t = task(20, 5)
    models, index = drawn(t, 4, 8)
    before = models.clone()
    for wrong in (-1, 50):
        bad = index.copy()
        bad[3, 7] = wrong
        with pytest.raises(IndexError, match="sample"):
            t.gradients(range(4), list(bad), (models,))
    for rows, outs in (([0, 4], [1, 2]), ([0, 1], [2, -1])):
        with pytest.raises(IndexError, match="row of the pool"):
            in_pool(t, models, rows, outs, index[:2])
    with pytest.raises(SettingError, match="2 rows"):
        in_pool(t, models, [0, 1], [2], index[:2])
    assert torch.equal(models, before)


def both_ways_work(t: Logistic) -> None:
    models, index = drawn(t, 4, 8)
    (gradients,) = t.gradients(range(4), list(index), (models,))
    within_rounding(t, gradients, models, index)


def test_torch_does_what_the_function_cannot(functions: ctypes.CDLL) -> None:
    both_ways_work(torchs(task(20, 5)))
    assert torchs(task(20, 5)).engine == "torch (as asked for)"
    t = task(20, 5)
    assert t.engine == f"{softmax.name()}, pixels k/255 as bytes"
    models, index = drawn(t, 4, 8)
    wide = models.repeat_interleave(2, 1)[:, ::2]  # not contiguous
    (theirs,) = t.gradients(range(4), list(index), (wide,))
    within_rounding(t, theirs, models, index)
    data = t.data
    double = DataSet("double", data.train_x.double(), data.train_y, data.test_x, data.test_y, 5)
    odd = Logistic(double, t.minibatches)
    assert odd.engine == "torch (the samples are torch.float64 [2 dimensions] on cpu)"
    high = DataSet("high", data.train_x, data.train_y + 5, data.test_x, data.test_y, 5)
    found = softmax.kept(high, "train")
    assert found == "torch (not every sample has a label in [0, 5))"


def test_without_a_compiler(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "nosuchcc")
    assert softmax.name() == "torch ($CC names nosuchcc, which is not found)"
    t = task(20, 5)
    assert t.engine == softmax.name()
    both_ways_work(t)


def test_a_compiler_that_fails(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = fresh / "cc"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo cc 9.9 && exit\necho "x.c: error: no" >&2\nexit 4\n'
    )
    compiler.chmod(0o700)
    monkeypatch.setenv("CC", str(compiler))
    assert softmax.name() == f"torch ({compiler} failed with exit code 4: x.c: error: no)"
    both_ways_work(task(20, 5))


@pytest.mark.parametrize("factor", [1 + 1e-4, float("nan")])
def test_wrong_values_are_refused(
    factor: float, functions: ctypes.CDLL, forgotten: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    true = softmax.reference

    def other(x: Tensor, y: Tensor, classes: int, model: Tensor, reg: float) -> tuple[Tensor, float, Tensor]:
        gradient, loss, bound = true(x, y, classes, model, reg)
        return gradient * factor, loss, bound

    with monkeypatch.context() as patch:
        patch.setattr(softmax, "reference", other)
        assert softmax.name() == "torch (the compiled gradient is not the formula's)"
    t = task(20, 5)
    both_ways_work(t)
    softmax._load.cache_clear()
    monkeypatch.setattr(softmax, "reference", lambda *given: (true(*given)[0], factor + 9, true(*given)[2]))
    assert softmax.name() == "torch (the compiled loss is not the formula's)"
