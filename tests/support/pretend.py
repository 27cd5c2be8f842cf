"""A device that is not there, for torch: its tensors lie in this machine's memory, and mix with others' as on
a GPU.

What an operation is given must lie on one device, save for single numbers, and only a copy takes values to
another. So code that runs here makes all the transfers that a GPU asks for; what it does not show is speed or
rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree, backend_registration

NAME = "pretend"
COPIES = ("aten::_to_copy", "aten::copy_")
transfers: list[tuple[torch.device, torch.device]] = []
"""Every copy from a device to another since this was cleared."""


class Pretended(Tensor):
    """A tensor on the pretended device; `inside` has its values."""

    inside: Tensor

    @staticmethod
    def __new__(cls, inside: Tensor) -> Pretended:
        made: Pretended = torch.Tensor._make_wrapper_subclass(
            cls, inside.shape, strides=inside.stride(), storage_offset=inside.storage_offset(),
            dtype=inside.dtype, device=torch.device(NAME, 0), requires_grad=inside.requires_grad,
        )  # fmt: skip
        made.inside = inside
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return _perform(func, args, kwargs or {})


def _perform(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on what is inside; its results lie on this device unless another is asked for."""
    leaves = [leaf for leaf in _pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    ours = {id(leaf.inside): leaf for leaf in leaves if isinstance(leaf, Pretended)}
    others = [leaf for leaf in leaves if not isinstance(leaf, Pretended) and leaf.dim()]
    name = func._schema.name
    if ours and others and name not in COPIES:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, found {NAME}:0 and cpu.")
    device = kwargs.get("device")
    ends = torch.device(NAME, 0) if device is None else torch.device(device)
    begins = leaves[-1].device if leaves else ends
    if name in COPIES:
        if name == "aten::copy_":
            ends = leaves[0].device
        if begins.type != ends.type:
            transfers.append((begins, ends))
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    args, kwargs = _pytree.tree_map_only(Pretended, lambda leaf: leaf.inside, (args, kwargs))
    result = func(*args, **kwargs)
    if ends.type != NAME:
        return leaves[0] if name == "aten::copy_" else result
    return _pytree.tree_map_only(Tensor, lambda t: ours[id(t)] if id(t) in ours else Pretended(t), result)


def device() -> torch.device:
    """The device, which torch knows from the first call on."""
    if torch._C._get_privateuse1_backend_name() != NAME:
        backend_registration._setup_privateuseone_for_python_backend(NAME)
        library = torch.library.Library("_", "IMPL")  # type: ignore[no-untyped-call]

        def fallback(func: Any, *args: Any, **kwargs: Any) -> Any:
            return _perform(func, args, kwargs)

        register: Callable[..., None] = library.fallback
        register(fallback, "PrivateUse1")
        _kept.append(library)
    return torch.device(NAME, 0)


_kept: list[Any] = []
