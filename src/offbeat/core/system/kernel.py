"""Linear forms over large vectors in one trip through memory.

torch evaluates c_0 v_0 + c_1 v_1 + ... as one operation after the other, and once a vector outgrows the
caches every one of them fetches the sum from memory and sends it back. The C function next to this file reads
each v_k once and writes once. It is compiled at first use, which takes a moment, and kept in the user's
cache.

The result has the bits that torch gives on this machine: at load the function is compared with torch, and is
    not used
if a single bit differs. Where it cannot be had, torch does the work and `name` says why.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offbeat.core.errors import SettingError
from offbeat.core.system import native
from offbeat.core.vector import plain

THRESHOLD = 1_000_000
"""Bytes of the result below which torch does the work: its operations then stay in the caches."""

STREAM = 4_000_000
"""Bytes from which the result is written around the caches, if it is not read as well."""

FLAGS = ("-ffp-contract=off", "-std=c11")
Terms = Sequence[tuple[float, Tensor]]
Function = Callable[..., None]
Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
CTYPES = {torch.float32: (ctypes.c_float, "float"), torch.float64: (ctypes.c_double, "double")}


@dataclass(frozen=True)
class Compiled:
    """The functions for one dtype: one form, one form for each of several rows, and the same with gradients."""

    linear: Function
    rows: Function
    steps: Callable[..., int] | None


Functions = Mapping[torch.dtype, Compiled]


def linear(out: Tensor, terms: Terms, also: Tensor | None = None) -> None:
    """out <- c_0 v_0, then out <- c_k v_k + out from left to right; `also` receives the same values.

    All are flat tensors of one length. `out` and `also` may each be one of the v_k; tensors that overlap in
    part are not supported. The coefficients are rounded to the dtype first, as torch does.
    """
    if not terms:
        raise SettingError("Got a linear form without terms; expected at least one term.")
    compiled = _load()[0].get(out.dtype) if _large(out, terms, also) else None
    if compiled is None:
        _with_torch(out, terms, also)
    else:
        _call(compiled.linear, out, terms, also)


def rows(pool: Tensor, out: Ints, first: Ints, slots: Ints, coefficients: Floats) -> None:
    """pool[out[r]] <- sum_k c_k pool[slots[k]] over first[r] <= k < first[r + 1], from left to right, for
    every r.

    Args:
        pool: contiguous [S, P], without gradients; no row is written and read, none written twice
        out, first, slots: int64, contiguous: [m], [m + 1], one for each term

    On the CPU the bits are those of `linear`, row by row; on a GPU all rows are evaluated together, and may
    differ by rounding.
    """
    if pool.device.type != "cpu":
        _rows_together(pool, out, first, slots, coefficients)
        return
    compiled = _load()[0].get(pool.dtype)
    if compiled is None:
        for r, to in enumerate(out.tolist()):
            terms = slice(int(first[r]), int(first[r + 1]))
            plain(pool[to], [(c, pool[s]) for c, s in zip(coefficients[terms], slots[terms], strict=True)])
        return
    _call_rows(compiled.rows, pool, out, first, slots, coefficients)


def _rows_together(pool: Tensor, out: Ints, first: Ints, slots: Ints, coefficients: Floats) -> None:
    """`rows` in few wide operations: all first terms, then all second ones and so on; the longer forms come
    first.

    Sums are made in float32 at least, and rounded to the pool's dtype once.
    """
    if not len(out):
        return
    order = np.argsort(first[:-1] - first[1:], kind="stable")
    begin, shorter = first[:-1][order], (first[:-1] - first[1:])[order]  # minus the lengths: rising
    counts = [
        int(np.searchsorted(shorter, -k)) for k in range(-int(shorter[0]))
    ]  # forms of more than k terms
    at = np.concatenate([begin[:count] + k for k, count in enumerate(counts)])
    wide = torch.promote_types(pool.dtype, torch.float32)
    index = torch.from_numpy(np.concatenate((out[order], slots[at]))).to(pool.device)
    scales = torch.split(torch.from_numpy(coefficients[at]).to(wide).to(pool.device).unsqueeze(1), counts)
    to, *sources = torch.split(index, [len(out), *counts])
    total = pool.index_select(0, sources[0]).to(wide).mul_(scales[0])
    for count, source, scale in zip(counts[1:], sources[1:], scales[1:], strict=True):
        total[:count].addcmul_(pool.index_select(0, source).to(wide), scale)
    pool.index_copy_(0, to, total.to(pool.dtype))


@dataclass(frozen=True)
class Gradient:
    """A compiled function that writes gradients at rows of a float32 pool into other rows (see `kernel.c`).

    Attributes:
        address, task, reg: the function and what it is told
        refuse: raises the error that its code stands for
    """

    address: int
    task: int
    reg: float
    refuse: Callable[[int], None]


@dataclass(frozen=True)
class Program:
    """Gradients and forms over the rows of a pool, in chunks: what `rows` takes, and for each form a
    gradient.

    A chunk's gradients, at `models`, on minibatches `index` [m, B], go to the rows `scratch`, which its forms
    may read.

    Attributes:
        bounds: where chunks begin, and where the last one ends
    """

    models: Ints
    scratch: Ints
    index: Ints
    bounds: Ints
    out: Ints
    first: Ints
    slots: Ints
    coefficients: Floats


def steps(gradient: Gradient, pool: Tensor, program: Program) -> bool:
    """Chunk after chunk, the gradients and then the forms; False, and nothing done, where it cannot be
    compiled.
    """
    compiled = _load()[0].get(pool.dtype) if pool.device.type == "cpu" else None
    if compiled is None or compiled.steps is None:
        return False
    p = program
    _refuse_gaps(pool, p.models, p.scratch, p.index, p.bounds, p.out, p.first, p.slots, p.coefficients)
    longest = int((p.first[1:] - p.first[:-1]).max(initial=0))
    vectors, narrow = (ctypes.c_void_p * longest)(), (ctypes.c_float * longest)()
    code = compiled.steps(
        gradient.address, gradient.task, gradient.reg, pool.data_ptr(), *pool.shape, p.models.ctypes.data,
        p.scratch.ctypes.data, p.index.ctypes.data, p.index.shape[1], p.bounds.ctypes.data, len(p.bounds) - 1,
        p.out.ctypes.data, p.first.ctypes.data, p.slots.ctypes.data, p.coefficients.ctypes.data, vectors, narrow,
    )  # fmt: skip
    if code:
        gradient.refuse(code)
    return True


def _refuse_gaps(pool: Tensor, *arrays: np.ndarray[Any, Any]) -> None:
    if not pool.is_contiguous() or not all(a.flags.c_contiguous for a in arrays):
        raise SettingError(
            "A pool of models and the arrays that say what to do with it have to be contiguous."
        )


def _call_rows(
    function: Function, pool: Tensor, out: Ints, first: Ints, slots: Ints, coefficients: Floats
) -> None:
    longest, m = int((first[1:] - first[:-1]).max(initial=0)), len(out)
    _refuse_gaps(pool, out, first, slots, coefficients)
    vectors, narrow = (ctypes.c_void_p * longest)(), (CTYPES[pool.dtype][0] * longest)()
    function(
        pool.data_ptr(), pool.shape[1], out.ctypes.data, first.ctypes.data, slots.ctypes.data, coefficients.ctypes.data,
        m, vectors, narrow,
    )  # fmt: skip


def name() -> str:
    """What large vectors are evaluated with here, and why if that is torch; compiles the function if need be."""
    return _load()[1]


def _with_torch(out: Tensor, terms: Terms, also: Tensor | None) -> None:
    # A later term that lies where the sum grows would be overwritten before it is read.
    total = torch.empty_like(out) if any(w.data_ptr() == out.data_ptr() for _, w in terms[1:]) else out
    plain(total, terms)
    if total is not out:
        out.copy_(total)
    if also is not None:
        also.copy_(out)


def _large(out: Tensor, terms: Terms, also: Tensor | None) -> bool:
    """Whether the compiled function may be used; all that torch refuses is left to torch, which says what is
    wrong.
    """
    if out.nbytes < THRESHOLD or out.dtype not in CTYPES:
        return False
    grad, most = torch.is_grad_enabled(), torch.finfo(out.dtype).max
    alike = (out.dtype, out.shape, torch.device("cpu"), torch.strided)
    tensors = [out, *(v for _, v in terms), *(() if also is None else (also,))]
    return all(abs(c) <= most for c, _ in terms) and all(
        (t.dtype, t.shape, t.device, t.layout) == alike
        and t.is_contiguous()
        and not (grad and t.requires_grad)
        for t in tensors
    )


def _call(function: Function, out: Tensor, terms: Terms, also: Tensor | None) -> None:
    n, second = len(terms), None if also is None else also.data_ptr()
    vectors = (ctypes.c_void_p * n)(*(v.data_ptr() for _, v in terms))
    coefficients = (CTYPES[out.dtype][0] * n)(*(c for c, _ in terms))
    function(out.data_ptr(), second, out.numel(), vectors, coefficients, n, STREAM)
    for written in (out,) if also is None else (out, also):
        if not written.is_inference():
            torch.autograd.graph.increment_version(
                written
            )  # as in-place operations do: a backward pass checks it


@cache
def _load() -> tuple[Functions, str]:
    """The functions by dtype, none if they cannot be had, and what to call them."""
    try:
        library, title = native.loaded(__package__, "kernel.c", (*FLAGS, f"-DFUSED={_fused():d}"))
        functions = _checked(library)
    except native.FAILURES as why:
        return {}, f"torch ({why})"
    return functions, f"compiled ({title})"


def _bound_steps(loaded: ctypes.CDLL) -> Callable[..., int]:
    pointer, size, steps = ctypes.c_void_p, ctypes.c_size_t, loaded["steps_float"]
    steps.argtypes = [pointer, pointer, ctypes.c_float, pointer, size, size, *[pointer] * 3, size, pointer, size,
                      *[pointer] * 6]  # fmt: skip
    steps.restype = ctypes.c_int
    bound: Callable[..., int] = steps
    return bound


def _fused() -> bool:
    """Whether torch adds with one rounding, as it does where the processor has such an instruction."""
    x = 1 + 2.0**-12  # x * x is 1 + 2^-11 + 2^-24, and the last bit has no place in a float32
    total = torch.full((64,), -1 - 2.0**-11, dtype=torch.float32, device="cpu")
    return bool(total.add_(torch.full_like(total, x), alpha=x)[0] != 0)


def _checked(loaded: ctypes.CDLL) -> Functions:
    """The functions in that library; KernelError unless they give torch's bits, in whole tiles and in what is
    left.
    """
    pointer, size, source = ctypes.c_void_p, ctypes.c_size_t, torch.Generator("cpu").manual_seed(0)
    functions = dict[torch.dtype, Compiled]()
    for dtype, (_, named) in CTYPES.items():
        function, rows = loaded[f"linear_{named}"], loaded[f"rows_{named}"]
        functions[dtype] = Compiled(function, rows, _bound_steps(loaded) if dtype == torch.float32 else None)
        function.argtypes, function.restype = [pointer, pointer, size, pointer, pointer, size, size], None
        rows.argtypes, rows.restype = [pointer, size, *[pointer] * 4, size, pointer, pointer], None
        for length in (*range(1, 34), 1000, 1031):
            ours, theirs, *v = torch.randn((5, length), generator=source, dtype=dtype, device="cpu")
            terms = [(0.3, v[0]), (-1.7, v[1]), (0.1, v[2])]
            _call(function, ours, terms, None)
            _with_torch(theirs, terms, None)
            if not torch.equal(ours, theirs):
                raise native.KernelError("the compiled function rounds differently from torch")
    return functions
