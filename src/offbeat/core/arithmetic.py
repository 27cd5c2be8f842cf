"""Arithmetic on tensors that vectors and engines share: sums of multiples, and whether all is finite."""

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Linear = Callable[[Tensor, Sequence[tuple[float, Tensor]]], None]
"""out <- sum_k c_k v_k from left to right; the same bits as `plain` gives."""


BLOCK = 1 << 20
"""Numbers that `plain` works on at a time: few enough that the sum stays in the caches until it is
complete."""


def plain(out: Tensor, terms: Sequence[tuple[float, Tensor]]) -> None:
    """In torch, one operation a term and block. `out` is none of the later terms."""
    (c0, v0), *rest = terms
    for at in range(0, out.numel(), BLOCK):
        block = slice(at, at + BLOCK)
        total = out[block]
        torch.mul(v0[block], c0, out=total)
        for c, v in rest:
            total.add_(v[block], alpha=c)


def finite(tensors: Iterable[Tensor]) -> bool:
    """Whether all numbers are finite.

    One sum a tensor, in which NaN and infinity show. A sum may also overflow: then the extremes decide.
    """
    few = [t for t in tensors if t.numel()]
    sums: dict[torch.device, list[Tensor]] = {}
    for t in few:
        sums.setdefault(t.device, []).append(t.sum(dtype=torch.promote_types(t.dtype, torch.float32)).float())
    if all(math.isfinite(torch.stack(each).sum().item()) for each in sums.values()):
        return True
    return all(math.isfinite(extreme.item()) for t in few for extreme in t.aminmax())
