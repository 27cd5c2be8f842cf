"""Numbers that are not finite: which updates are skipped, what is said, counted, and left alone."""

import copy
import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from one_agent import Join, batches, equal
from recorded import exact_replay
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from warm import finished, needs_shared_memory

from offbeat.algorithms import find
from offbeat.algorithms.adsgd import Model
from offbeat.core.errors import SettingError
from offbeat.core.rules import SGD
from offbeat.core.sums import finite
from offbeat.core.vector import Vector
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.driver import Driver
from offbeat.engines.live.node.guard import (
    IGNORE,
    IN_A_ROW,
    SKIP,
    STOP,
    Guard,
    NotFinite,
    Statistics,
    not_finite,
)
from offbeat.engines.live.node.log import Log
from offbeat.engines.live.node.performer import Clock, Performer
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import Board, Order, Row
from offbeat.engines.live.shm.layout import Tag
from offbeat.tasks.quadratic import Quadratic
from offbeat.world.topology import build

pytestmark = [needs_shared_memory, pytest.mark.usefixtures("nobody_joined")]
NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("numbers", "dtype", "whole"),
    [
        ([1.0, NAN], torch.float32, False), ([INF, -INF], torch.float64, False),
        ([1.0, -INF], torch.bfloat16, False), ([3e38, 3e38], torch.float32, True),
        ([6e4, 6e4], torch.float16, True), ([], torch.float32, True), ([1e300], torch.float64, True),
    ],
)  # fmt: skip
def test_finite_is_what_has_no_nan_and_no_infinity(
    numbers: list[float], dtype: torch.dtype, whole: bool
) -> None:
    assert finite([torch.ones(3), torch.tensor(numbers, dtype=dtype)]) is whole


def test_what_is_skipped_is_counted_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    row: Any = dict.fromkeys(Row, 0)
    guard, wrong, right = Guard(2, SKIP, row), [torch.tensor([NAN])], [torch.ones(1)]
    assert not guard.refuses(right, 1, str)
    for step in range(2, 30):
        assert guard.refuses(wrong, step, lambda: "the gradient")
    said = capsys.readouterr().err.splitlines()
    assert (
        said[0] == "offbeat: agent 2: the gradient of step 2 is not finite; that update is skipped (1 so far)"
    )
    assert len(said) == 6, (
        "the first, second, fourth, eighth and sixteenth, and once that they are many in a row"
    )
    assert f"{IN_A_ROW} UPDATES IN A ROW ARE NOT FINITE, the last at step {IN_A_ROW + 1}" in said[4]
    assert (row[Row.SKIPPED], guard.skipped) == (28, 28)
    assert not Guard(0, IGNORE).refuses(wrong, 1, str)
    with pytest.raises(NotFinite, match=r"Agent 1: the new model of step 7 is not finite, and --on-nan stop"):
        Guard(1, STOP).refuses(wrong, 7, lambda: "the new model")
    with pytest.raises(SettingError, match="--on-nan never; expected one of skip, stop, ignore"):
        RunSettings(agents=1, folder=Path(), program=ScriptProgram("ring"), on_nan="never")


def test_updates_that_are_skipped_now_and_then_are_not_many_in_a_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    guard = Guard(0, SKIP)
    for step in range(0, 4 * IN_A_ROW, 2):
        for _ in range(2):  # the gradient, and the model as well
            guard.refuses([torch.tensor([INF])], step, lambda: "it")
    assert "IN A ROW" not in capsys.readouterr().err


class Normed(nn.Module):
    """With running statistics, a mask of -inf, and a buffer that is another one after every batch."""

    def __init__(self) -> None:
        super().__init__()
        self.mean: Tensor
        self.norm, self.out = nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.register_buffer("mask", torch.full((2,), -INF))
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, x: Tensor) -> Tensor:
        """A batch."""
        self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        out: Tensor = self.out(self.norm(x))
        return out


