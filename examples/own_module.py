"""Your own model and loss: a small convolutional network on the digits.

    python examples/own_module.py

Any `nn.Module` whose training depends on nothing but its parameters and the minibatch is a task.
"""

import torch
from torch import nn

import offbeat
from offbeat.tasks.data import load


def task() -> offbeat.ModuleTask:
    """A module, a loss, the data: that is a task."""
    digits = load("digits")
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )
    return offbeat.ModuleTask(
        network,
        nn.functional.cross_entropy,
        train=(digits.train_x, digits.train_y),
        test=(digits.test_x, digits.test_y),
        agents=9,
        skew=0.5,
        name="digits-cnn",
    )


if __name__ == "__main__":
    print(
        offbeat.compare(["adsgd", "dsgd"], task=task(), case="comp-straggler", lr=0.1, until=300, target=0.9)
    )
