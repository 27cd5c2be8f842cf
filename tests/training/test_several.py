"""Several models and optimizers as one agent; parameters that are frozen at first, and trained later."""

import copy
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from entries import ENTRIES
from one_agent import Join, batches, equal
from torch import nn
from torch.nn import functional
from torch.optim import SGD, Adam, Optimizer
from warm import finished, needs_shared_memory

import offbeat
from offbeat.algorithms import ALGORITHMS
from offbeat.core.errors import SettingError
from offbeat.core.vector import Vector
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.guard import Guard
from offbeat.training import child
from offbeat.training.flat import BrokenViews, FlatParameters
from offbeat.training.step import OptimizerRule

pytestmark = pytest.mark.usefixtures("nobody_joined")
SGD_ALONE = [name for name, row in ALGORITHMS.items() if not row.unscripted and ENTRIES[name].alone == 1.0]


def networks() -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(4)
    return nn.Linear(6, 6), nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1))


def compete(g: nn.Module, d: nn.Module, g_opt: Optimizer, d_opt: Optimizer) -> None:
    """Two steps of the discriminator for each of the generator, which leaves gradients in both."""
    for k, (x, z) in enumerate(batches()):
        d_opt.zero_grad()
        (functional.softplus(-d(x)) + functional.softplus(d(g(z).detach()))).mean().backward()  # type: ignore[no-untyped-call]
        d_opt.step()
        if k % 2:
            g_opt.zero_grad()
            functional.softplus(-d(g(z))).mean().backward()  # type: ignore[no-untyped-call]
            g_opt.step()


def optimizers(g: nn.Module, d: nn.Module) -> tuple[Optimizer, Optimizer]:
    return SGD(g.parameters(), lr=0.05, momentum=0.9), Adam(d.parameters(), lr=0.02)


@pytest.mark.parametrize("algorithm", SGD_ALONE)
def test_alone_two_optimizers_train_as_if_offbeat_were_not_there(algorithm: str) -> None:
    plain, ours = networks(), networks()
    compete(*plain, *optimizers(*plain))
    agent, given = offbeat.join(algorithm), optimizers(*ours)
    wrapped = agent.wrap(ours, given)
    assert [*map(id, wrapped)] == [*map(id, given)]
    compete(*ours, *wrapped)
    assert all(map(equal, plain, ours)), "bit for bit"
    assert agent.steps == 18, "twelve and six"
    assert set(agent.average()) == {name for name, _ in nn.ModuleList(ours).named_parameters()}


def rule_of(model: nn.Module, *several: Optimizer, **more: Any) -> OptimizerRule:
    """That of an agent about to step."""
    rule = OptimizerRule(FlatParameters(model, *several), *several)
    x = Vector(tuple(part.clone() for part in rule.flat.parts))
    driver: Any = SimpleNamespace(snapshot=x, guard=Guard(0))
    driver.agent, driver.actor = SimpleNamespace(x=x, **more), SimpleNamespace(at=None, steps=0)
    driver.performer = SimpleNamespace(force=lambda: None)
    rule.driver = driver
    return rule


def halves() -> tuple[nn.Sequential, list[Optimizer]]:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    return model, [SGD(part.parameters(), lr=0.1) for part in model]


def test_a_gradient_is_new_where_the_optimizer_steps_and_the_last_one_elsewhere() -> None:
    model, (one, two) = halves()
    rule, seen = rule_of(model, one, two), []
    for k, which in enumerate((0, 1, 1, 0)):
        for p in model.parameters():
            p.grad = torch.full_like(p, 10.0 + k)
        seen.append([part[0, 0].item() for part in rule.flat.named(rule.gradient(which).parts).values()])
    assert seen == [[10, 0], [10, 11], [10, 12], [13, 12]]
    x, u = rule.driver.snapshot, rule(rule.gradient(1))
    assert x is not None
    moved = rule.flat.named(u.parts)
    assert torch.equal(moved["0.weight"], torch.zeros(2, 2))
    torch.testing.assert_close(moved["1.weight"], torch.full((2, 2), 1.3))
    again = rule_of(model, one, two)
    again.restore(rule.state())
    assert again._last is not None
    assert again.flat.named(again._last)["0.weight"][0, 0] == 13, "saved"


def test_who_has_one_model_with_all_others_has_their_order_too() -> None:
    model, several = halves()
    rule = rule_of(model, *several, one_model=True)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    mine, theirs = (tuple(part.clone() for part in rule.gradient(k).parts) for k in (0, 1))
    rule.gradient(0)
    rule(Vector(mine))
    with pytest.raises(
        SettingError, match="50% of the agents number 0, 50% of the agents number 1, and this"
    ):
        rule(Vector(tuple((a + b) / 2 for a, b in zip(mine, theirs, strict=True))))


