"""What is saved with an agent beside its model and optimizer: `agent.save_also`."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from one_agent import Join, equal, run_of_one
from torch import nn
from torch.optim import lr_scheduler
from warm import finished, needs_shared_memory

import offbeat
from offbeat.core.errors import SettingError
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.settings import CheckpointPolicy
from offbeat.training import member

SCRIPT = """
import sys, time
import torch
import offbeat

torch.manual_seed(3)
model = torch.nn.Linear(4, 2)
agent = offbeat.join()
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=1.0))
by_batch = torch.optim.lr_scheduler.MultiStepLR(optimizer, [7, 15], 0.5)
by_epoch = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.1)
agent.save_also(by_batch=by_batch, by_epoch=by_epoch)
data = torch.utils.data.TensorDataset(torch.randn(48, 4), torch.randn(48, 2))
loader = torch.utils.data.DataLoader(data, batch_size=2)
for epoch in agent.epochs(int(sys.argv[1])):
    for x, y in agent.shard(loader):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
        by_batch.step()
        time.sleep(0.008)
    by_epoch.step()
lr = optimizer.param_groups[0]["lr"]
print(f"{agent.rank}: {by_batch.last_epoch} batches, {by_epoch.last_epoch} epochs, lr {lr:.6f}")
"""
"""Twelve batches an epoch; every batch and every epoch counts once, whatever happens in between."""


@needs_shared_memory
def test_schedulers_go_on_where_they_were_after_a_death_and_on_resume(tmp_path: Path) -> None:
    words = ["launch", "-n", "2", "--out", "out", "--checkpoint-every", "4"]
    fault = ["--fault", "kill agent 1 at step 14"]  # its checkpoint is of the last batch of an epoch
    done = finished(tmp_path, *words, *fault, "train.py", "2", script=SCRIPT)
    assert done.code == 0, done.complained
    assert "[1] died" in done.said
    for i in range(2):
        assert f"{i}: 24 batches, 2 epochs, lr 0.002500" in done.said
    part = finished(tmp_path, *words, "--resume", "--stop-after", "54", "train.py", "3")
    assert part.code == 0, part.complained
    assert "2 epochs" not in part.said, "what follows the loop is run, though the third is not over"
    more = finished(tmp_path, *words, "--resume", "train.py", "3")
    assert more.code == 0, more.complained
    for i in range(2):
        assert f"{i}: 36 batches, 3 epochs, lr 0.000250" in more.said


SCHEDULERS: dict[str, Any] = {
    "multi-step": lambda o: lr_scheduler.MultiStepLR(o, [2, 5]),
    "lambda": lambda o: lr_scheduler.LambdaLR(o, lambda k: 0.9**k),
    "one cycle": lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=20),
    "plateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "sequence": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.ConstantLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [3]
    ),
    "restarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 3),
}


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_what_is_restored_goes_on_as_what_was_saved(kind: str, nobody_joined: None, tmp_path: Path) -> None:
    """The schedulers of torch, a gradient scaler and an averaged model: as if there had been no end."""

    def begin(agent: member.Member) -> tuple[Any, ...]:
        torch.manual_seed(0)
        model = nn.Linear(2, 2)
        optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
        scheduler, scaler = SCHEDULERS[kind](optimizer), torch.amp.GradScaler("cpu", init_scale=8.0)
        average = torch.optim.swa_utils.AveragedModel(model)
        agent.save_also(scheduler=scheduler, scaler=scaler, average=average)
        return model, optimizer, scheduler, scaler, average

    def go(steps: int, model: Any, optimizer: Any, scheduler: Any, scaler: Any, average: Any) -> list[float]:
        rates = []
        for _ in range(steps):
            optimizer.zero_grad()
            scaler.scale(model(torch.ones(2)).square().sum()).backward()
            scaler.step(optimizer)
            scheduler.step(*[1.0] * (kind == "plateau"))
            scaler.update(16.0)
            average.update_parameters(model)
            rates.append(optimizer.param_groups[0]["lr"])
        return rates

    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    saved = tmp_path / "first" / "checkpoints" / "agent-0"
    with run_of_one(tmp_path / "first") as join:
        first = begin(join(checkpoint_every=CheckpointPolicy(6)))
        go(6, *first)
        assert not checkpoint.latest(saved), "it waits for what follows the step"
        rates = go(5, *first)
        assert checkpoint.latest(saved) == [6]
    member._joined.clear()
    shutil.copytree(tmp_path / "first" / "checkpoints", tmp_path / "second" / "checkpoints")
    with run_of_one(tmp_path / "second") as join:
        second = begin(join(resume=True))
        assert go(5, *second) == rates
        assert equal(first[0], second[0]) and equal(first[-1], second[-1])
        assert second[3].get_scale() == 16.0


class Odd:
    """An object whose state no checkpoint holds."""

    def state_dict(self) -> dict[str, object]:
        """A set, in a list."""
        return {"seen": [{1}]}

    def load_state_dict(self, state: object) -> None:
        """Nothing to do."""


def test_what_cannot_be_saved_is_refused_by_name_before_the_work(in_a_run: Join) -> None:
    agent, model = in_a_run(), nn.Linear(2, 2)
    with pytest.raises(SettingError, match=r"before agent\.wrap"):
        agent.save_also(odd=Odd())
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(SettingError, match="number is a int; expected an object with state_dict"):
        agent.save_also(number=3)
    with pytest.raises(SettingError, match=r"state\.also\.odd\.seen\[0\] is of type builtins\.set"):
        agent.save_also(odd=Odd())
    agent.save_also(scheduler=lr_scheduler.StepLR(optimizer, 3))
    with pytest.raises(SettingError, match="given 'scheduler' twice"):
        agent.save_also(scheduler=lr_scheduler.StepLR(optimizer, 3))
    optimizer.step()
    with pytest.raises(SettingError, match="came after a step"):
        agent.save_also(late=lr_scheduler.StepLR(optimizer, 3))


def test_an_agent_says_who_it_is(in_a_run: Join) -> None:
    agent, model = in_a_run(), nn.Linear(2, 2)
    assert repr(agent) == "<offbeat agent: rank 0 of 1, adsgd on complete, 0 steps, not wrapped>"
    agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1)).step()
    assert repr(agent) == "<offbeat agent: rank 0 of 1, adsgd on complete, 1 steps, wrapped>"
    assert agent.is_first and not agent._asked_who, "that is no question about the data"


def test_alone_nothing_is_saved(nobody_joined: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    agent, model = offbeat.join("dsgd"), nn.Linear(2, 2)
    assert agent.folder == tmp_path / "agent-0" and agent.folder.is_dir(), "its files are all there"
    assert repr(agent) == "<offbeat agent: alone, dsgd, 0 steps, not wrapped>" and agent.is_first
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    agent.save_also(scheduler=lr_scheduler.StepLR(optimizer, 3), odd=Odd())
    with pytest.raises(SettingError, match="expected an object with state_dict"):
        agent.save_also(number=3)
