"""Softmax regression on many models, each on a minibatch of its own, in one compiled function.

In torch a gradient of 784 x 10 weights on 32 samples is a gather, two products of a shape that no library is
made for, and ten small operations; the C function next to this file goes through the samples where they lie.
It is compiled at first use and kept in the user's cache; at load it is compared with the formula in float64,
and not used if it is further away than rounding explains. Then torch does the work, and `name` says why.

Its sums have another order than torch's: the results agree to rounding, not to the bit. A row has the same
bits whatever the other rows are.
"""

import ctypes
from functools import cache
from typing import Any, Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from offbeat.core.errors import SettingError
from offbeat.core.system import native
from offbeat.core.system.kernel import Gradient
from offbeat.tasks.dataset import DataSet

FLAGS = ("-ffp-contract=fast", "-std=gnu11", "-Wno-psabi")
LANES, LINE = 16, 64  # a row of pixels is padded: floats to whole vectors, bytes to whole lines of caches
SCALES = (255, 16, 1)  # multiples of one of these fractions are kept as bytes: a quarter of the traffic
MARKS = 4  # words of marks of a sample, at most
BLOCK = 4096  # samples that are turned into bytes at a time
EPSILON = 2.0**-24  # the largest relative error of one rounding in float32
FINE, MEMORY, SAMPLE, ROW = range(4)


class _Struct(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("pixels", "labels")),
        *((name, ctypes.c_size_t) for name in ("count", "stride", "features", "classes")),
        *(("bytes", ctypes.c_int32), ("scale", ctypes.c_float), ("marks", ctypes.c_void_p)),
    ]


