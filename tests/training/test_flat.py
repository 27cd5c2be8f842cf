"""A model's parameters as one flat buffer: training, saving and loading go on as if it were not there."""

import copy
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from torch.autograd.graph import increment_version
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parametrizations, parametrize
from torch.optim import SGD, Adam, AdamW, Optimizer

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.training.flat import BrokenViews, FlatParameters


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.out = nn.Linear(7, 7), nn.Linear(7, 7), nn.Linear(7, 3)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))
        return out


class Odd(nn.Module):
    """Empty, 0-d, mixed dtypes, non-contiguous, frozen, and one that never gets a gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.none = nn.Parameter(torch.tensor(1.5)), nn.Parameter(torch.zeros(0, 4))
        self.wide = nn.Parameter(torch.randn(3, 7, dtype=torch.float64).t())
        self.gaps = nn.Parameter(torch.randn(7, 6)[:, ::2])
        self.low = nn.Parameter(torch.randn(5, dtype=torch.bfloat16))
        self.frozen = nn.Parameter(torch.randn(3), requires_grad=False)
        self.unused = nn.Parameter(torch.randn(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x.double() @ self.wide + (x @ self.gaps).double() * self.scale + self.frozen
        return y.float() * self.low.mean().float() + self.none.sum()


def plain() -> nn.Module:
    return nn.Sequential(nn.Linear(7, 257), nn.ReLU(), nn.Linear(257, 17), nn.LayerNorm(17), nn.Linear(17, 3))


def normed() -> nn.Module:
    return nn.Sequential(
        parametrizations.weight_norm(nn.Linear(7, 9)),
        parametrizations.spectral_norm(nn.Linear(9, 9)),
        nn.Linear(9, 3),
    )


def conv() -> nn.Module:
    head = nn.Sequential(
        nn.Unflatten(1, (1, 7, 1)), nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU()
    )
    net = nn.Sequential(head, nn.Conv2d(4, 5, 3, padding=1), nn.Flatten(), nn.Linear(35, 3))
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


MODELS: dict[str, Callable[[], nn.Module]] = {
    "plain": plain,
    "tied": Tied,
    "odd": Odd,
    "normed": normed,
    "conv": conv,
}
OPTIMIZERS: dict[str, Callable[[Iterator[nn.Parameter]], Optimizer]] = {
    "sgd": lambda ps: SGD(ps, lr=0.1, momentum=0.9, nesterov=True, foreach=False),
    "sgd foreach": lambda ps: SGD(ps, lr=0.1, momentum=0.9, foreach=True),
    "adamw": lambda ps: AdamW(ps, lr=0.01, foreach=False),
    "adamw foreach": lambda ps: AdamW(ps, lr=0.01, foreach=True),
    "adam fused": lambda ps: Adam(ps, lr=0.01, fused=True),
}


def make(name: str, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return MODELS[name]()


def wrapped(model: nn.Module) -> FlatParameters:
    return FlatParameters(model, SGD(model.parameters(), lr=0.1))


def backward(model: nn.Module, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    loss = nn.functional.cross_entropy(model(torch.randn(5, 7)), torch.randint(3, (5,)))
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


def train(model: nn.Module, optimizer: Optimizer, flat: FlatParameters | None) -> list[Tensor]:
    losses = []
    for step in range(6):
        optimizer.zero_grad()
        losses.append(backward(model, step).detach())
        if flat is not None:
            flat.check()
            flat.set_gradient(flat.gradient())
            flat.write(tuple(part.clone() for part in flat.parts))
        optimizer.step()
    return losses


def same(a: nn.Module, b: nn.Module) -> bool:
    theirs = b.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in a.state_dict().items())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("name", MODELS)
def test_training_is_the_same_bit_for_bit(name: str, optimizer: str) -> None:
    plain, flattened = make(name), make(name)
    if (
        name == "odd"
    ):  # a step moves a parameter without a gradient no more than one with zeros, save for decay
        plain.unused.requires_grad_(False), flattened.unused.requires_grad_(False)
        if "adam" in optimizer:
            plain.none.requires_grad_(False), flattened.none.requires_grad_(False)
        if "fused" in optimizer:  # which in torch itself goes wrong where a parameter has gaps
            plain.gaps.data, flattened.gaps.data = plain.gaps.data.clone(), flattened.gaps.data.clone()
    start = copy.deepcopy(plain.state_dict())
    one, two = OPTIMIZERS[optimizer](plain.parameters()), OPTIMIZERS[optimizer](flattened.parameters())
    flat = FlatParameters(flattened, two)
    assert same(plain, flattened)
    expected, got = train(plain, one, None), train(flattened, two, flat)
    assert all(map(torch.equal, expected, got)) and same(plain, flattened)
    assert any(not torch.equal(value, start[key]) for key, value in plain.state_dict().items())


def test_training_with_a_gradient_scaler_is_the_same() -> None:
    results = []
    for flatten in (False, True):
        model = make("plain")
        optimizer, scaler = SGD(model.parameters(), lr=0.1), torch.amp.GradScaler("cpu", init_scale=8.0)
        flat = FlatParameters(model, optimizer) if flatten else None
        for step in range(4):
            optimizer.zero_grad()
            torch.manual_seed(step)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(torch.randn(5, 7)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            if flat is not None:
                flat.set_gradient(flat.gradient())
            scaler.step(optimizer)
            scaler.update()
        results.append(model)
    assert same(*results) and not same(results[0], make("plain"))


@pytest.mark.parametrize("name", MODELS)
def test_where_things_lie(name: str) -> None:
    model = make(name)
    before = [(p, p.stride()) for p in model.parameters()]
    flat = wrapped(model)
    assert all(a is b for a, (b, _) in zip(model.parameters(), before, strict=True)), "the same objects"
    assert all(part.dim() == 1 for part in flat.parts)
    trained = [(p, stride) for p, stride in before if p.requires_grad]
    for place, (p, stride) in zip(flat.placements, trained, strict=True):
        part = flat.parts[place.part]
        size = part.element_size()
        assert (place.shape, part.dtype, part.device) == (p.shape, p.dtype, p.device)
        assert p.untyped_storage().nbytes() == p.numel() * size, "a storage of its own"
        assert place.offset * size % 64 == 0 and (
            p.numel() == 0 or p.data_ptr() == part.data_ptr() + place.offset * size
        )
        assert p.stride() == place.stride and (place.name == "gaps" or p.stride() == stride)
    assert len({(p.part, p.offset) for p in flat.placements if 0 not in p.shape}) == sum(
        p.numel() > 0 for p, _ in trained
    )
    flat.check()


def test_parts_come_in_order_and_frozen_parameters_stay() -> None:
    model = make("odd")
    address, value = model.frozen.data_ptr(), model.frozen.clone()
    flat = wrapped(model)
    assert [part.dtype for part in flat.parts] == [torch.float32, torch.float64, torch.bfloat16]
    for part in flat.parts:
        part.fill_(3)
    assert model.frozen.data_ptr() == address and torch.equal(model.frozen, value)
    assert float(model.scale.detach()) == 3 and "frozen" not in flat.named(flat.parts)


def test_gradients_there_and_back() -> None:
    model = make("odd")
    flat = wrapped(model)
    assert not any(part.any() for part in flat.gradient())
    backward(model)
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    gathered = flat.gradient()
    named = flat.named(gathered)
    assert all(
        torch.equal(named[name], g) and bool(g.numel() == 0 or g.any()) for name, g in expected.items()
    )
    assert "unused" not in expected and not named["unused"].any()
    model.zero_grad()
    assert all(torch.equal(named[name], g) for name, g in expected.items()), "tensors of their own"
    flat.set_gradient(gathered)
    assert all(p.grad is not None for name, p in model.named_parameters() if name != "frozen")
    assert model.frozen.grad is None
    gathered[0].zero_()
    assert all(torch.equal(dict(model.named_parameters())[name].grad, g) for name, g in expected.items()), (
        "copied"
    )


def test_gradients_that_are_part_of_a_graph_are_gathered_without_it() -> None:
    model = make("plain")
    flat = wrapped(model)
    for p in model.parameters():
        p.grad = p * 2
    assert not any(part.requires_grad for part in flat.gradient())
    flat.set_gradient(tuple(map(torch.ones_like, flat.parts)))
    assert all(bool((p.grad == 1).all()) for p in model.parameters())


def test_sparse_gradients_are_refused() -> None:
    table = nn.Embedding(5, 3)
    flat = wrapped(table)
    table.weight.grad = torch.zeros(5, 3).to_sparse()
    with pytest.raises(SettingError, match="'weight' is sparse"):
        flat.gradient()


def test_write_and_named() -> None:
    model, other = make("tied", 0), make("tied", 5)
    flat, theirs = wrapped(model), wrapped(other)
    assert not same(model, other)
    flat.write(theirs.parts)
    assert same(model, other) and model.first.weight is model.second.weight
    named = flat.named(theirs.parts)
    assert named.keys() == model.state_dict().keys()
    assert (
        named["first.weight"].data_ptr() == named["second.weight"].data_ptr() == other.first.weight.data_ptr()
    )
    for wrong in ((), (torch.zeros(1),), tuple(torch.zeros(2 * len(p))[::2] for p in flat.parts)):
        for use in (flat.write, flat.named, flat.set_gradient):
            with pytest.raises(SettingError, match="expected dense"):
                use(wrong)


@pytest.mark.parametrize("name", MODELS)
def test_a_state_dict_goes_through(name: str) -> None:
    model, fresh = make(name, 0), make(name, 3)
    flat = wrapped(model)
    state = {**model.state_dict(), **flat.named(tuple(part.clone() for part in flat.parts))}
    assert state.keys() == model.state_dict().keys()
    fresh.load_state_dict(state)
    assert same(fresh, model)
    model.load_state_dict(make(name, 4).state_dict())
    flat.check()
    assert same(model, make(name, 4)), "what is loaded is in the buffer"


def test_names_tell_models_apart() -> None:
    straight = MODELS["conv"]().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    assert wrapped(make("conv")).layout == wrapped(make("conv", 7)).layout
    assert wrapped(straight).layout != wrapped(make("conv")).layout, "the same numbers in another order"


def untie(model: Any) -> None:
    model.second.weight = nn.Parameter(model.second.weight.detach().clone())


def swap(model: Any) -> None:
    model.out.weight = nn.Parameter(torch.zeros(3, 7))


def assign(model: Any) -> None:
    model.load_state_dict({name: t.clone() for name, t in model.state_dict().items()}, assign=True)


def new_data(model: Any) -> None:
    model.out.bias.data = torch.zeros(3)


def module(model: Any) -> None:
    model.out = nn.Linear(7, 3)


BREAKS: dict[str, tuple[Callable[[Any], object], str, str, str]] = {
    "half": (lambda m: m.half(), "first.weight", "float16, was torch.float32", "to(dtype)"),
    "double": (lambda m: m.to(torch.float64), "first.weight", "float64, was torch.float32", "to(dtype)"),
    "device": (lambda m: m.to("meta"), "first.weight", "is on meta, was on cpu", "to(device)"),
    "assign": (assign, "first.weight", "assign=True", "without assign"),
    "replaced": (swap, "out.weight", "was replaced", "replace"),
    "module": (module, "out.weight", "was replaced", "replace"),
    "untied": (untie, "second.weight", "was replaced", "replace"),
    "data": (new_data, "out.bias", "was moved", "before wrapping"),
    "added": (lambda m: m.add_module("more", nn.Linear(2, 2)), "more.weight", "became trainable", "unfreeze"),
    "another": (
        lambda m: m.out.register_parameter("w", nn.Parameter(torch.ones(1))),
        *("out.w", "trainable", "add or unfreeze"),
    ),
    "weight_norm": (
        lambda m: parametrizations.weight_norm(m.out),
        *("out.weight", "original0", "re-parametrise"),
    ),
    "parametrised": (
        lambda m: parametrize.register_parametrization(m.out, "weight", nn.Identity()),
        *("out.weight", "original", "re-parametrise"),
    ),
    "wrapped": (
        lambda m: setattr(m, "out", nn.Sequential(m.out)),
        *("out.weight", "out.0.weight|is gone", "modules"),
    ),
    "removed": (lambda m: delattr(m, "out"), "out.weight", "is gone", "modules"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_what_breaks_the_views_is_named_with_its_fix(case: str) -> None:
    broken, name, what, fix = BREAKS[case]
    model = make("tied")
    flat = wrapped(model)
    flat.check()
    broken(model)
    for _ in range(2):  # it stays broken
        with pytest.raises(BrokenViews, match=what) as caught:
            flat.check()
        assert (
            f"'{name}'" in str(caught.value)
            and fix in str(caught.value)
            and "before wrapping" in str(caught.value)
        )
    assert isinstance(caught.value, OffbeatError) and caught.value.exit_code == 1


def test_another_memory_format_or_an_unfrozen_parameter_is_noticed() -> None:
    model = MODELS["conv"]().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    flat = wrapped(model)
    model.to(memory_format=torch.channels_last)
    with pytest.raises(BrokenViews, match="memory_format"):
        flat.check()
    odd = make("odd")
    flat = wrapped(odd)
    odd.frozen.requires_grad_(True)
    with pytest.raises(BrokenViews, match="'frozen' became trainable"):
        flat.check()


def test_harmless_changes_are_let_through_and_later_ones_noticed() -> None:
    model = make("tied")
    flat = wrapped(model)
    model.add_module("dropout", nn.Dropout())
    model.to(torch.float32).eval().train()
    model.out.requires_grad_(False)
    flat.check()
    model.out.requires_grad_(True)
    flat.check()
    model.share_memory()
    flat.check()
    assert flat.parts[0].data_ptr() == model.first.weight.data_ptr(), "it was taken back"
    copy.deepcopy(model).half()
    flat.check()
    model.half()
    with pytest.raises(BrokenViews):
        flat.check()


def test_check_is_cheap() -> None:
    model = nn.Sequential(*(nn.Linear(3, 3) for _ in range(100)))
    flat = wrapped(model)
    times = []
    for _ in range(50):
        start = time.perf_counter()
        flat.check()
        times.append(time.perf_counter() - start)
    assert min(times) < 1e-3  # 200 parameters; some 30 us


class Foreign(nn.Module):
    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=weight.is_floating_point() or weight.is_complex())


class Aliased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.ones(3))
        self.b = nn.Parameter(self.a.data)


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "empty": (nn.ReLU, "no trainable parameters"),
    "frozen": (lambda: nn.Linear(2, 2).requires_grad_(False), "no trainable parameters"),
    "lazy": (lambda: nn.Sequential(nn.LazyLinear(2)), "'0.weight' has no shape yet: run one batch"),
    "complex": (lambda: Foreign(torch.ones(2, dtype=torch.complex64)), "complex64.*expected a plain dense"),
    "meta": (lambda: nn.Linear(2, 2, device="meta"), "on meta"),
    "sparse": (
        lambda: nn.Sequential(nn.Embedding(4, 2, sparse=True)),
        "'0' has sparse gradients.*sparse=False",
    ),
    "aliased": (Aliased, "'a' and 'b' share memory"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_models_that_cannot_be_shared(case: str) -> None:
    made, why = REFUSED[case]
    model = made()
    parameters = list(model.parameters()) or [nn.Parameter(torch.ones(1))]
    with pytest.raises(SettingError, match=why) as caught:
        FlatParameters(model, SGD(parameters, lr=0.1))
    assert caught.value.exit_code == 2


def test_a_lazy_model_after_one_batch() -> None:
    model = nn.Sequential(nn.LazyLinear(2))
    optimizer = SGD(model.parameters(), lr=0.1)
    model(torch.ones(1, 3))
    FlatParameters(model, optimizer).check()


def test_data_parallel_modules_are_refused(tmp_path: Path) -> None:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        for model in (
            DistributedDataParallel(nn.Linear(2, 2)),
            nn.Sequential(DistributedDataParallel(nn.Linear(2, 2))),
        ):
            with pytest.raises(SettingError, match="DistributedDataParallel, which averages on its own"):
                wrapped(model)
    finally:
        dist.destroy_process_group()


def test_optimizers_of_another_model() -> None:
    model, other = make("plain"), make("plain")
    addresses = [p.data_ptr() for p in model.parameters()]
    with pytest.raises(
        SettingError, match=r"does not hold '0.weight', '0.bias', '2.weight', '2.bias' and 4 more"
    ):
        FlatParameters(model, SGD(other.parameters(), lr=0.1))
    both = SGD([{"params": list(model.parameters())}, {"params": list(other.parameters())}], lr=0.1)
    with pytest.raises(SettingError, match=r"not the model's: 'group 1, number 0: \(257, 7\)'.* and 4 more"):
        FlatParameters(model, both)
    with pytest.raises(SettingError, match=r"does not hold '4.weight', '4.bias'"):
        FlatParameters(model, SGD(model[:4].parameters(), lr=0.1))
    assert [p.data_ptr() for p in model.parameters()] == addresses, "a refused model is left as it was"


def test_hooks_and_the_state_of_the_optimizer_survive() -> None:
    model = make("plain")
    optimizer = SGD(model.parameters(), lr=0.1, momentum=0.9)
    backward(model)
    optimizer.step()
    momentum = {id(p): optimizer.state[p]["momentum_buffer"] for p in model.parameters()}
    seen: list[nn.Parameter] = []
    first = next(model.parameters())
    first.register_post_accumulate_grad_hook(seen.append)
    FlatParameters(model, optimizer)
    backward(model)
    assert seen == [first] and all(
        optimizer.state[p]["momentum_buffer"] is momentum[id(p)] for p in model.parameters()
    )


def test_running_statistics_are_not_shared() -> None:
    model = make("conv")
    backward(model)
    flat = wrapped(model)
    found = {name: b for name, b in model.named_buffers() if b.is_floating_point()}
    assert found.keys() == {"0.2.running_mean", "0.2.running_var"}
    assert found.keys().isdisjoint(flat.named(flat.parts))
    before = copy.deepcopy(found)
    for part in flat.parts:
        part.zero_()
    assert all(torch.equal(found[name], before[name]) for name in found), "not in the buffers"
    backward(model)
    assert all(not torch.equal(b, before[name]) for name, b in found.items())


@pytest.mark.parametrize("name", ["plain", "tied", "normed"])
def test_what_saves_models_takes_a_wrapped_one(name: str, tmp_path: Path) -> None:
    """Each parameter is a whole to safetensors, and a part of a model is saved without the rest."""
    model, fresh = make(name), make(name, 3)
    wrapped(model)
    save_model(model, str(tmp_path / "model.safetensors"))
    assert not any(load_model(fresh, tmp_path / "model.safetensors")), "nothing missing, nothing unexpected"
    assert same(fresh, model)
    part, whole = tmp_path / "part.pt", tmp_path / "whole.pt"
    first = next(model.parameters())
    torch.save(first, part)
    assert part.stat().st_size < 4 * first.numel() + 3000
    torch.save(model.state_dict(), whole)
    fresh = make(name, 4)
    fresh.load_state_dict(torch.load(whole))
    assert same(fresh, model) and same(copy.deepcopy(model), model)


def test_a_graph_from_before_the_mixing_is_refused_by_torch() -> None:
    """Also where the optimizer left a parameter alone, as a step of a discriminator does its generator."""
    model = make("plain")
    flat = wrapped(model)
    loss = model(torch.ones(2, 7)).sum()
    flat.write(flat.parts, told=False)
    loss.backward(retain_graph=True)
    flat.write(tuple(part + 1 for part in flat.parts))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_older_versions_of_torch_count_changes_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def one(tensor: Tensor) -> None:
        if not isinstance(tensor, Tensor):
            raise TypeError("expected a Tensor")
        increment_version(tensor)

    monkeypatch.setattr("offbeat.training.flat.increment_version", one)
    flat = wrapped(model := make("plain"))
    before = [p._version for p in model.parameters()]
    flat.write(flat.parts)
    assert all(p._version > b for p, b in zip(model.parameters(), before, strict=True))


def test_a_model_that_was_given_to_another_process_stays_in_its_buffer() -> None:
    model = make("plain")
    flat = wrapped(model)
    given = model.state_dict()["0.weight"].share_memory_()
    with torch.no_grad():
        model[0].weight.mul_(2)
    flat.check()
    assert torch.equal(flat.named(flat.parts)["0.weight"], given), "what it was meanwhile"
    flat.write(tuple(part + 1 for part in flat.parts))
    assert torch.equal(model[0].weight, given + 1), "and what was given stays"
