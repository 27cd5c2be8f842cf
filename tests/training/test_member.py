"""The user's own loop: `join`, `wrap`, `shard` with one agent alone, and the flat buffers beneath."""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from one_agent import Join, batches, equal
from torch import Tensor, nn
from torch.nn import functional

import offbeat
from offbeat.core.errors import FINAL, SettingError
from offbeat.core.vector import Stamp, Vector
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.guard import Guard
from offbeat.training import child, member
from offbeat.training.flat import BrokenViews, FlatParameters
from offbeat.training.step import OptimizerRule

pytestmark = pytest.mark.usefixtures("nobody_joined")
Make = Callable[[Any], torch.optim.Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=1e-3, nesterov=True),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.01),
    "fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
    "foreach": lambda p: torch.optim.Adam(p, lr=0.01, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
}


class Tied(nn.Module):
    """Two layers that share their weight, and one parameter that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.b.weight = self.a.weight
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.still = nn.Parameter(torch.ones(6), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """A residual of sorts."""
        out: Tensor = self.b(torch.tanh(self.a(x))) * self.scale + self.still
        return out


MODELS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(6, 6),
    "tied": Tied,
    "norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6)),
    "parametrized": lambda: nn.Sequential(
        nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)),
        nn.utils.parametrizations.spectral_norm(nn.Linear(6, 6)),
    ),
    "mixed dtypes": lambda: nn.Sequential(nn.Linear(6, 6), Doubled()),
}


class Doubled(nn.Module):
    """A part in float64."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(6, 6).double()

    def forward(self, x: Tensor) -> Tensor:
        """In float64, and back."""
        out: Tensor = self.inner(x.double()).float()
        return out