def name() -> str:
    """What gradients are evaluated with here, and why if that is torch; compiles the function if need be."""
    return _load()[1]


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The functions, None if they cannot be had, and what to call them."""
    try:
        library, title = native.loaded(__package__, ("softmax.c",), FLAGS)
        _check(library)
    except native.FAILURES as why:
        return None, f"torch ({why})"
    return library, f"compiled ({title})"


class Samples:
    """Labelled samples as the compiled functions read them; x [N, D] and y [N] must not change afterwards."""

    def __init__(self, x: Tensor, y: Tensor, classes: int, library: ctypes.CDLL) -> None:
        """Raises KernelError if these are not what the functions can read."""
        _refuse(x, y, classes)
        self.size = (x.shape[1] + 1) * classes
        pointer, size = ctypes.c_void_p, ctypes.c_size_t
        place: list[Any] = [pointer, size, pointer]  # a pool, its rows, and which of them
        self._gradients, self._scores = library["softmax_gradients"], library["softmax_scores"]
        self._gradients.argtypes = [pointer, *place, *place, size, pointer, size, ctypes.c_float]
        self._scores.argtypes = [pointer] * 5
        scale, self._pixels = _pixels(x)
        self._labels = y.contiguous()
        as_bytes, stride = scale != 0, self._pixels.stride(0) * self._pixels.element_size()
        data, value = (self._pixels.data_ptr(), self._labels.data_ptr()), 1 / scale if as_bytes else 1.0
        self._struct = _Struct(*data, len(x), stride, x.shape[1], classes, as_bytes, value)
        self._at = ctypes.addressof(self._struct)
        self._mark(library)
        self.kind = f"pixels k/{scale} as bytes" if as_bytes else "pixels as floats"

    def _mark(self, library: ctypes.CDLL) -> None:
        """Mark which vectors of pixels are not all zero, where there are enough that are."""
        mark, self._marks = library["softmax_marks"], np.empty((self._struct.count, MARKS), np.uint64)
        mark.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        at = self._marks.ctypes.data
        self._struct.marks = at if mark(self._at, at) else None

    @property
    def marked(self) -> bool:
        """Whether products are made of marked vectors of pixels alone; results are the same to the bit."""
        return self._struct.marks is not None

    def unmark(self) -> None:
        self._struct.marks = None

    def gradients(
        self, pool: Tensor, rows: np.ndarray, out: Tensor, outs: np.ndarray, index: np.ndarray, reg: float
    ) -> None:
        """out[outs[r]] <- the gradient at pool[rows[r]] of the mean loss on samples index[r] and regulariser.

        Pools are contiguous float32 [S, P] on the CPU, and may be one if no row is in `rows` and in `outs`,
        int64 [m]; `index` is int64 [m, B]. Raises IndexError if one of these points at nothing, SettingError
        if there are not as many of each.
        """
        m, batch = index.shape
        if not len(rows) == len(outs) == m:
            raise SettingError(f"Got {len(rows)} rows, {len(outs)} to write and {m} minibatches.")
        source, to = ((p.data_ptr(), len(p), r.ctypes.data) for p, r in ((pool, rows), (out, outs)))
        _refuse_code(self._gradients(self._at, *source, *to, m, index.ctypes.data, batch, 2 * reg))

    def native(self, reg: float) -> Gradient:
        """The function for whoever calls it from C; as `gradients`, it may be asked for rows of one pool."""
        address = ctypes.cast(self._gradients, ctypes.c_void_p).value or 0
        return Gradient(address, self._at, 2 * reg, _refuse_code)

    def readable(self, models: Tensor) -> bool:
        """Whether the functions can work on these models."""
        fits = models.dtype == torch.float32 and models.shape[1:] == (self.size,) and models.is_contiguous()
        return fits and models.device.type == "cpu" and not models.requires_grad

    def scores(self, model: Tensor, weights: np.ndarray | None = None) -> tuple[float, int]:
        """Of a contiguous model [P] the mean cross entropy on all samples, and how many it gets right.

        Args:
            weights: float64 [N]; with them it is not the mean, but the sum of weight times cross entropy
        """
        entropy, right = ctypes.c_double(), ctypes.c_int64()
        found = ctypes.addressof(entropy), ctypes.addressof(right)
        given = None if weights is None else weights.ctypes.data
        _refuse_code(self._scores(self._at, model.data_ptr(), given, *found))
        return entropy.value, right.value


_kept: WeakKeyDictionary[DataSet, dict[tuple[ctypes.CDLL, str], Samples | str]] = WeakKeyDictionary()


def kept(data: DataSet, part: Literal["train", "test"]) -> Samples | str:
    """The samples of that part, made once in the life of the data; the reason where there are none."""
    library, title = _load()
    if library is None:
        return title
    parts, key = _kept.setdefault(data, {}), (library, part)
    if key not in parts:
        x, y = (data.train_x, data.train_y) if part == "train" else (data.test_x, data.test_y)
        try:
            parts[key] = Samples(x, y, data.classes, library)
        except native.KernelError as why:
            parts[key] = f"torch ({why})"
    return parts[key]


def _refuse(x: Tensor, y: Tensor, classes: int) -> None:
    """KernelError unless x is float32 [N, D], y int64 [N] in [0, classes), and both are on the CPU."""
    for what, t, dtype, rank in (("samples", x, torch.float32, 2), ("labels", y, torch.int64, 1)):
        if t.dtype != dtype or t.dim() != rank or t.device.type != "cpu":
            raise native.KernelError(f"the {what} are {t.dtype} [{t.dim()} dimensions] on {t.device}")
    if len(x) != len(y) or not x.numel() or not bool(((y >= 0) & (y < classes)).all()):
        raise native.KernelError(f"not every sample has a label in [0, {classes})")


def _pixels(x: Tensor) -> tuple[int, Tensor]:
    """(k, bytes) where every pixel is byte / k; else (0, floats). Rows end in zeros; bytes begin lines."""
    for scale in SCALES:
        stride = -(-x.shape[1] // LINE) * LINE
        room = torch.zeros(len(x) * stride + LINE, dtype=torch.uint8)
        rows = room[-room.data_ptr() % LINE :][: len(x) * stride].view(len(x), stride)
        for at in range(0, len(x), BLOCK):
            block = x[at : at + BLOCK]
            if not _multiples(block, scale):
                break
            rows[at : at + BLOCK, : x.shape[1]] = (block * scale).round_()
        else:
            return scale, rows
    if x.shape[1] % LANES == 0:
        return 0, x.contiguous()
    return 0, torch.nn.functional.pad(x, (0, -x.shape[1] % LANES))


def _multiples(x: Tensor, scale: int) -> bool:
    whole = (x * scale).round_()
    return bool((whole >= 0).all() and (whole <= 255).all() and torch.equal(whole / scale, x))


def _refuse_code(code: int) -> None:
    """Raise what a function's code stands for."""
    if code == MEMORY:
        raise MemoryError("No memory for the logits of a minibatch.")
    if code != FINE:
        what = "sample" if code == SAMPLE else "row of the pool"
        raise IndexError(f"A {what} is asked for that does not exist.")


