"""What a script has beside its model and optimizers, saved with the agent: schedulers, scalers, averages."""

import copy
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from offbeat.core.errors import SettingError
from offbeat.training.sharable import some

Options = list[list[dict[str, Any]]]  # of each optimizer, of each of its groups, all but the parameters


class Others:
    """The objects by name, whose state comes from a checkpoint if there is one: `saved`, the agent's own; or
    `another`, that of which the agent has the model, called `source`.

    A scheduler that is made anew sets learning rates; what a checkpoint restored has the last word. From
    another agent's these are taken together with an object of it, and its optimizer's state is not.
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        saved: Mapping[str, Any],
        another: Mapping[str, Any] = MappingProxyType({}),
        source: str = "",
    ) -> None:
        self.objects: dict[str, Any] = {}
        self.optimizers, self.own = optimizers, bool(saved)
        self.source = source or ("the checkpoint" if saved else "")  # empty: all begins anew, as it should
        self.given: dict[str, Any] = dict((saved or another).get("also", {}))
        self._options: Options = _options(optimizers) if saved else _options_of(another)
        self._random: Tensor | None = saved.get("torch")

    def state(self) -> dict[str, Any]:
        return {name: dict(each.state_dict()) for name, each in self.objects.items()}

    def restore(self, names: Sequence[str]) -> list[str]:
        """Give these objects what was saved of them; returns what there is to say of it. Raises SettingError
        if it does not fit.
        """
        found = [name for name in names if name in self.given]
        for name in found:
            try:
                self.objects[name].load_state_dict(self.given.pop(name))
            except Exception as error:  # whatever the object makes of the state of another one
                kind = type(self.objects[name]).__name__
                what = f"What {self.source} has of {name} does not fit this {kind}"
                raise SettingError(f"{what} ({type(error).__name__}: {error}); expected the same.") from error
        if found or self.own:
            self._set_options()
        if self._random is not None:
            torch.set_rng_state(self._random)
        new = [name for name in names if name not in found]
        said = [f"{self.source} has nothing of {some(new)}, which begins anew"] if new and self.source else []
        return said if self.own or not found else [f"{some(found)} is as in {self.source}", *said]

    def _set_options(self) -> None:
        for optimizer, groups in zip(self.optimizers, self._options, strict=bool(self._options)):
            for group, options in zip(optimizer.param_groups, groups, strict=False):  # more may have come
                for key, value in options.items():
                    if isinstance(value, Tensor) and isinstance(group.get(key), Tensor):
                        group[key].copy_(value)
                    else:
                        group[key] = copy.copy(value)


def _options_of(saved: Mapping[str, Any]) -> Options:
    """Those that the optimizers of a checkpoint had."""
    states = saved.get("optimizer", [])
    return [
        [{key: v for key, v in group.items() if key != "params"} for group in state["param_groups"]]
        for state in (states if isinstance(states, list) else [states])
    ]


def _options(optimizers: Sequence[Optimizer]) -> Options:
    return [
        [
            {key: v.clone() if isinstance(v, Tensor) else v for key, v in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]
        for optimizer in optimizers
    ]


def refuse_stateless(objects: Mapping[str, Any]) -> None:
    """Raise SettingError for what has no state to save."""
    for name, each in objects.items():
        if not all(callable(getattr(each, method, None)) for method in ("state_dict", "load_state_dict")):
            got = f"{name} is a {type(each).__name__}"
            raise SettingError(f"{got}; expected an object with state_dict and load_state_dict.")
