"""Trains a small network on MNIST with several agents. Five marked lines differ from `mnist_plain.py` beside
it.

Run it with `offbeat launch -n 4 examples/mnist.py --data DIR`.
"""

import argparse
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # 1
from offbeat.tasks.data import load  # reads the IDX files; any other loader would do

parser = argparse.ArgumentParser()
parser.add_argument(
    "--data", type=Path, help="folder with the IDX files (default: $OFFBEAT_DATA, else downloaded)"
)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--lr", type=float, default=1e-3)
args = parser.parse_args()

torch.manual_seed(0)
mnist = load("mnist", args.data)
loader = DataLoader(TensorDataset(mnist.train_x, mnist.train_y), batch_size=32, shuffle=True)
model = nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
agent = offbeat.join()  # 2
optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=args.lr))  # 3

for epoch in agent.epochs(args.epochs):  # 4: after a restart, those that are left
    for x, y in agent.shard(loader):  # 5
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        right = (model(mnist.test_x).argmax(1) == mnist.test_y).float().mean()
    print(f"epoch {epoch}: {100 * right:.2f} % of the test images")
