"""Notices a model that is trained past its agent: by another optimizer than the one that `wrap` returned, or
by hand.

Whatever changes the parameters between two steps is part of the next step. So a second optimizer, made after
`wrap`, goes unnoticed as long as the first one makes steps too; but if it does all the work, nothing of it is
ever mixed, and what is exported is the model of before. How often other optimizers have made a step is
learned from torch, which calls a hook after every one; other changes in place from autograd's counters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

STEPS, CHANGES = 20, 200
"""So many steps of other optimizers, or changes in place, without a step of ours are no clipping of
weights."""

DO = "Only steps of the optimizer that `wrap` returned are mixed: make it before `wrap`, and step no other."


class BypassDetector:
    """Counts what changes a model's parameters outside the steps of its agent; use it in a `with` around
    these.

    Attributes:
        optimizer: the one that was wrapped
        parameters: what it trains
        tell: called with a warning, as soon as it is certain; once
    """

    def __init__(
        self, optimizer: Optimizer, parameters: Sequence[Tensor], tell: Callable[[str], None]
    ) -> None:
        self.optimizer, self.tell = optimizer, tell
        self._ours = {id(p) for p in parameters}
        self._some = [parameters[0], parameters[-1]]
        self._within = self._warned = False
        self._who = ""
        self._handle = register_optimizer_step_post_hook(self._stepped)
        self._note()

    def __enter__(self) -> BypassDetector:
        self._within = True
        if self._changes() >= CHANGES:
            self._warn()
        return self

    def __exit__(self, *error: object) -> None:
        self._within = False
        self._note()

    def close(self, changed: bool) -> None:
        """The training is over; `changed`: the parameters are not those of the agent's last step."""
        self._handle.remove()
        if changed and (self._others or self._changes() >= CHANGES):
            self._warn()

    def _stepped(self, optimizer: Optimizer, *_: Any) -> None:
        if self._within or not any(
            id(p) in self._ours for group in optimizer.param_groups for p in group["params"]
        ):
            return
        self._others += 1
        whose = (
            "the wrapped optimizer past its own step" if optimizer is self.optimizer else "another optimizer"
        )
        self._who = f"{whose} ({type(optimizer).__name__})"
        if self._others == STEPS:
            self._warn()

    def _warn(self) -> None:
        if not self._warned:
            self._warned = True
            steps, changes = f"{self._others:,} steps of {self._who}", f"{self._changes():,} changes in place"
            what = steps if self._others else changes
            self.tell(
                f"{what} CHANGED THIS MODEL WITHOUT A STEP OF ITS AGENT; the others hear nothing of that. "
                f"{DO}"
            )

    def _changes(self) -> int:
        return max(p._version - then for p, then in zip(self._some, self._then, strict=True))

    def _note(self) -> None:
        self._then = [p._version for p in self._some]
        self._others = 0