WRONG: dict[str, tuple[Callable[[nn.Sequential, list[Optimizer]], Any], str]] = {
    "shared": (lambda m, o: ([m], [o[0], o[1], SGD(m[1].parameters())]), "Two optimizers hold '0.1.weight'"),
    "missing": (lambda m, o: ([m], [o[1]]), "does not hold '0.0.weight'"),
    "none": (lambda m, o: ([m, nn.Linear(2, 2)], o), "None of the optimizers holds '1.weight', '1.bias'"),
    "twice": (lambda m, o: (m, [*o, o[0]]), "given twice"),
    "foreign": (lambda m, o: (m[0], o), r"not the model's: 'optimizer 1, group 0, number 0: \(2, 2\)'"),
    "order": (lambda m, o: (o, [m]), "got a SGD and a SGD and a Sequential"),
    "nothing": (lambda m, o: ([], []), "got nothing"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_told_apart_is_refused_by_name(case: str) -> None:
    made, why = WRONG[case]
    with pytest.raises(SettingError, match=why):
        offbeat.join().wrap(*made(*halves()))


def test_what_optimizers_are_given_later_is_looked_at_before_the_next_step() -> None:
    model, (one, two) = halves()
    extra = nn.Parameter(torch.zeros(1))
    flat = FlatParameters(model, one, two)
    two.add_param_group({"params": [extra]})
    with pytest.raises(SettingError, match="optimizer 1, group 1, number 0"):
        flat.check()
    del two.param_groups[1]
    flat.check()
    two.add_param_group({"params": list(model[0].parameters())})
    with pytest.raises(SettingError, match=r"Two optimizers hold '0\.weight'"):
        flat.check()


def net() -> nn.Sequential:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(6, 6).requires_grad_(False), nn.Linear(6, 6))


def test_what_becomes_trainable_was_announced_or_is_an_error() -> None:
    model = net()
    flat = FlatParameters(model, SGD(model.parameters(), lr=0.1))
    model[0].requires_grad_(True)
    with pytest.raises(BrokenViews, match=r"'0.weight', '0.bias' became trainable.*later=layer\.parameters"):
        flat.check()
    model = net()
    optimizer = SGD(model[1].parameters(), lr=0.1)
    flat = FlatParameters(model, optimizer, later=model[0].parameters())
    assert flat.frozen == flat.later == ["0.weight", "0.bias"]
    model[0].requires_grad_(True)
    with pytest.raises(SettingError, match=r"does not hold '0\.weight', '0\.bias'"):
        flat.check()
    optimizer.add_param_group({"params": list(model[0].parameters())})
    flat.check()
    assert (flat.frozen, flat.names(0)) == ([], ["0.weight", "0.bias", "1.weight", "1.bias"])
    wrongs: list[tuple[Any, str]] = [
        (model[0], "later= got a Linear"),
        ([nn.Parameter(torch.ones(3))], "no parameter of"),
    ]
    for wrong, why in wrongs:
        with pytest.raises(SettingError, match=why):
            FlatParameters(model, optimizer, later=wrong)


def test_what_is_frozen_here_moves_only_by_what_others_make_of_it() -> None:
    """A tracked or mean gradient of zero is none: weight decay would move what everybody has frozen."""
    model = net()
    flat = FlatParameters(model, SGD(model.parameters(), lr=0.1), later=model[0].parameters())
    flat.set_gradient(flat.zeros())
    assert model[0].weight.grad is None
    assert model[1].weight.grad is not None
    flat.set_gradient(tuple(torch.ones_like(part) for part in flat.parts))
    assert torch.equal(flat.gradients()["0.weight"], torch.ones(6, 6))


def unfrozen(agent: Any, model: nn.Sequential, optimizer: Optimizer) -> None:
    """Ten steps, from the fifth on with the first layer and its own learning rate."""
    for _, (x, y) in zip(range(10), batches(), strict=False):
        if agent.steps >= 5 and not model[0].weight.requires_grad:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def test_a_run_goes_on_with_what_was_unfrozen_and_with_each_optimizers_state(
    in_a_run: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    ends = list[Any]()
    for resume in (False, True):
        for register in tmp_path.glob("register.*"):
            register.unlink()
        agent, other = in_a_run(resume=resume), nn.Linear(2, 2)
        model: Any = net()
        pair = Adam(model[1].parameters(), lr=0.05), Adam(other.parameters(), lr=0.1)
        first, second = agent.wrap([model, other], pair, later=model[0].parameters())
        if resume:
            assert (agent.steps, model[0].weight.requires_grad) == (11, True)
            assert [group["lr"] for group in first.param_groups] == [0.05, 0.01]
            assert torch.equal(first.state[model[0].bias]["exp_avg"], ends[0][1])
            assert torch.equal(second.state[other.bias]["exp_avg"], ends[0][2])
            assert equal(nn.ModuleList([model, other]), ends[0][0])
        other(torch.ones(2)).sum().backward()
        second.step()
        unfrozen(agent, model, first)
        agent.leave()
        states = first.state[model[0].bias]["exp_avg"], second.state[other.bias]["exp_avg"]
        ends.append((copy.deepcopy(nn.ModuleList([model, other])), *map(torch.clone, states)))
    assert not torch.equal(ends[0][1], ends[1][1])
    folder = tmp_path / "checkpoints" / "agent-0"
    about, state = checkpoint.load(checkpoint.path_of(folder, 22))
    assert about["optimizers"] == ["'0.1.weight', '0.1.bias'", "'1.weight', '1.bias'"]
    nn.ModuleList([net(), nn.Linear(2, 2)]).load_state_dict(state["model"] | state["rest"])
    agent, model, other = in_a_run(resume=True), net(), nn.Linear(2, 2)
    pair = Adam(other.parameters(), lr=0.1), Adam(model[1].parameters(), lr=0.05)
    with pytest.raises(SettingError, match="optimizers"):
        agent.wrap([model, other], pair, later=model[0].parameters())


FROM_BEFORE = """
import torch
from offbeat.training import member

(agent,) = member.joined()
g = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
d = torch.nn.Linear(2, 1)
pair = agent.wrap([g, d], [torch.optim.SGD(each.parameters(), lr=0.1) for each in (g, d)])
fake = g(torch.ones(2))
d(fake.detach()).sum().backward()
pair[1].step()
d(fake).sum().backward()
"""


def test_a_graph_from_before_a_step_is_an_error_that_says_what_to_do(
    in_a_run: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    in_a_run()
    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    (tmp_path / "train.py").write_text(FROM_BEFORE)
    monkeypatch.setattr(sys, "argv", ["child", str(tmp_path / "train.py")])
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(SystemExit):
        child.main()
    assert "generate anew once the discriminator has stepped" in capsys.readouterr().err


UNFREEZES = """
import time
from pathlib import Path
import torch
import offbeat

torch.manual_seed(3)
model = torch.nn.Sequential(torch.nn.Linear(3, 3).requires_grad_(False), torch.nn.Linear(3, 1))
agent = offbeat.join()
optimizer = torch.optim.SGD(model[1].parameters(), lr=0.01)
optimizer = agent.wrap(model, optimizer, later=model[0].parameters())
start = model[0].weight.detach().clone()
first, done, end = Path("first"), Path("done"), time.monotonic() + 60
frozen_until, enough = 100 if agent.rank == 0 else 10**9, 10**9

def step():
    optimizer.zero_grad()
    (model(torch.ones(3)) - 10 * agent.rank).square().sum().backward()
    optimizer.step()

while not done.exists() and time.monotonic() < end:
    if agent.rank == 1 and enough == 10**9 and first.exists():
        frozen_until, enough = agent.steps, agent.steps + 50
    if agent.steps == frozen_until:
        assert agent.rank or torch.allclose(model[0].weight, start, atol=1e-5)
        model[0].requires_grad_(True)
        optimizer.add_param_group({"params": model[0].parameters()})
        first.touch()
    step()
    if agent.steps == enough:
        done.touch()
for _ in range(5):
    step()
print("moved by", (model[0].weight - start).abs().max().item())
"""


@needs_shared_memory
def test_a_layer_unfrozen_at_step_100_is_mixed_by_all_afterwards(tmp_path: Path) -> None:
    """Agent 0 unfreezes it then, agent 1 after that, agent 2 never, and is told so."""
    (tmp_path / "train.py").write_text(UNFREEZES)
    run = finished(tmp_path, *["launch", "-n", "3", "--topology", "complete", "--out", "out", "train.py"])
    assert run.code == 0, run.said + run.complained
    moved = re.findall(r"moved by ([-.e\d]+)", run.said)
    assert len(moved) == 3
    assert min(map(float, moved)) > 1e-3
    assert "agent 2: later= named '0.weight', '0.bias', still frozen at the end" in run.said + run.complained
    replay = finished(tmp_path, "replay", "out")
    assert "Schedule and mixed versions: the same." in replay.said, replay.complained
