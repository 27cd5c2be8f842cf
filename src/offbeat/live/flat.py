"""A module's parameters in one flat buffer per (dtype, device), so that a whole model is read and written in one copy.

What is shared are the trainable parameters, tied ones once. They keep their identity: only their memory moves. Frozen
parameters stay as they are.

BatchNorm's running statistics, and all other buffers, are not parameters: they stay each agent's own and are never
mixed. An exported model has the mean over the agents of those that are floating-point numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from offbeat.errors import OffbeatError, SettingError
from offbeat.vector import Parts

ALIGN = 64
"""Bytes; what lies between two parameters is zero."""
FEW = 4


class BrokenViews(OffbeatError):
    """A parameter no longer lives in the buffer that is shared."""


@dataclass(frozen=True)
class Place:
    """Where a parameter lies: in part number `part`, from `offset` on."""

    name: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    part: int
    offset: int


class Flat:
    """The flat buffers of a model.

    parts:  the buffers, 1-D, in the order in which their (dtype, device) first appears
    places: where each parameter lies

    Raises SettingError for a model or an optimizer whose parameters cannot be shared.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        trained = _trainable(model, optimizer)
        groups: dict[tuple[torch.dtype, torch.device], list[tuple[str, nn.Parameter]]] = {}
        for name, p in trained:
            groups.setdefault((p.dtype, p.device), []).append((name, p))
        self.model = model
        self.parts: Parts = tuple(
            torch.zeros(sum(_room(p) for _, p in group), dtype=dtype, device=device)
            for (dtype, device), group in groups.items()
        )
        self.places: list[Place] = []
        self._parameters: list[nn.Parameter] = []
        for part, group in enumerate(groups.values()):
            offset = 0
            for name, p in group:
                place = Place(name, tuple(p.shape), _dense_stride(p), str(p.dtype), part, offset)
                view = self._view(self.parts, place)
                view.copy_(p.data)
                p.data = view
                self.places.append(place)
                self._parameters.append(p)
                offset += _room(p)
        self._trained = [(p, p.data_ptr(), p.stride()) for _, p in trained]

    @property
    def names(self) -> list[list[Any]]:
        """Name, shape and dtype of every parameter, JSON-ready: whether two models are the same."""
        return [[p.name, list(p.shape), p.dtype] for p in self.places]

    def check(self) -> None:
        """Raise BrokenViews if something moved a parameter out of its buffer; a comparison of addresses."""
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if len(trained) == len(self._trained) and all(
            p is known and p.data_ptr() == pointer and p.stride() == stride
            for p, (known, pointer, stride) in zip(trained, self._trained, strict=True)
        ):
            return
        for p, place in zip(self._parameters, self.places, strict=True):
            where = self._view(self.parts, place)
            moved = p.data_ptr() != where.data_ptr() or p.stride() != where.stride() or p.dtype != where.dtype
            if moved or not p.requires_grad or dict(self.model.named_parameters()).get(place.name) is not p:
                raise BrokenViews(self._why(p, place))
        raise BrokenViews(
            f"The model has {len(trained)} trainable parameters; there were {len(self._trained)} when it was wrapped. "
            "Add, replace or unfreeze parameters before agent.wrap(model, optimizer)."
        )

    def gradient(self) -> Parts:
        """The gradients as flat tensors of their own; zeros where there are none. SettingError if one is sparse."""
        flat = tuple(torch.zeros_like(part) for part in self.parts)
        for p, place in zip(self._parameters, self.places, strict=True):
            if p.grad is not None:
                if p.grad.is_sparse:
                    raise SettingError(f"The gradient of '{place.name}' is sparse; expected dense ones (sparse=False).")
                self._view(flat, place).copy_(p.grad)
        return flat

    def set_gradient(self, parts: Parts) -> None:
        """Write flat tensors into the parameters' `grad`."""
        for p, place in zip(self._parameters, self.places, strict=True):
            g = self._view(parts, place)
            if p.grad is None:
                p.grad = torch.empty_like(p)
            p.grad.copy_(g)

    @torch.no_grad()
    def write(self, parts: Parts) -> None:
        """Parameters <- parts. Only the training thread may call it."""
        for to, part in zip(self.parts, parts, strict=True):
            to.copy_(part)

    def named(self, parts: Parts) -> dict[str, Tensor]:
        """Flat tensors as {name in the state dict: tensor}, tied parameters under all their names."""
        by_parameter = {id(p): self._view(parts, place) for p, place in zip(self._parameters, self.places, strict=True)}
        everywhere = self.model.named_parameters(remove_duplicate=False)
        return {name: by_parameter[id(p)].clone() for name, p in everywhere if id(p) in by_parameter}

    def _view(self, parts: Parts, place: Place) -> Tensor:
        part = parts[place.part]
        return part.as_strided(place.shape, place.stride, part.storage_offset() + place.offset)

    def _why(self, p: nn.Parameter, place: Place) -> str:
        current = dict(self.model.named_parameters()).get(place.name)
        if current is not p:
            what = "is another parameter now: it was replaced, or load_state_dict(assign=True) was called"
            do = "Use load_state_dict without assign, and wrap the model after its last change."
        elif not p.requires_grad:
            what, do = "was frozen", "Freeze parameters before wrapping the model."
        elif str(p.dtype) != place.dtype:
            what = f"is {p.dtype} now instead of {place.dtype}"
            do = "Call .to(dtype) or .half() before wrapping, or use torch.autocast."
        elif p.device != self.parts[place.part].device:
            what = f"is on {p.device} now instead of {self.parts[place.part].device}"
            do = "Move the model to its device before wrapping it."
        else:
            what = "was moved in memory, as .to(memory_format=...) or an assignment to .data does"
            do = "Do that before wrapping the model."
        return f"The parameter '{place.name}' no longer lives in the buffer that the others read: it {what}. {do}"