def test_running_statistics_that_took_in_a_bad_batch_are_what_they_were() -> None:
    model = Normed()
    statistics = Statistics(model)
    model(torch.randn(8, 6))
    statistics.mend()
    before = copy.deepcopy(model)
    model(torch.full((8, 6), NAN))
    assert not finite([model.norm.state_dict()["running_mean"], model.mean])
    statistics.mend()
    before.norm.num_batches_tracked = model.norm.num_batches_tracked
    assert equal(before, model)


def poisoned(model: nn.Module, optimizer: torch.optim.Optimizer, bad: int, steps: bool) -> None:
    """Trains on twelve batches; number `bad` has a NaN, and is left out unless `steps`."""
    for k, (x, y) in enumerate(batches()):
        if k == bad:
            if not steps:
                continue
            x[0, 0] = NAN
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


@pytest.mark.parametrize("algorithm", ["adsgd", "adpsgd", "dsgd", "rfast", "allreduce"])
def test_a_gradient_that_is_not_finite_spoils_nothing(algorithm: str, in_a_run: Join, tmp_path: Path) -> None:
    """The run goes on as if that batch had not been; moments, running statistics and checkpoints too."""
    plain = Normed()
    ours = copy.deepcopy(plain)
    one, two = (torch.optim.AdamW(m.parameters(), lr=0.01) for m in (plain, ours))
    poisoned(plain, one, 5, steps=False)
    agent = in_a_run(algorithm=algorithm)
    poisoned(ours, agent.wrap(ours, two), 5, steps=True)
    assert agent.steps == 12
    ours.norm.num_batches_tracked, ours.mean = plain.norm.num_batches_tracked, plain.mean
    if algorithm in ("adsgd", "adpsgd", "dsgd"):
        assert equal(plain, ours), "bit for bit"
        assert all(
            torch.equal(one.state[p]["exp_avg"], two.state[q]["exp_avg"])
            for p, q in zip(plain.parameters(), ours.parameters(), strict=True)
        )
    assert agent._driver is not None and agent._driver.guard.skipped == 1
    assert agent._driver.transport is not None
    agent._driver.transport.board.order = Order.END
    agent.leave()
    saved = load_file(tmp_path / "checkpoints" / "agent-0" / "step-000000012.safetensors")
    assert all(finite([t]) for name, t in saved.items() if t.is_floating_point() and "mask" not in name)


def scaled(model: Normed, optimizer: torch.optim.Optimizer, bad: range) -> Normed:
    """Trains on twelve batches as mixed precision does; those numbered `bad` have a NaN. The model before the
    first.
    """
    scaler, before = torch.amp.GradScaler("cpu", init_scale=2.0), copy.deepcopy(model)
    for k, (x, y) in enumerate(batches()):
        if k == bad.start:
            before = copy.deepcopy(model)
        if k in bad:
            x[0, 0] = NAN
        optimizer.zero_grad()
        scaler.scale(functional.mse_loss(model(x), y)).backward()  # type: ignore[no-untyped-call]
        scaler.step(optimizer)
        scaler.update()
    return before


def saved_by(tmp_path: Path) -> dict[int, list[str]]:
    """Of every checkpoint of agent 0: which of its tensors are not finite, but for masks."""
    folder = tmp_path / "checkpoints" / "agent-0"
    paths = {step: checkpoint.path_of(folder, step) for step in checkpoint.latest(folder)}
    return {step: [n for n in not_finite(load_file(path)) if "mask" not in n] for step, path in paths.items()}