def train(model: nn.Module, optimizer: torch.optim.Optimizer, set_to_none: bool = True) -> None:
    for x, y in batches():
        optimizer.zero_grad(set_to_none=set_to_none)
        functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.mark.parametrize("algorithm", ["adsgd", "adpsgd", "rfast", "dsgd", "allreduce"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_alone_it_trains_as_if_offbeat_were_not_there(algorithm: str, optimizer: str) -> None:
    plain = MODELS["norm"]()
    ours = copy.deepcopy(plain)
    train(plain, OPTIMIZERS[optimizer](plain.parameters()))
    wrapped = offbeat.join(algorithm).wrap(ours, OPTIMIZERS[optimizer](ours.parameters()))
    train(ours, wrapped)
    assert equal(plain, ours), "bit for bit"


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("set_to_none", [True, False])
def test_every_kind_of_model_trains_the_same_in_flat_buffers(model: str, set_to_none: bool) -> None:
    torch.manual_seed(1)
    plain = MODELS[model]()
    ours = copy.deepcopy(plain)
    train(plain, OPTIMIZERS["momentum"](plain.parameters()), set_to_none)
    agent = offbeat.join()
    train(ours, agent.wrap(ours, OPTIMIZERS["momentum"](ours.parameters())), set_to_none)
    assert equal(plain, ours)
    average = agent.average()
    assert average.keys() == {
        name for name, p in ours.named_parameters(remove_duplicate=False) if p.requires_grad
    }
    assert all(torch.equal(average[name], ours.state_dict()[name]) for name in average)


def test_the_optimizer_remains_an_optimizer() -> None:
    """Schedulers, closures, a gradient scaler and accumulation work as before."""
    plain = nn.Linear(6, 6)
    ours = copy.deepcopy(plain)
    for model in (plain, ours):
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        if model is ours:
            assert offbeat.join().wrap(ours, optimizer) is optimizer
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.5)
        for k, (x, y) in enumerate(batches()):

            def closure(
                k: int = k,
                x: Tensor = x,
                y: Tensor = y,
                model: nn.Module = model,
                optimizer: torch.optim.Optimizer = optimizer,
            ) -> Tensor:
                if k % 2 == 0:
                    optimizer.zero_grad()
                loss = functional.mse_loss(model(x), y)
                loss.backward()  # type: ignore[no-untyped-call]
                return loss

            if k % 2:
                assert optimizer.step(closure) is not None
            else:
                closure()
                continue
            scheduler.step()
    assert equal(plain, ours)


def test_a_step_that_mixed_precision_skips_is_no_event() -> None:
    model = nn.Linear(6, 6)
    before = copy.deepcopy(model)
    agent = offbeat.join()
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for p in model.parameters():
        p.grad = torch.full_like(p, float("inf"))
    scaler.scale(torch.zeros(1))
    scaler.step(optimizer)
    scaler.update()
    assert agent.steps == 0
    assert equal(before, model)


def test_whatever_breaks_the_views_is_noticed_at_the_next_step() -> None:
    model = nn.Linear(6, 6)
    optimizer = offbeat.join().wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    train(model, optimizer)
    model.double()
    with pytest.raises(BrokenViews, match="weight"):
        optimizer.step()


def test_loading_weights_into_a_wrapped_model_counts_as_part_of_the_step() -> None:
    model, other = nn.Linear(6, 6), nn.Linear(6, 6)
    optimizer = offbeat.join().wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    train(model, optimizer)
    model.load_state_dict(other.state_dict())
    optimizer.zero_grad()
    optimizer.step()
    assert equal(model, other)


def test_a_model_and_its_optimizer_in_the_wrong_order_are_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(SettingError, match="got a SGD and a Linear"):
        offbeat.join().wrap(torch.optim.SGD(model.parameters(), lr=0.1), model)  # type: ignore[call-overload]


def test_an_optimizer_that_evaluates_the_loss_itself_is_refused() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(SettingError, match="LBFGS"):
        offbeat.join().wrap(model, torch.optim.LBFGS(model.parameters()))


def test_one_process_joins_once_and_wraps_once() -> None:
    agent = offbeat.join()
    assert (agent.rank, agent.world, agent.steps) == (0, 1, 0)
    with pytest.raises(SettingError, match="joined already"):
        offbeat.join()
    with pytest.raises(SettingError, match="wrap one first"):
        agent.average()
    model = nn.Linear(2, 2)
    agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(SettingError, match="wrapped a model already"):
        agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(SettingError, match="Unknown algorithm"):
        member.Member(None, "adsdg")
    loader = [1, 2, 3]
    assert agent.shard(loader) is agent.shard(loader)
    assert list(agent.shard(loader)) == loader


def test_a_run_that_is_gone_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OFFBEAT_RUN", "/dev/shm/offbeat-nowhere")
    with pytest.raises(SettingError, match="unset OFFBEAT_RUN"):
        offbeat.join()


def test_a_displacement_is_no_version_of_somebody_elses_model() -> None:
    """Whoever has come back starts from a neighbour's version; once it has mixed since, that is not mixed
    again.
    """
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    flat = FlatParameters(model, optimizer)
    local = OptimizerRule(flat, optimizer)
    model(torch.ones(3)).sum().backward()
    given = Vector(tuple(part.clone() for part in flat.parts), Stamp(1, 19))
    for own, mixed in ((given, [Stamp(1, 19)]), (Vector(given.parts, Stamp(0, 7)), [Stamp(0, 7)])):
        driver: Any = SimpleNamespace(snapshot=given, guard=Guard(0))
        driver.agent, driver.actor = SimpleNamespace(x=own), SimpleNamespace(at=None)
        local.driver = driver
        x = own - local(local.gradient())
        assert [v.stamp for v in x.sources()] == mixed


class Extra(nn.Linear):
    """A layer with state that a checkpoint cannot hold."""

    def get_extra_state(self) -> object:
        """A set."""
        return {1, 2}

    def set_extra_state(self, state: object) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("what", ["group", "state", "model"])
def test_what_cannot_be_saved_is_said_before_the_training(what: str, in_a_run: Join) -> None:
    class Lazy(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            self.state[self.param_groups[0]["params"][0]]["seen"] = {1, 2}

    model = (Extra if what == "model" else nn.Linear)(6, 6)
    optimizer = (Lazy if what == "state" else torch.optim.SGD)(model.parameters(), lr=0.1)
    if what == "group":
        optimizer.param_groups[0]["decay"] = lambda: 0.5
    place = {
        "group": "param_groups.*decay is of type builtins.function",
        "model": "_extra_state",
        "state": "seen",
    }
    with pytest.raises(
        SettingError, match=rf"No checkpoint of this training can be saved: state.*{place[what]}"
    ):
        train(model, in_a_run().wrap(model, optimizer))
    assert what != "state" or member.joined()[0].steps == 1, "optimizers make their state in the first step"


FAILING = """
import torch
from offbeat.training import member

(agent,) = member.joined()
model = torch.nn.Linear(2, 2)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
for k in range(7):
    optimizer.zero_grad()
    model(torch.ones(2)).sum().backward()
    optimizer.step()
"""


@pytest.mark.parametrize(
    ("last", "saved"),
    [("raise NameError", 7), ("raise SystemExit('done')", 7), ("model.half(); optimizer.step()", 0)],
)
def test_what_a_script_had_reached_when_it_failed_is_saved(
    last: str, saved: int, in_a_run: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_a_run()
    monkeypatch.setattr(Driver, "leave", lambda driver: None)  # there is nobody to wait for
    (tmp_path / "train.py").write_text(FAILING + last)
    monkeypatch.setattr(sys, "argv", ["child", str(tmp_path / "train.py")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises((NameError, SystemExit)):
        child.main()
    steps = checkpoint.latest(tmp_path / "checkpoints" / "agent-0")
    assert steps == ([saved] if saved else []), "a model that is not whole is not saved"


@pytest.mark.parametrize(
    ("error", "code"), [("SettingError", FINAL), ("ContractError", FINAL), ("DiskError", 74)]
)
def test_an_error_of_ours_that_ends_a_script_is_final(
    error: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.py").write_text(f"from offbeat.core.errors import {error}\nraise {error}('so it is')")
    monkeypatch.setattr(sys, "argv", ["child", str(tmp_path / "train.py")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit) as ended:
        child.main()
    assert ended.value.code == code
    assert capsys.readouterr().err == "Error: so it is\n"


STEPPERS: dict[str, Callable[[nn.Module, torch.optim.Optimizer], Callable[[], Any]]] = {
    "a new one": lambda model, _: torch.optim.Adam(model.parameters(), lr=0.01).step,
    "the class's step": lambda _, optimizer: lambda: type(optimizer).step(optimizer),
    "by hand": lambda model, _: (
        lambda: [p.data.sub_(0.1 * p.grad) for p in model.parameters() if p.grad is not None]
    ),
}


@pytest.mark.parametrize("who", STEPPERS)
def test_a_model_that_is_trained_past_its_agent_is_no_success(
    who: str, in_a_run: Join, capsys: pytest.CaptureFixture[str]
) -> None:
    """As soon as it is certain it is said; at the end it is an error."""
    agent, model = in_a_run(), nn.Linear(6, 6)
    step = STEPPERS[who](model, agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1)))
    for _ in range(4):
        train(model, SimpleNamespace(zero_grad=lambda set_to_none: model.zero_grad(set_to_none), step=step))  # type: ignore[arg-type]
    said = capsys.readouterr().err
    assert said.count("WITHOUT A STEP OF ITS AGENT") == (who != "by hand")
    assert who == "by hand" or said.startswith("offbeat: agent 0: 20 steps of ")
    with pytest.raises(
        SettingError, match=r"Agent 0 made no step, though its model was changed\. Only steps of"
    ):
        agent.leave()


def test_what_is_trained_after_the_last_step_is_lost_and_said(
    in_a_run: Join, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    agent, model = in_a_run(), nn.Linear(6, 6)
    train(model, agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1)))
    train(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "WITHOUT" not in capsys.readouterr().err, "it may be part of a step"
    agent.leave()
    assert "12 steps of another optimizer (SGD) CHANGED THIS MODEL" in capsys.readouterr().err


def test_what_may_change_parameters_between_two_steps_is_no_news(
    in_a_run: Join, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clipping, loading, averaging, optimizers within the wrapped one, others beside it, schedulers."""

    class Nested(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            for _ in range(30):
                torch.optim.SGD(self.param_groups[0]["params"], lr=1e-3).step()

    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    agent, model, other = in_a_run(), nn.Linear(6, 6), nn.Linear(6, 6)
    optimizer = agent.wrap(model, Nested(model.parameters(), lr=0.1))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 3)
    twin = copy.deepcopy(optimizer)
    for _ in range(3):
        train(model, optimizer)
        optimizer.load_state_dict(optimizer.state_dict())
        for _ in range(30):
            twin.step()
            torch.optim.SGD(other.parameters(), lr=0.1).step()
        model.load_state_dict(other.state_dict())
        with torch.no_grad():
            for p in model.parameters():
                p.clamp_(-0.1, 0.1)
        scheduler.step()
    model.load_state_dict(agent.average(), strict=False)
    agent.leave()
    assert (agent.rank, capsys.readouterr().err) == (0, "")


def test_a_script_without_a_step_is_told_so(
    in_a_run: Join, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    agent, model = in_a_run(), nn.Linear(6, 6)
    agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    agent.leave()
    assert "offbeat: agent 0: the script ended without a step." in capsys.readouterr().err


def test_the_model_is_written_before_mail_can_move_it_on(
    in_a_run: Join, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the lock: what mail makes of the model recycles the memory of the one before."""
    agent, model = in_a_run(), nn.Linear(1, 1)
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    held, write, driver = list[bool](), FlatParameters.write, agent._driver
    assert driver is not None

    def watched(flat: FlatParameters, *args: Any, **more: Any) -> None:
        other = Thread(target=lambda: held.append(not driver.lock.acquire(blocking=False)))
        other.start()
        other.join()
        write(flat, *args, **more)

    monkeypatch.setattr(FlatParameters, "write", watched)
    model(torch.ones(1)).sum().backward()
    optimizer.step()
    assert held == [True]