def _trainable(model: nn.Module, optimizer: Optimizer) -> list[tuple[str, nn.Parameter]]:
    if isinstance(model, DistributedDataParallel) or type(model).__name__.startswith("FullySharded"):
        raise SettingError(
            f"The model is a {type(model).__name__}, which averages over processes itself; pass the module inside."
        )
    named = list(model.named_parameters())
    for name, p in named:
        if isinstance(p, nn.parameter.UninitializedParameter):
            raise SettingError(
                f"The parameter '{name}' has no shape yet: run one batch through the model, then wrap it."
            )
        if p.requires_grad and (not p.is_floating_point() or p.layout is not torch.strided):
            raise SettingError(
                f"The parameter '{name}' is {p.dtype}, {p.layout}; expected dense floating-point numbers."
            )
    trained = [(name, p) for name, p in named if p.requires_grad]
    if not trained:
        raise SettingError("The model has no trainable parameters; expected some with requires_grad.")
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    mine = {id(p) for _, p in named}
    missing = [name for name, p in trained if id(p) not in held]
    if missing:
        raise SettingError(
            f"The optimizer does not hold {_some(missing)}; expected all trainable parameters of the model. Freeze "
            "those that are not to be trained (requires_grad_(False))."
        )
    if held - mine:
        raise SettingError(
            f"The optimizer holds {len(held - mine)} parameters that are not the model's; expected the model's alone. "
            "Was the model changed or moved after the optimizer was made?"
        )
    return trained


def _room(p: Tensor) -> int:
    """How many numbers a parameter takes: each begins where torch would have it begin, so that no bit changes."""
    step = ALIGN // p.element_size()
    return -(-p.numel() // step) * step


def _some(names: list[str]) -> str:
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(f"'{name}'" for name in names[:FEW]) + more


def _dense_stride(p: Tensor) -> tuple[int, ...]:
    """Its own strides if it fills its memory without gaps (channels_last does), else those of a contiguous tensor."""
    return tuple(torch.empty_like(p, device="meta").stride())


def buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The floating-point buffers in the model's state dict, copied."""
    names = model.state_dict().keys()
    for name, b in model.named_buffers():
        if name in names and b.is_floating_point():
            yield name, b.detach().clone()