@pytest.mark.parametrize("fused", [False, True])
def test_a_last_batch_that_the_scaler_skips_costs_no_final_checkpoint(
    fused: bool, in_a_run: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    model, agent = Normed(), in_a_run()
    before = scaled(
        model, agent.wrap(model, torch.optim.SGD(model.parameters(), 0.1, fused=fused)), range(11, 12)
    )
    assert finite([model.mean]) is fused, "a fused optimizer is asked, and mends at once"
    agent.leave()
    assert saved_by(tmp_path) == {11: []}
    before.norm.num_batches_tracked = model.norm.num_batches_tracked
    assert equal(before, model)


def test_an_agent_of_whom_the_scaler_skips_every_step_fails_and_saves_nothing_that_is_not_finite(
    in_a_run: Join, tmp_path: Path
) -> None:
    model, agent = Normed(), in_a_run()
    scaled(model, agent.wrap(model, torch.optim.SGD(model.parameters(), 0.1)), range(12))
    with pytest.raises(
        SettingError, match=r"Agent 0 made no step, though its model was changed\..*GradScaler"
    ):
        agent.leave()
    agent.rescue()
    assert saved_by(tmp_path) == {0: []}


def test_an_agent_that_neither_steps_nor_changes_its_model_may_leave(
    in_a_run: Join, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    model, agent = Normed(), in_a_run()
    agent.wrap(model, torch.optim.SGD(model.parameters(), 0.1))
    agent.leave()
    assert "the script ended without a step" in capsys.readouterr().err


def test_a_final_checkpoint_that_is_not_finite_fails_the_agent_once_the_others_are_done(
    in_a_run: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the same step's was refused before; the ones before it stay."""
    left: list[Driver] = []
    monkeypatch.setattr(Driver, "leave", lambda driver: left.append(driver))
    model, agent = nn.Linear(6, 6), in_a_run(on_nan="ignore", checkpoint_every=CheckpointPolicy(1))
    poisoned(model, agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1)), 11, steps=True)
    with pytest.raises(NotFinite, match=r"Agent 0: .* is not finite, so .*step-000000012 is not written"):
        agent.leave()
    assert len(left) == 1
    assert saved_by(tmp_path) == {11: [], 10: []}


def test_what_a_first_batch_has_spoilt_is_not_taken_for_usual(
    in_a_run: Join, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Driver, "leave", lambda driver: None)
    model, agent = Normed(), in_a_run(on_nan="ignore", checkpoint_every=CheckpointPolicy(1))
    scaled(model, agent.wrap(model, torch.optim.SGD(model.parameters(), 0.1)), range(1))
    with pytest.raises(NotFinite, match="is not written"):
        agent.leave()
    assert saved_by(tmp_path) == {}


def test_a_checkpoint_that_is_not_finite_is_not_written_over_one_that_is(
    in_a_run: Join, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = nn.Linear(6, 6)
    agent = in_a_run(on_nan="ignore", checkpoint_every=CheckpointPolicy(1))
    poisoned(model, agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1)), 5, steps=True)
    assert not finite(model.parameters()), "it is ignored"
    assert checkpoint.latest(tmp_path / "checkpoints" / "agent-0") == [5, 4]
    assert re.search(r"is not finite, so .*step-000000006 is not written", capsys.readouterr().err)


def test_stop_ends_the_run_and_names_agent_step_and_parameter(in_a_run: Join) -> None:
    model = nn.Linear(6, 6)
    optimizer = in_a_run(on_nan="stop").wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(
        NotFinite, match=r"Agent 0: the gradient \('(weight|bias)', '(weight|bias)'\) of step 6 is not"
    ):
        poisoned(model, optimizer, 5, steps=True)
    assert finite(model.parameters())


def test_a_model_that_is_not_finite_to_begin_with_is_refused(in_a_run: Join) -> None:
    model = nn.Linear(6, 6)
    model.bias.data[3] = INF
    with pytest.raises(SettingError, match="not finite to begin with: 'bias'"):
        in_a_run().wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_a_fused_optimizer_that_skips_a_step_for_the_scaler_makes_no_event(in_a_run: Join) -> None:
    model, agent = nn.Linear(6, 6), in_a_run()
    optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=0.1, fused=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    for value in (INF, 1.0):
        for p in model.parameters():
            p.grad = torch.full_like(p, value)
        scaler.scale(torch.zeros(1))
        scaler.step(optimizer)
        scaler.update()
    assert agent.steps == 1
    assert agent._driver is not None and agent._driver.guard.skipped == 0


