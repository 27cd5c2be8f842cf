"""Who trains alone: started by others than `offbeat launch`, or at a prompt, where a cell can run twice."""

import sys
from dataclasses import dataclass

import pytest
import torch
from one_agent import Join
from torch import nn

import offbeat
from offbeat.core.errors import SettingError
from offbeat.training.alone import STARTERS

pytestmark = pytest.mark.usefixtures("nobody_joined")


@pytest.fixture
def prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's, or a notebook's."""
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)


@pytest.mark.parametrize("variable", STARTERS)
def test_processes_of_another_starter_are_told_once_what_to_do(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], prompt: None
) -> None:
    for names in [(each, rank) for each, (_, rank) in STARTERS.items()]:
        for name in names:
            monkeypatch.delenv(name, raising=False)
    starter, rank = STARTERS[variable]
    monkeypatch.setenv(variable, "3")
    monkeypatch.setenv(rank, "0")
    offbeat.join()
    offbeat.join("dsgd")
    said = capsys.readouterr().err
    assert said.startswith(
        f"offbeat: {starter} has started 3 processes ({variable}), none of which is an agent"
    )
    assert said.endswith("offbeat launch -n 3 SCRIPT\n") and said.count("\n") == 1
    for count, which in (("3", "1"), ("1", "0"), ("", "0"), ("many", "0")):
        monkeypatch.setattr("offbeat.training.member._joined", [])
        monkeypatch.setenv(variable, count)
        monkeypatch.setenv(rank, which)
        offbeat.join()
    assert not capsys.readouterr().err, "one says it, and only where there are several"


def trained(optimizer: torch.optim.Optimizer, model: nn.Module, steps: int) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.ones(2)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize("same", ["all", "model", "none"])
def test_a_cell_can_run_twice(same: str, prompt: None) -> None:
    """The same agent; what it wraps then takes the place of what it had wrapped."""
    agent, model = offbeat.join("dsgd"), nn.Linear(2, 2)
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    trained(optimizer, model, 3)
    assert offbeat.join() is agent and offbeat.join("dsgd") is agent and agent.steps == 3
    if same == "none":
        model = nn.Linear(2, 2)
    if same != "all":
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.weight.detach().clone()
    assert offbeat.join().wrap(model, optimizer) is optimizer
    trained(optimizer, model, 2)
    assert agent.steps == 2, "that is another training"
    assert torch.allclose(model.weight, before - 0.2), "each step is one"


def test_another_algorithm_takes_the_place_of_the_first(prompt: None) -> None:
    def cell() -> type[offbeat.Agent]:
        @dataclass
        class Mine(offbeat.Agent):
            def on_gradient(self, g: offbeat.Vector) -> None:
                self.compute(self.x)

        return Mine

    first, mine = offbeat.join("dsgd"), cell()
    assert offbeat.join("adsgd") is not first
    agent = offbeat.join(mine)
    assert offbeat.join(mine) is agent
    assert offbeat.join(cell()) is not agent, "its class was defined anew, and may be another"


def test_in_a_run_an_agent_joins_and_wraps_once_at_a_prompt_too(in_a_run: Join, prompt: None) -> None:
    agent, model = in_a_run(), nn.Linear(2, 2)
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    with pytest.raises(SettingError, match="wrapped a model already"):
        agent.wrap(model, optimizer)
