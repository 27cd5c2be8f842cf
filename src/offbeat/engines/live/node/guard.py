"""Numbers that are not finite stay where they came up: an agent skips that update, and the run goes on.

A gradient that is not finite counts as zero before the algorithm sees it, and the local rule, whose momentum
or moments it would spoil for good, is not asked. So every algorithm makes its step as usual: it mixes, sends
what others wait for, and adds nothing of its own. (R-FAST's tracker counts that gradient as zero until the
next one; all-reduce's mean is over the others.) A model that is not finite once it is written, because sums
overflow or a neighbour sent such a thing, takes its former value again, and nothing of it is published. The
rule itself, which a replay follows too: `SkipNotFinite` in `offbeat.engines.handler_step`.
"""

import sys
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from offbeat.core.errors import OffbeatError
from offbeat.core.sums import finite
from offbeat.engines.handler_step import SkipNotFinite
from offbeat.engines.live.shm.board import Cells, Row

SKIP, STOP, IGNORE = POLICIES = ("skip", "stop", "ignore")
IN_A_ROW = 10  # so many updates skipped one after another are no accident
DO = "Lower the learning rate, clip gradients, or look at the data"
SMALL = 65_536  # numbers in a buffer that is watched, at most


class NotFinite(OffbeatError):
    """An update, or what was to be saved, is not finite."""


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    return [name for name, t in tensors.items() if t.is_floating_point() and not finite([t])]


class Guard(SkipNotFinite):
    """What one agent does: SKIP the update, STOP the run with an error, or IGNORE what is not finite.

    Attributes:
        row: the agent's row of the board, where the updates that all its lives skipped are counted
    """

    def __init__(self, me: int, policy: str = IGNORE, row: "Cells | None" = None) -> None:
        self.me, self.policy, self.row, self.skipped = me, policy, row, 0
        self._last, self._in_a_row = -1, 0

    @property
    def on(self) -> bool:
        """Whether anything is looked at."""
        return self.policy != IGNORE

    def tell(self, what: str) -> None:
        sys.stderr.write(f"offbeat: agent {self.me}: {what}\n")
        sys.stderr.flush()

    def refuses(self, tensors: Iterable[Tensor], step: int, what: Callable[[], str]) -> bool:
        """Whether the update of this step is skipped, as these numbers, `what` they are, are not finite."""
        if not self.on or not super().refuses(tensors, step, what):
            return False
        said = f"{what()} of step {step} is not finite"
        if self.policy == STOP:
            leave_out = "--on-nan skip leaves out such updates"
            raise NotFinite(f"Agent {self.me}: {said}, and --on-nan stop ends the run. {DO}; {leave_out}.")
        self.skipped += 1
        if self.row is not None:
            self.row[Row.SKIPPED] += 1
        if step != self._last:
            self._in_a_row = self._in_a_row + 1 if step == self._last + 1 else 1
            self._last = step
            if self._in_a_row == IN_A_ROW:
                many = f"{IN_A_ROW} UPDATES IN A ROW ARE NOT FINITE, the last at step {step}"
                self.tell(f"{many}: this agent learns nothing any more. {DO} (--on-nan stop ends a run).")
        if self.skipped & (self.skipped - 1) == 0:  # the first, second, fourth, eighth, ...
            self.tell(f"{said}; that update is skipped ({self.skipped} so far)")
        return True


class Statistics:
    """Keeps a model's buffers finite: BatchNorm takes in a batch before anybody has seen its gradient.

    `mend` is called in every step, and before every checkpoint, as nobody is told of steps that a scaler of
    mixed precision leaves out. Watched are the small buffers that are finite at first: no masks of -inf.
    """

    def __init__(self, model: nn.Module) -> None:
        self._watched: dict[torch.device, list[tuple[nn.Module, str]]] = {}
        for module in model.modules():
            for name, b in module._buffers.items():
                if b is None or name in module._non_persistent_buffers_set or not b.is_floating_point():
                    continue
                if b.numel() <= SMALL and b.is_contiguous() and finite([b]):
                    self._watched.setdefault(b.device, []).append((module, name))
        self._kept = {device: torch.cat(self._now(device)) for device in self._watched}

    @torch.no_grad()
    def mend(self) -> None:
        """Remember how they are now; those that are not finite are given their last values instead."""
        for device, kept in self._kept.items():
            now = self._now(device)
            fresh = torch.cat(now)
            if finite([fresh]):
                self._kept[device] = fresh
            elif fresh.shape == kept.shape:
                for b, before in zip(now, torch.split(kept, [len(b) for b in now]), strict=True):
                    if not finite([b]):
                        b.copy_(before)

    @torch.no_grad()
    def changed(self) -> bool:
        """Whether they are others than at the last `mend`, or, before the first, than when this was made."""
        return not all(torch.equal(torch.cat(self._now(device)), kept) for device, kept in self._kept.items())

    def _now(self, device: torch.device) -> list[Tensor]:
        found = [module._buffers.get(name) for module, name in self._watched[device]]
        return [b.detach().reshape(-1) for b in found if b is not None]
