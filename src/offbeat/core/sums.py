"""What torch makes of linear forms: sums from left to right, whose bits every other way of summing has."""

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

BLOCK = 1 << 20  # numbers that `plain` works on at a time: so few that the sum stays in the caches


def combined(coefficients: Sequence[float], *values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """sum_k c_k v_k from left to right, by part, as torch adds."""
    (c0, *scales), (first, *rest) = coefficients, values
    if rest and c0 == 1.0:  # the same bits in one operation instead of two
        c1, v1 = scales.pop(0), rest.pop(0)
        sums = tuple([torch.add(a, b, alpha=c1) for a, b in zip(first, v1, strict=True)])
    else:
        sums = tuple([part * c0 for part in first])
    for c, v in zip(scales, rest, strict=True):
        for total, part in zip(sums, v, strict=True):
            total.add_(part, alpha=c)
    return sums


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