SHAPES = ((784, 10, 32, True), (64, 10, 32, True), (37, 7, 5, True), (50, 3, 17, False), (1, 2, 1, False))
"""Of the check at load: features, classes, batch, and whether the pixels are bytes."""


def reference(x: Tensor, y: Tensor, classes: int, model: Tensor, reg: float) -> tuple[Tensor, float, Tensor]:
    """Gradient, loss without regulariser, and a bound of the gradient's rounding error: all in float64.

    The errors of logits and sums are at most (terms + a few) roundings of the sum of their absolute values.
    """
    a, v, target = x.double(), model.double(), one_hot(y, classes).double()
    w, c = v[:-classes].view(classes, -1), v[-classes:]
    z, each = a @ w.T + c, 1 / len(x)
    p = z.softmax(1)
    regular = 2 * reg * v / (1 + v.square()).square()
    gradient = torch.cat(((p - target).T.mul(each).mm(a).flatten(), (p - target).sum(0) * each)) + regular
    logits = (a.shape[1] / LANES + 12) * EPSILON * (a.abs() @ w.abs().T + c.abs()).amax(1, keepdim=True)
    off = p * (2 * logits.expm1() + (classes + 12) * EPSILON) + 2 * EPSILON * target
    off = off * each + (len(x) + 4) * EPSILON * (p + target) * each
    bound = torch.cat((off.T.mm(a.abs()).flatten(), off.sum(0)))
    bound += (len(x) + 8) * EPSILON * regular.abs()  # the sum over the samples begins with it
    return gradient, float(cross_entropy(z, y)), bound + 1e-30


def _check(library: ctypes.CDLL) -> None:
    """KernelError unless gradients and scores of a few shapes are the formula's, and rows are their own."""
    source = torch.Generator("cpu").manual_seed(0)
    for features, classes, batch, as_bytes in SHAPES:
        x = torch.rand((40, features), generator=source, device="cpu")
        if as_bytes:
            x = (x * 255).round_() / 255
            x[:, features // 2 :] = 0  # so that it goes by marks
        y = torch.randint(classes, (40,), generator=source, device="cpu")
        samples = Samples(x, y, classes, library)
        pool = torch.full((6, samples.size), float("nan"), device="cpu")
        pool[:3] = torch.randn((3, samples.size), generator=source, device="cpu")
        index = torch.randint(40, (3, batch), generator=source, device="cpu")
        rows, outs = np.array([0, 1, 2]), np.array([5, 3, 4])
        samples.gradients(pool, rows, pool, outs, index.numpy(), 0.01)
        for r in range(3):
            wanted, _, bound = reference(x[index[r]], y[index[r]], classes, pool[r], 0.01)
            if not bool(((pool[outs[r]] - wanted).abs() <= bound).all()):
                raise native.KernelError("the compiled gradient is not the formula's")
        _, loss, _ = reference(x, y, classes, pool[0], 0.0)
        if samples.marked:
            made, scores = pool.clone(), samples.scores(pool[0])
            samples.unmark()
            samples.gradients(pool, rows, pool, outs, index.numpy(), 0.01)
            if not torch.equal(made, pool) or scores != samples.scores(pool[0]):
                raise native.KernelError("the compiled gradient by marks is another one")
        if not abs(samples.scores(pool[0])[0] - loss) <= 1e-5 * max(1.0, loss):
            raise native.KernelError("the compiled loss is not the formula's")
