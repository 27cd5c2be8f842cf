"""Which parameters can be shared, and which optimizer holds each of them: what is refused, by name."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from offbeat.core.errors import SettingError

FEW = 4  # names in a message
BEFORE = "before wrapping the model"
AVERAGING = {"DistributedDataParallel", "FullyShardedDataParallel", "FSDPModule"}


def some(names: Sequence[str]) -> str:
    """A few names, and how many more there are."""
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return ", ".join(f"'{name}'" for name in names[:FEW]) + more


def shared(model: nn.Module, later: Iterable[nn.Parameter]) -> dict[str, nn.Parameter]:
    """The parameters that are shared: the trainable ones, and those that will be `later`. Raises SettingError
    if one of them cannot be.
    """
    wanted = _frozen_yet(model, later)
    _refuse_modules(model, wanted)
    owner: dict[tuple[torch.device, int], str] = {}
    found = {}
    for name, p in model.named_parameters():
        if nn.parameter.is_lazy(p):
            raise SettingError(f"The parameter '{name}' has no shape yet: run one batch {BEFORE}.")
        plain = type(p.data) is Tensor and p.layout is torch.strided and not p.is_meta
        if p.requires_grad or id(p) in wanted:
            found[name] = p
            if not (plain and p.is_floating_point()):
                got = f"a {type(p.data).__name__} of {p.dtype}, {p.layout}, on {p.device}"
                raise SettingError(f"The parameter '{name}' is {got}; expected a plain dense real one.")
        if plain and p.numel() and (twin := owner.setdefault((p.device, p.data_ptr()), name)) != name:
            raise SettingError(f"'{twin}' and '{name}' share memory, untied; tie them as one: a.w = b.w.")
    if not any(p.requires_grad for p in found.values()):
        raise SettingError("The model has no trainable parameters; expected some with requires_grad.")
    return found


def _refuse_modules(model: nn.Module, wanted: set[int]) -> None:
    for name, m in model.named_modules():
        if kinds := AVERAGING.intersection(c.__name__ for c in type(m).__mro__):
            what = f"{min(kinds)}, which averages on its own"
            raise SettingError(f"The module '{name}' is {what}; expected a plain one.")
        trained = any(p.requires_grad or id(p) in wanted for p in m.parameters(recurse=False))
        if getattr(m, "sparse", False) is True and trained:
            raise SettingError(f"'{name}' has sparse gradients, which cannot be shared: set sparse=False.")


def _frozen_yet(model: nn.Module, later: Iterable[nn.Parameter]) -> set[int]:
    if isinstance(later, nn.Module):
        do = "expected its parameters, later=layer.parameters()"
        raise SettingError(f"later= got a {type(later).__name__}; {do}.")
    wanted, mine = [*later], {id(p) for p in model.parameters()}
    if wrong := [p for p in wanted if id(p) not in mine]:
        got = f"a {type(wrong[0]).__name__} of shape {[*getattr(wrong[0], 'shape', [])]}"
        raise SettingError(f"later= got {got}, which is no parameter of the model; expected some of its own.")
    return {id(p) for p in wanted}


def owners(
    model: nn.Module, optimizers: Sequence[Optimizer], parameters: dict[str, nn.Parameter]
) -> dict[int, int]:
    """By the id of a parameter, the number of the optimizer that holds it. Raises SettingError if two do, if
    none does of one that is trained, and for what is not the model's.
    """
    called = {id(p): name for name, p in model.named_parameters()}
    owner, foreign, twice = dict[int, int](), list[str](), list[str]()
    for k, optimizer in enumerate(optimizers):
        which = f"optimizer {k}, " if len(optimizers) > 1 else ""
        for g, group in enumerate(optimizer.param_groups):
            for at, p in enumerate(group["params"]):
                if id(p) not in called:
                    foreign.append(f"{which}group {g}, number {at}: {tuple(p.shape)}")
                elif owner.setdefault(id(p), k) != k:
                    twice.append(called[id(p)])
    held = "The optimizer does not hold" if len(optimizers) == 1 else "None of the optimizers holds"
    if missing := [name for name, p in parameters.items() if p.requires_grad and id(p) not in owner]:
        raise SettingError(f"{held} {some(missing)}; give it these, or freeze them.")
    if foreign:
        raise SettingError(f"The optimizer holds what is not the model's: {some(foreign)}. Make it last.")
    if twice:
        raise SettingError(f"Two optimizers hold {some(twice)}; expected each parameter in one of them.")
    return owner


def listed(
    model: nn.Module | Sequence[nn.Module], optimizer: Optimizer | Sequence[Optimizer]
) -> tuple[nn.Module, list[Optimizer]]:
    """The models as one, and the optimizers. Raises SettingError for anything else."""
    models = [*model] if isinstance(model, Sequence) else [model]
    optimizers = [*optimizer] if isinstance(optimizer, Sequence) else [optimizer]
    right = all(isinstance(m, nn.Module) for m in models) and all(
        hasattr(o, "param_groups") for o in optimizers
    )
    if not (models and optimizers and right):
        got = " and ".join(f"a {type(each).__name__}" for each in (*models, *optimizers)) or "nothing"
        how = "Expected agent.wrap(model, optimizer), in this order, or lists of them"
        raise SettingError(f"{how}; got {got}.")
    if len({*map(id, optimizers)}) < len(optimizers):
        raise SettingError("One optimizer was given twice; expected each once.")
    if any(isinstance(each, torch.optim.LBFGS) for each in optimizers):
        raise SettingError("LBFGS evaluates the loss several times a step; expected one gradient a step.")
    return nn.ModuleList(models) if isinstance(model, Sequence) else model, optimizers