def test_what_a_neighbour_sent_is_not_taken_as_the_model_if_it_is_not_finite(tmp_path: Path) -> None:
    """The model stays what it was, and is not published; once the neighbour is well again, it is mixed."""
    board = Board.create(tmp_path / "board", 2)
    mine, other = (Transport(tmp_path, board, i, 1, 8) for i in (0, 1))
    agent, ring = find("adsgd").new(), build("ring", 2)
    agent.join(0, 2, Vector((torch.ones(2),)), ring.view(0, frozenset([0, 1])), SGD(0.5), Random(0))
    driver = Driver(Performer(agent, mine, Log(None), Clock(), SKIP), ring)
    mine.meet(1, 1)
    other.meet(0, 1)
    driver.start()
    seen = []
    for value in (3.0, INF, 3.0):
        given = Vector((torch.tensor([value, 1.0]),))
        register = other.register(Model(given), (0,))
        (placed,) = register.begin([given])
        placed.parts  # noqa: B018
        other.board.row(1)[Row.MODEL] = 1
        register.finish(Model(placed), Tag())
        x = driver.step(Vector((torch.zeros(2),)))
        seen.append((x.parts[0].tolist(), mine.mine[0].newest, mine.row[Row.SKIPPED]))
    assert seen == [([2.0, 1.0], 1, 0), ([2.0, 1.0], 1, 1), ([2.5, 1.0], 2, 1)]


# -- real processes --------------------------------------------------------------------------------

POISON = """
from offbeat.tasks.quadratic import Quadratic
exact = Quadratic.gradients
def gradients(self, agents, samples, models):
    (g,) = exact(self, agents, samples, models)
    for row, (i, sample) in enumerate(zip(agents, samples)):
        if i == 2 and sample[0] > 0:
            g[row] = float("nan")
    return (g,)
Quadratic.gradients = gradients
"""
"""Half of all gradients of agent 2 are not finite; which ones follows from the minibatch."""


def test_nobody_waits_for_one_who_skips_and_replays_skip_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("adsgd", "adpsgd", "dsgd", "rfast", "allreduce")
    words = f"live --task quadratic --agents 4 --algorithms {','.join(names)} --unit 2ms --until 60 --lr 0.1"
    done = finished(tmp_path, *words.split(), "--out", "out", setup=POISON)
    assert done.code == 0, done.complained
    assert done.complained.count("Updates that were not finite were skipped: agent 2: ") == len(names)
    monkeypatch.setattr(Quadratic, "gradients", Quadratic.gradients)
    exec(POISON, {})
    for name in names:
        (folder,) = (tmp_path / "out").glob(f"{name}-lr*")
        assert finite(exact_replay(folder).models), name


SCRIPT = """
import torch, offbeat

agent = offbeat.join()
model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3))
optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=0.05))
for k in range(40):
    x = torch.randn(8, 3)
    if agent.rank == 2 and k == 20:
        x[0] = float("nan")
    optimizer.zero_grad()
    model(x).square().sum().backward()
    optimizer.step()
"""


def test_one_gradient_that_is_nan_costs_one_update(tmp_path: Path) -> None:
    done = finished(tmp_path, "launch", "-n", "4", "--out", "out", "train.py", script=SCRIPT)
    assert done.code == 0, done.said + done.complained
    assert (
        "agent 2: the gradient ('0.weight', '0.bias', '1.weight', '1.bias') of step 21 is not finite"
        in " ".join(done.said.split())
    )
    assert "Updates that were not finite were skipped: agent 2: 1." in done.complained
    last = json.loads((tmp_path / "out" / "metrics.jsonl").read_text().splitlines()[-2])
    assert (last["agent"], last["step"], last["skipped"]) == (2, 40, 1)
    saved = sorted((tmp_path / "out" / "checkpoints").glob("agent-*/step-000000040.safetensors"))
    assert len(saved) == 4
    for path in saved:
        assert all(finite([t]) for t in load_file(path).values() if t.is_floating_point()), path
