"""A model's parameters in one flat buffer per (dtype, device): one copy reads or writes them all.

A model on a GPU is mixed on the host: `Staging` takes it there and back.
"""

from collections.abc import Callable, Iterable
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
from offbeat.training.sharable import BEFORE, owners, shared, some

ALIGNED = 64  # bytes, as torch aligns: elsewhere matrix products may round differently
CPU = torch.device("cpu")
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
    """The flat buffers of a model, in which its shared parameters lie: those that are trainable when it is
    wrapped, and those that are trained `later`. Raises SettingError if they cannot.

    Attributes:
        parts: the buffers, 1-D, one per (dtype, device), in the order in which these first appear
        placements: where each parameter lies; tied ones have one placement, other frozen ones stay where they
            are
        parameters: the shared ones, in the order of `placements`
        optimizers: each parameter is held by one of them at most
        later: names of those that were frozen at first
        staging: the way to the host and back

    Parameters keep their identity, and their memory format unless it has gaps. Each begins at a multiple of
    64 bytes; what lies between is zero, and linear operations keep it so. Each has a storage of its own over
    its part of the memory: what saves models (safetensors, torch.save) looks at storages, and takes a view
    for a part. BatchNorm's running statistics, like all buffers, are not parameters: they stay each agent's
    own and are never mixed; an exported model has their mean over the agents.
    """

    def __init__(self, model: nn.Module, *optimizers: Optimizer, later: Iterable[nn.Parameter] = ()) -> None:
        self._shared = shared(model, later)
        self._owner = owners(model, optimizers, self._shared)
        self.model, self.optimizers = model, optimizers
        self.placements: list[Placement] = []
        self.parameters = [*self._shared.values()]
        self.later = [name for name, p in self._shared.items() if not p.requires_grad]
        sizes: dict[tuple[torch.dtype, torch.device], int] = {}
        for name, p in self._shared.items():
            size = sizes.setdefault((p.dtype, p.device), 0)
            part = list(sizes).index((p.dtype, p.device))
            stride = tuple(torch.empty_like(p, device="meta").stride())  # its own, unless there are gaps
            self.placements.append(Placement(name, p, tuple(p.shape), stride, part, size))
            sizes[p.dtype, p.device] = size + _padded(p.numel(), p.element_size())
        first, *_ = sizes
        self._turns = slice(sizes[first], sizes[first] + len(optimizers)) if optimizers[1:] else slice(0)
        if optimizers[1:]:
            sizes[first] += _padded(len(optimizers), first[0].itemsize)
        kinds = sizes.items()
        self.parts: Parts = tuple(torch.zeros(n, dtype=dtype, device=on) for (dtype, on), n in kinds)
        for at in self.placements:
            at.p.data = at.own(self.parts).copy_(at.p.data)
        self.staging = Staging(self.parts)
        mine = {id(p) for p in self.parameters}
        named = model.named_parameters(remove_duplicate=False)
        self._called = {name: p for name, p in named if id(p) in mine}
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
        """Raise BrokenViews if a parameter has left its buffer, or is trained and not shared; SettingError if
        no optimizer holds it, or two do. Cheap: to be called every step.
        """
        if not (
            all(map(is_, map(_get, self._tables, self._keys), self._values))
            and sum(map(len, self._all_tables)) == len(self._keys)
            and list(map(Tensor.data_ptr, self.parameters)) == self._pointers
            and not any(map(_needs, self._left_out))
            and list(map(_held, self.optimizers)) == self._counts
        ):
            self._take_back()
            self._examine()
            self._owner = owners(self.model, self.optimizers, self._shared)
            self._remember()  # something harmless: a frozen part was added, say

    def of(self, which: int) -> list[Placement]:
        """Where that lies which an optimizer holds."""
        return [at for at in self.placements if self._owner.get(id(at.p)) == which]

    def names(self, which: int) -> list[str]:
        """Of the parameters that an optimizer holds."""
        return [at.name for at in self.of(which)]

    @property
    def frozen(self) -> list[str]:
        """Of the shared parameters, those that are not trained at present."""
        return [at.name for at in self.placements if not at.p.requires_grad]

    def gradients(self, which: int = 0) -> dict[str, Tensor]:
        """The gradients that there are for an optimizer, where they lie; of a sparse one its values."""
        grads = {at.name: at.p.grad.detach() for at in self.of(which) if at.p.grad is not None}
        return {name: g if g.layout is torch.strided else g.coalesce().values() for name, g in grads.items()}

    def zeros(self) -> Parts:
        return tuple(torch.zeros_like(part) for part in self.parts)

    @torch.no_grad()
    def gradient(self, which: int = 0, last: Parts | None = None, skipped: bool = False) -> Parts:
        """The gradients for an optimizer as flat tensors of their own, zeros where there is none, and all
        where they are `skipped`. Sparse ones are refused. `last`: those of the other optimizers.
        """
        flat = self.zeros() if last is None else tuple(part.clone() for part in last)
        for at in self.of(which):
            if at.p.grad is None or skipped:
                at.within(flat).zero_()
                continue
            if at.p.grad.layout is not torch.strided:
                raise SettingError(f"The gradient of '{at.name}' is sparse; expected dense ones.")
            at.within(flat).copy_(at.p.grad)
        if self.optimizers[1:]:
            flat[0][self._turns] = 0.0
            flat[0][self._turns][which] = 1.0
        return flat

    def turns(self, parts: Parts) -> list[float]:
        """Of a mean of gradients: which share of them was for each of several optimizers."""
        shares: list[float] = parts[0][self._turns].tolist()
        return shares

    @torch.no_grad()
    def set_gradient(self, parts: Parts, which: int = 0) -> None:
        """Have an optimizer step along these. A parameter that is frozen here gets what others have made of
        its gradient, and none as long as that is zero: no optimizer is to let it decay.
        """
        self._require_fit(parts)
        for at in self.of(which):
            grad, new = at.p.grad, at.within(parts)
            if not (at.p.requires_grad or new.any()):
                at.p.grad = None
                continue
            if grad is None or grad.layout is not torch.strided or grad.requires_grad:
                grad = at.p.grad = torch.empty_like(at.p)
            grad.copy_(new)

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
        sure = self._owner.keys() & {id(p) for p in self.parameters}
        self._left_out = [p for p in self.model.parameters() if id(p) not in sure]
        self._counts = list(map(_held, self.optimizers))

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
            do = f"add or unfreeze parameters {BEFORE}, or name there what is frozen yet"
            raise BrokenViews(
                f"{some(new)} became trainable, and nobody would hear of it. Expected: {do}: "
                "agent.wrap(model, optimizer, later=layer.parameters())."
            )


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
    if p.data_ptr() != view.data_ptr() or p.stride() != view.stride():
        return "was moved: .to(memory_format=...), flatten_parameters() or .data = ...", "do that"
    return None


def _padded(count: int, size: int) -> int:
    """So many numbers of so many bytes, up to where the next parameter may begin."""
    step = ALIGNED // size
    return -(-count // step) * step


def _held(optimizer: Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)
