"""A model's parameters in one flat buffer per (dtype, device): one copy reads or writes them all.

A model on a GPU is mixed on the host: `Staging` takes it there and back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from operator import attrgetter, is_
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.optim import Optimizer
from torch.utils.dlpack import from_dlpack

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.vector import Leased, Parts

FEW = 4  # names in a message
ALIGNED = 64  # bytes, as torch aligns: elsewhere matrix products may round differently
CPU = torch.device("cpu")
BEFORE = "before wrapping the model"
AVERAGING = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}
_get: Callable[..., Any] = dict.get
_needs = attrgetter("requires_grad")


class BrokenViews(OffbeatError):
    """A parameter no longer lives in the buffer that is shared."""


@dataclass(frozen=True, eq=False)
class Placement:
    """Where a parameter lies: in part number `part`, from element `offset` on."""

    name: str
    p: nn.Parameter
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    part: int
    offset: int

    def within(self, parts: Parts) -> Tensor:
        """What lies there, in flat tensors like the buffers."""
        part = parts[self.part]
        return part.as_strided(self.shape, self.stride, part.storage_offset() + self.offset)

    def own(self, parts: Parts) -> Tensor:
        """The same numbers, in a storage that is no longer than they are."""
        owned: Tensor = from_dlpack(parts[self.part][self.offset : self.offset + prod(self.shape)])
        return owned.as_strided(self.shape, self.stride)


class Staging:
    """The way of flat buffers on a GPU to the host and back: pinned memory, a side stream.

    Pinned memory is copied by the GPU itself, at the full speed of the bus. The side stream waits for what
    the training stream has been given so far, the optimizer's step, and for nothing that is given to it
    afterwards; the host waits for the side stream alone. Buffers on the host stand for themselves.
    """

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.host = Leased(
            torch.empty(part.shape, dtype=part.dtype, pin_memory=True) if part.is_cuda else part
            for part in parts
        )
        devices = {part.device for part in parts if part.is_cuda}
        self._streams = {at: torch.cuda.Stream(at) for at in devices}  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def down(self) -> Leased:
        """The buffers once all that was given to their stream has run; valid until the next `down`."""
        for device, stream in self._streams.items():
            stream.wait_stream(torch.cuda.current_stream(device))
        for part, host in zip(self.parts, self.host, strict=True):
            if part.is_cuda:
                with torch.cuda.stream(self._streams[part.device]):
                    host.copy_(part, non_blocking=True)
        for stream in self._streams.values():
            stream.synchronize()
        return self.host

    @torch.no_grad()
    def up(self, parts: Parts) -> None:
        """Buffers <- parts, in the order of their stream; the host does not wait for it."""
        for to, part, host in zip(self.parts, parts, self.host, strict=True):
            if not to.is_cuda:
                to.copy_(part)
                continue
            torch.cuda.current_stream(to.device).synchronize()  # an earlier copy may still run
            host.copy_(part)
            to.copy_(host, non_blocking=True)


class FlatParameters:
    """The flat buffers of a model, in which its trainable parameters lie. Raises SettingError if they cannot.

    Attributes:
        parts: the buffers, 1-D, one per (dtype, device), in the order in which these first appear
        placements: where each parameter lies; tied ones have one placement, frozen ones stay where they are
        parameters: the trainable ones, in the order of `placements`
        staging: the way to the host and back

    Parameters keep their identity, and their memory format unless it has gaps. Each begins at a multiple of
    64 bytes; what lies between is zero, and linear operations keep it so. Each has a storage of its own over
    its part of the memory: what saves models (safetensors, torch.save) looks at storages, and takes a view
    for a part. BatchNorm's running statistics, like all buffers, are not parameters: they stay each agent's
    own and are never mixed; an exported model has their mean over the agents.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer) -> None:
        _refuse_optimizer(model, optimizer, trained := _trainable(model))
        self.model = model
        self.placements: list[Placement] = []
        self.parameters = list(trained.values())
        sizes: dict[tuple[torch.dtype, torch.device], int] = {}
        for name, p in trained.items():
            size = sizes.setdefault((p.dtype, p.device), 0)
            part, step = list(sizes).index((p.dtype, p.device)), ALIGNED // p.element_size()
            stride = tuple(torch.empty_like(p, device="meta").stride())  # its own, unless there are gaps
            self.placements.append(Placement(name, p, tuple(p.shape), stride, part, size))
            sizes[p.dtype, p.device] = size + -(-p.numel() // step) * step
        kinds = sizes.items()
        self.parts: Parts = tuple(torch.zeros(n, dtype=dtype, device=on) for (dtype, on), n in kinds)
        for at in self.placements:
            at.p.data = at.own(self.parts).copy_(at.p.data)
        self.staging = Staging(self.parts)
        named = model.named_parameters(remove_duplicate=False)
        self._called = {name: p for name, p in named if p.requires_grad}
        self._remember()

    @property
    def layout(self) -> list[list[Any]]:
        """What lies where, for JSON: two models can be mixed, and restored, if these are equal."""
        types, rows = [str(part.dtype) for part in self.parts], []
        for at in self.placements:
            strides = [s * (n > 1) for n, s in zip(at.shape, at.stride, strict=True)]
            rows.append([at.name, [*at.shape], types[at.part], at.part, at.offset, strides])
        return rows

    def check(self) -> None:
        """Raise BrokenViews if a parameter has left its buffer. Cheap: to be called every step."""
        if not (
            all(map(is_, map(_get, self._tables, self._keys), self._values))
            and sum(map(len, self._all_tables)) == len(self._keys)
            and list(map(Tensor.data_ptr, self.parameters)) == self._pointers
            and list(map(_needs, self._everything)) == self._needed
        ):
            self._take_back()
            self._examine()
            self._remember()  # something harmless: a frozen part was added, say

    def gradients(self) -> dict[str, Tensor]:
        """The gradients that there are, where they lie; of a sparse one its values."""
        grads = {at.name: at.p.grad.detach() for at in self.placements if at.p.grad is not None}
        return {name: g if g.layout is torch.strided else g.coalesce().values() for name, g in grads.items()}

    def zeros(self) -> Parts:
        return tuple(torch.zeros_like(part) for part in self.parts)

    @torch.no_grad()
    def gradient(self) -> Parts:
        """The gradients as flat tensors of their own, zeros where there is none. Sparse ones are refused."""
        flat = self.zeros()
        for at in self.placements:
            if at.p.grad is not None:
                if at.p.grad.layout is not torch.strided:
                    raise SettingError(f"The gradient of '{at.name}' is sparse; expected dense ones.")
                at.within(flat).copy_(at.p.grad)
        return flat

    @torch.no_grad()
    def set_gradient(self, parts: Parts) -> None:
        self._require_fit(parts)
        for at in self.placements:
            grad = at.p.grad
            if grad is None or grad.layout is not torch.strided or grad.requires_grad:
                grad = at.p.grad = torch.empty_like(at.p)
            grad.copy_(at.within(parts))

    @torch.no_grad()
    def write(self, parts: Parts, told: bool = True) -> None:
        """Parameters <- parts. In the training thread, between steps.

        Autograd is told: a graph from before, which needs the old values, is refused as after any change.
        """
        self._require_fit(parts)
        self.staging.up(parts)
        if told:
            try:
                increment_version(self.parameters)
            except TypeError:  # before torch 2.6, one by one
                for p in self.parameters:
                    increment_version(p)

    def named(self, parts: Parts) -> dict[str, Tensor]:
        """Flat tensors as {name: view}, under every name in the state dict. Clone what is kept or pickled."""
        self._require_fit(parts)
        by = {id(at.p): at.within(parts) for at in self.placements}
        return {name: by[id(p)] for name, p in self.model.state_dict(keep_vars=True).items() if id(p) in by}

    def _require_fit(self, parts: Parts) -> None:
        want, got = ([tuple(part.shape) for part in each] for each in (self.parts, parts))
        if want != got or any(part.numel() > 1 and part.stride() != (1,) for part in parts):
            raise SettingError(f"Got parts of shapes {got}; expected dense {want}.")

    def _remember(self) -> None:
        """What `check` compares with: all entries of all modules' tables, and addresses."""
        tables = [table for m in self.model.modules() for table in (m._parameters, m._modules)]
        rows = [(table, key, value) for table in tables for key, value in table.items()]
        self._all_tables, (self._tables, self._keys, self._values) = tables, zip(*rows, strict=True)
        self._pointers = [p.data_ptr() for p in self.parameters]
        self._everything = [*self.parameters, *self.model.parameters()]
        self._needed = list(map(_needs, self._everything))

    @torch.no_grad()
    def _take_back(self) -> None:
        """What torch moved to shared memory, as it does with all that goes to another process, comes back."""
        for at in self.placements:
            p, view = at.p, at.within(self.parts)
            fits = (p.dtype, p.shape, p.stride()) == (view.dtype, view.shape, view.stride())
            if fits and p.device == view.device == CPU and p.is_shared():  # type: ignore[no-untyped-call]
                p.data = at.own(self.parts).copy_(p.data)

    def _examine(self) -> None:
        """Raise BrokenViews if anything keeps the model from being read and written in the buffers."""
        now = dict(self.model.named_parameters(remove_duplicate=False))
        new = [name for name, p in now.items() if p.requires_grad and self._called.get(name) is not p]
        for at in self.placements:
            gone = [name for name, p in self._called.items() if p is at.p and now.get(name) is not p]
            name = [*gone, at.name][0]
            if broken := _broken(at.p, now.get(name), at.within(self.parts), new):
                left = f"Parameter '{name}' left the shared buffer: it {broken[0]}"
                raise BrokenViews(f"{left}. Expected: {broken[1]} {BEFORE}.")
        if new:
            raise BrokenViews(f"{some(new)} became trainable. Expected: add or unfreeze parameters {BEFORE}.")


def _broken(
    p: nn.Parameter, now: nn.Parameter | None, view: Tensor, new: list[str]
) -> tuple[str, str] | None:
    """What happened to a parameter, and what is to be done before wrapping; now: what has its name."""
    if now is None:
        return f"is gone; new: {some(new) or 'none'}", "re-parametrise, compile, replace modules"
    if now.dtype != view.dtype:
        return f"is {now.dtype}, was {view.dtype}", "call .to(dtype) or .half()"
    if now.device != view.device:
        return f"is on {now.device}, was on {view.device}", "call .to(device)"
    if now is not p:
        return "was replaced, as load_state_dict(assign=True) does", "load without assign, or replace"
    if not p.requires_grad:
        return "was frozen", "freeze parameters"
    if p.data_ptr() != view.data_ptr() or p.stride() != view.stride():
        return "was moved: .to(memory_format=...), flatten_parameters() or .data = ...", "do that"
    return None


def some(names: list[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(f"'{name}'" for name in names[:FEW]) + more


def _trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    for name, m in model.named_modules():
        if kinds := AVERAGING.intersection(c.__name__ for c in type(m).__mro__):
            what = f"{min(kinds)}, which averages on its own"
            raise SettingError(f"The module '{name}' is {what}; expected a plain one.")
        if getattr(m, "sparse", False) is True and any(p.requires_grad for p in m.parameters(recurse=False)):
            raise SettingError(f"'{name}' has sparse gradients, which cannot be shared: set sparse=False.")
    owner: dict[tuple[torch.device, int], str] = {}
    for name, p in model.named_parameters():
        if nn.parameter.is_lazy(p):
            raise SettingError(f"The parameter '{name}' has no shape yet: run one batch {BEFORE}.")
        plain = type(p.data) is Tensor and p.layout is torch.strided and not p.is_meta
        if p.requires_grad and not (plain and p.is_floating_point()):
            got = f"a {type(p.data).__name__} of {p.dtype}, {p.layout}, on {p.device}"
            raise SettingError(f"The parameter '{name}' is {got}; expected a plain dense real one.")
        if plain and p.numel() and (twin := owner.setdefault((p.device, p.data_ptr()), name)) != name:
            raise SettingError(f"'{twin}' and '{name}' share memory, untied; tie them as one: a.w = b.w.")
    if trained := {name: p for name, p in model.named_parameters() if p.requires_grad}:
        return trained
    raise SettingError("The model has no trainable parameters; expected some with requires_grad.")


def _refuse_optimizer(model: nn.Module, optimizer: Optimizer, trained: dict[str, nn.Parameter]) -> None:
    mine = {id(p) for p in model.parameters()}
    held: dict[int, str] = {}
    for g, group in enumerate(optimizer.param_groups):
        held |= {id(p): f"group {g}, number {k}: {tuple(p.shape)}" for k, p in enumerate(group["params"])}
    if missing := [name for name, p in trained.items() if id(p) not in held]:
        raise SettingError(f"The optimizer does not hold {some(missing)}; give it these, or freeze them.")
    if foreign := [what for key, what in held.items() if key not in mine]:
        raise SettingError(f"The optimizer holds what is not the model's: {some(foreign)}. Make it last.")
