"""Linear forms over large vectors in one trip through memory.

torch evaluates c_0 v_0 + c_1 v_1 + ... as one operation after the other, and once a vector outgrows the
caches every one of them fetches the sum from memory and sends it back. The C function next to this file reads
each v_k once and writes once. It is compiled at first use, and kept in the user's cache.

The result has the bits that torch gives on this machine: at load the function is compared with torch, and is
not used if a single bit differs. Where it cannot be had, torch does the work and `name` says why.
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offbeat.core.errors import SettingError
from offbeat.core.sums import plain
from offbeat.core.system import native

THRESHOLD = 1_000_000  # bytes of the result below which torch does it: its operations stay in the caches
STREAM = 4_000_000  # bytes from which the result is written around the caches, if it is not read as well
FLAGS = ("-ffp-contract=off", "-std=c11")
Terms = Sequence[tuple[float, Tensor]]
Function = Callable[..., Any]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
CTYPES = {torch.float32: (ctypes.c_float, "float"), torch.float64: (ctypes.c_double, "double")}


@dataclass(frozen=True)
class Forms:
    """Linear forms over a pool: its row out[r] is to be sum_k c_k v_k over first[r] <= k < first[r + 1]; of
    it the numbers from low[r] to high[r], if these are given.
    """

    out: Ints  # [m]; none is written twice, and none is read by its own form, or by one before that
    first: Ints  # [m + 1]
    slots: Ints  # the row of v_k, for each term
    coefficients: Floats  # c_k
    low: Ints | None = None
    high: Ints | None = None

    @property
    def arrays(self) -> tuple[np.ndarray[Any, Any] | None, ...]:
        """All of them, in the order in which the compiled functions take them."""
        return self.out, self.first, self.slots, self.coefficients, self.low, self.high

    @property
    def addresses(self) -> tuple[int | None, ...]:
        return tuple([None if each is None else each.ctypes.data for each in self.arrays])

    def range(self, form: int) -> slice:
        """Which numbers of its row a form makes."""
        return (
            slice(None) if self.low is None or self.high is None else slice(self.low[form], self.high[form])
        )

    def room(self, dtype: torch.dtype) -> tuple[Any, Any]:
        """For the terms of the longest form: addresses, and coefficients of that dtype."""
        longest = int((self.first[1:] - self.first[:-1]).max(initial=0))
        return (ctypes.c_void_p * longest)(), (CTYPES[dtype][0] * longest)()

    def part(self, low: int, high: int) -> "Forms":
        of = slice(low, high)
        ends = [None if each is None else each[of] for each in (self.low, self.high)]
        return replace(self, out=self.out[of], first=self.first[low : high + 1], low=ends[0], high=ends[1])

    def waves(self) -> "list[Forms]":
        """The same in parts, each of which reads of what is written here only what parts before it write."""
        low, lengths = int(self.first[0]), np.diff(self.first)
        reader = np.repeat(np.arange(len(self.out)), lengths)
        slots, order = self.slots[low : low + len(reader)], np.argsort(self.out)
        place = np.searchsorted(self.out, slots, sorter=order) % max(1, len(order))
        read = np.flatnonzero(self.out[order[place]] == slots) if len(order) else order
        if not len(read):
            return [self]
        before, wave = np.zeros(0, dtype=np.int64), np.zeros(len(self.out), dtype=np.int64)
        while not np.array_equal(before, wave):
            before, wave = wave, np.zeros_like(wave)
            np.maximum.at(wave, reader[read], before[order[place[read]]] + 1)
        return [
            self._chosen(wave == k, low + np.flatnonzero(wave[reader] == k)) for k in range(1 + wave.max())
        ]

    def _chosen(self, forms: np.ndarray[Any, Any], terms: Ints) -> "Forms":
        first = np.append(0, np.cumsum(np.diff(self.first)[forms]))
        return Forms(self.out[forms], first, self.slots[terms], self.coefficients[terms])


def linear(out: Tensor, terms: Terms) -> None:
    """out <- c_0 v_0, then out <- c_k v_k + out from left to right.

    All are flat tensors of one length. `out` may be one of the v_k; tensors that overlap in part are not
    supported. The coefficients are rounded to the dtype first, as torch does.
    """
    if not terms:
        raise SettingError("Got a linear form without terms; expected at least one term.")
    compiled = _load()[0].get(("linear", out.dtype)) if _large(out, terms) else None
    if compiled is None:
        _with_torch(out, terms)
    else:
        _call(compiled, out, terms)


def rows(pool: Tensor, forms: Forms) -> None:
    """Write the forms into a pool: contiguous [S, P], without gradients.

    On the CPU the bits are those of `linear`, row by row; on a GPU all rows are evaluated together, and may
    differ by rounding.
    """
    on_cpu = pool.device.type == "cpu"
    if not on_cpu and forms.low is None:
        for each in forms.waves():
            _rows_together(pool, each)
        return
    compiled = _load()[0].get(("rows", pool.dtype)) if on_cpu else None
    if compiled is None:
        ends = pairwise(forms.first.tolist())
        for form, (to, (low, high)) in enumerate(zip(forms.out.tolist(), ends, strict=True)):
            terms, of = (
                zip(forms.coefficients[low:high], forms.slots[low:high], strict=True),
                forms.range(form),
            )
            plain(pool[to, of], [(c, pool[s, of]) for c, s in terms])
        return
    _refuse_gaps(pool, forms)
    compiled(pool.data_ptr(), pool.shape[1], *forms.addresses, len(forms.out), *forms.room(pool.dtype))


def _rows_together(pool: Tensor, forms: Forms) -> None:
    """`rows` in few wide operations: all first terms, then all second ones, ...; the longer forms come first.

    Sums are made in float32 at least, and rounded to the pool's dtype once.
    """
    out, first = forms.out, forms.first
    if not len(out):
        return
    order = np.argsort(first[:-1] - first[1:], kind="stable")
    begin, shorter = first[:-1][order], (first[:-1] - first[1:])[order]  # minus the lengths: rising
    counts = [int(np.searchsorted(shorter, -k)) for k in range(-int(shorter[0]))]  # forms of over k terms
    at = np.concatenate([begin[:count] + k for k, count in enumerate(counts)])
    wide = torch.promote_types(pool.dtype, torch.float32)
    index = torch.from_numpy(np.concatenate((out[order], forms.slots[at]))).to(pool.device)
    scale = torch.from_numpy(forms.coefficients[at]).to(wide).to(pool.device).unsqueeze(1)
    to, *sources = torch.split(index, [len(out), *counts])
    scales = torch.split(scale, counts)
    total = pool.index_select(0, sources[0]).to(wide).mul_(scales[0])
    for count, source, scale in zip(counts[1:], sources[1:], scales[1:], strict=True):
        total[:count].addcmul_(pool.index_select(0, source).to(wide), scale)
    pool.index_copy_(0, to, total.to(pool.dtype))


@dataclass(frozen=True)
class Gradient:
    """A compiled function that writes gradients at rows of a float32 pool into other rows: see `kernel.c`."""

    address: int
    task: int  # this and `reg` are what it is told
    reg: float
    refuse: Callable[[int], None]  # raises the error that its code stands for


@dataclass(frozen=True)
class Program:
    """Gradients and forms over the rows of a pool, in chunks."""

    models: Ints  # rows of the models [m]
    index: Ints  # minibatches [m, B]
    bounds: Ints  # where chunks begin, and where the last one ends
    made: Ints  # likewise among the forms
    scratch: Ints  # the rows to which a chunk's gradients go, which its forms may read
    forms: Forms
    apart: bool = False  # whether every gradient has a row of its own there, [m]


def steps(gradient: Gradient, pool: Tensor, program: Program) -> bool:
    """Chunk after chunk, the gradients and then the forms; False, and nothing done, if it is not compiled."""
    compiled = _load()[0].get(("steps", pool.dtype)) if pool.device.type == "cpu" else None
    if compiled is None:
        return False
    p = program
    arrays = p.models, p.scratch, p.index, p.bounds, p.made
    _refuse_gaps(pool, p.forms, *arrays)
    models, scratch, index, bounds, made = (a.ctypes.data for a in arrays)
    task = gradient.address, gradient.task, gradient.reg, pool.data_ptr(), *pool.shape
    chunks = models, scratch, p.apart, index, p.index.shape[1], bounds, made, len(p.bounds) - 1
    if code := compiled(*task, *chunks, *p.forms.addresses, *p.forms.room(pool.dtype)):
        gradient.refuse(code)
    return True


def _refuse_gaps(pool: Tensor, forms: Forms, *others: np.ndarray[Any, Any]) -> None:
    arrays = *forms.arrays, *others
    if not pool.is_contiguous() or not all(a is None or a.flags.c_contiguous for a in arrays):
        raise SettingError("A pool of models and the arrays that say what to do with it must be contiguous.")


def name() -> str:
    """What large vectors are evaluated with here, and why if that is torch; compiles it if need be."""
    return _load()[1]


def _with_torch(out: Tensor, terms: Terms) -> None:
    # A later term that lies where the sum grows would be overwritten before it is read.
    total = torch.empty_like(out) if any(v.data_ptr() == out.data_ptr() for _, v in terms[1:]) else out
    plain(total, terms)
    if total is not out:
        out.copy_(total)


def _large(out: Tensor, terms: Terms) -> bool:
    """Whether the compiled function may be used; what torch refuses is left to it: it says what is wrong."""
    if out.nbytes < THRESHOLD or out.dtype not in CTYPES:
        return False
    grad, most = torch.is_grad_enabled(), torch.finfo(out.dtype).max
    alike = (out.dtype, out.shape, torch.device("cpu"), torch.strided)
    tensors = [out, *(v for _, v in terms)]
    return (
        all(abs(c) <= most for c, _ in terms)
        and all((t.dtype, t.shape, t.device, t.layout) == alike for t in tensors)
        and all(t.is_contiguous() and not (grad and t.requires_grad) for t in tensors)
    )


def _call(function: Function, out: Tensor, terms: Terms) -> None:
    n = len(terms)
    vectors = (ctypes.c_void_p * n)(*(v.data_ptr() for _, v in terms))
    coefficients = (CTYPES[out.dtype][0] * n)(*(c for c, _ in terms))
    function(out.data_ptr(), out.numel(), vectors, coefficients, n, STREAM)
    if not out.is_inference():  # as in-place operations do: a backward pass checks it
        torch.autograd.graph.increment_version(out)


@cache
def _load() -> tuple[dict[tuple[str, torch.dtype], Function], str]:
    """The functions by name and dtype, none if they cannot be had, and what to call them."""
    try:
        library, title = native.loaded(__package__, ("kernel.c",), (*FLAGS, f"-DFUSED={_fused():d}"))
        functions = _checked(library)
    except native.FAILURES as why:
        return {}, f"torch ({why})"
    return functions, f"compiled ({title})"


def _fused() -> bool:
    """Whether torch adds with one rounding, as it does where the processor has such an instruction."""
    x = 1 + 2.0**-12  # x * x is 1 + 2^-11 + 2^-24, and the last bit has no place in a float32
    total = torch.full((64,), -1 - 2.0**-11, dtype=torch.float32, device="cpu")
    return bool(total.add_(torch.full_like(total, x), alpha=x)[0] != 0)


def _checked(loaded: ctypes.CDLL) -> dict[tuple[str, torch.dtype], Function]:
    """The functions in that library. Raises KernelError unless they give torch's bits, whole tiles or not."""
    pointer, size, source = ctypes.c_void_p, ctypes.c_size_t, torch.Generator("cpu").manual_seed(0)
    steps = loaded["steps_float"]
    task: list[Any] = [pointer, pointer, ctypes.c_float, pointer, size, size]
    rest: list[Any] = [ctypes.c_int, pointer, size, pointer, pointer, size, *[pointer] * 8]
    steps.argtypes = [*task, pointer, pointer, *rest]
    functions: dict[tuple[str, torch.dtype], Function] = {("steps", torch.float32): steps}
    for dtype, (_, named) in CTYPES.items():
        function, rows = loaded[f"linear_{named}"], loaded[f"rows_{named}"]
        function.argtypes, function.restype = [pointer, size, pointer, pointer, size, size], None
        rows.argtypes, rows.restype = [pointer, size, *[pointer] * 6, size, pointer, pointer], None
        functions |= {("linear", dtype): function, ("rows", dtype): rows}
        for length in (*range(1, 34), 1000, 1031):
            ours, theirs, *v = torch.randn((5, length), generator=source, dtype=dtype, device="cpu")
            terms = [(0.3, v[0]), (-1.7, v[1]), (0.1, v[2])]
            _call(function, ours, terms)
            _with_torch(theirs, terms)
            if not torch.equal(ours, theirs):
                raise native.KernelError("the compiled function rounds differently from torch")
    return functions
