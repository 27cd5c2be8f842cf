"""Data that a script forgot to share out: said once, and only where it is known."""

import pytest
import torch
from one_agent import Join
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, WeightedRandomSampler

from offbeat.training.unshared import has_whole_loader

DATA = TensorDataset(torch.arange(8.0)[:, None])


@pytest.mark.parametrize("asks", ["nothing", "shard", "rank", "world"])
def test_it_is_said_once_where_the_script_asks_for_no_share(
    asks: str, in_a_run: Join, capsys: pytest.CaptureFixture[str]
) -> None:
    agent, model, loader = in_a_run(), nn.Linear(1, 1), DataLoader(DATA, batch_size=2, shuffle=True)
    optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
    agent._world = 2  # as far as this is concerned
    batches = agent.shard(loader) if asks == "shard" else loader
    assert asks not in ("rank", "world") or getattr(agent, asks) in (0, 1)
    for (x,) in batches:
        optimizer.zero_grad()
        model(x).sum().backward()
        optimizer.step()
    said = capsys.readouterr().err
    assert said.count("NO DATA ARE SHARED OUT") == (asks == "nothing") == said.count("\n")
    assert agent.steps == 4


@pytest.mark.parametrize(
    ("loader", "whole"),
    [
        (DataLoader(DATA), True),
        (DataLoader(DATA, batch_size=4, shuffle=True), True),
        (DataLoader(Subset(DATA, [0, 2, 4])), False),
        (DataLoader(DATA, sampler=[1, 3, 5]), False),
        (DataLoader(DATA, sampler=WeightedRandomSampler([1.0] * 8, 4)), True),
    ],
)
def test_a_loader_of_a_part_may_be_somebodys_share(loader: DataLoader[object], whole: bool) -> None:
    assert has_whole_loader() == whole
