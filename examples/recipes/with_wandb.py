"""Digits with Weights & Biases: a run for every agent and one for the average of all, in one group; the
offbeat lines are marked.

Run it with `offbeat launch -n 4 examples/recipes/with_wandb.py`. It works offline; `wandb sync` sends what
lies in the agents' folders, or leave out `mode`. An agent that is started again goes on in its own run.
"""

from typing import Any

import torch
import wandb
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat

digits = load_digits()
images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)


def build() -> nn.Sequential:
    """The model."""
    torch.manual_seed(42)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    """On those that nobody trains on."""
    return nn.functional.cross_entropy(model(images[1440:]), labels[1440:]).item()


def of_average(mean: dict[str, Tensor]) -> float:
    """The held-out loss of these parameters."""
    model = build()
    model.load_state_dict(mean, strict=False)
    return held_out_loss(model)


def main() -> None:
    model = build()
    agent = offbeat.join()  # offbeat
    optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=1e-2))  # offbeat
    group, here = agent.folder.parent.name, agent.folder  # offbeat: the run's name, this agent's folder

    def run(name: str) -> Any:
        where = {"project": "digits", "group": group, "dir": here, "mode": "offline"}
        return wandb.init(name=name, id=f"{group}-{name}", resume="allow", reinit="create_new", **where)

    mine = run(f"agent-{agent.rank}")  # offbeat
    average = run("average") if agent.is_first else None  # offbeat
    loader = DataLoader(TensorDataset(images[:1280], labels[:1280]), batch_size=16, shuffle=True)
    for epoch in agent.epochs(3):  # offbeat
        for x, y in agent.shard(loader):  # offbeat
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            mine.log({"loss": loss.item()}, step=agent.steps)  # offbeat
        mine.log({"epoch": epoch, "held-out loss": held_out_loss(model)})
        if average is not None:
            average.log({"held-out loss": of_average(agent.average())}, step=agent.steps)  # offbeat
    mine.finish()
    if average is not None:
        average.finish()


if __name__ == "__main__":
    main()
