"""Handwritten digits with a small convolutional network: the shape of PyTorch's MNIST example."""

import argparse
from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat


class Net(nn.Module):
    """Two convolutions, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 16, 3)
        self.dropout = nn.Dropout(0.25)
        self.fc1, self.fc2 = nn.Linear(64, 32), nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.conv1(x))))
        x = self.dropout(torch.flatten(F.max_pool2d(x, 2), 1))
        return F.log_softmax(self.fc2(F.relu(self.fc1(x))), dim=1)


def build() -> Net:
    torch.manual_seed(1)
    return Net()


def data_sets() -> tuple[TensorDataset, TensorDataset]:
    digits = load_digits()
    x, y = torch.tensor(digits.images / 16, dtype=torch.float32)[:, None], torch.tensor(digits.target)
    return TensorDataset(x[:1440], y[:1440]), TensorDataset(x[1440:], y[1440:])


def train(log_interval: int, model: Net, train_loader: Any, optimizer: optim.Optimizer, epoch: int) -> None:
    model.train()
    for batch_idx, (data, target) in enumerate(train_loader):
        optimizer.zero_grad()
        loss = F.nll_loss(model(data), target)
        loss.backward()
        optimizer.step()
        if batch_idx % log_interval == 0:
            seen, share = batch_idx * len(data), 100 * batch_idx / len(train_loader)
            done = f"{seen}/{len(train_loader.dataset)} ({share:.0f}%)"
            print(f"Train Epoch: {epoch} [{done}]\tLoss: {loss.item():.6f}")


def test(model: Net, test_loader: Any) -> float:
    model.eval()
    test_loss, correct = 0.0, 0
    with torch.no_grad():
        for data, target in test_loader:
            output = model(data)
            test_loss += F.nll_loss(output, target, reduction="sum").item()
            correct += (output.argmax(dim=1) == target).sum().item()
    test_loss /= len(test_loader.dataset)
    print(f"\nTest set: Average loss: {test_loss:.4f}, Accuracy: {correct}/{len(test_loader.dataset)}\n")
    return test_loss


def held_out_loss(model: Net) -> float:
    return test(model, DataLoader(data_sets()[1], batch_size=1000))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=5e-3)
    parser.add_argument("--gamma", type=float, default=0.7)
    parser.add_argument("--log-interval", type=int, default=5)
    args = parser.parse_args()

    dataset1, dataset2 = data_sets()
    train_loader = DataLoader(dataset1, batch_size=32, shuffle=True)
    test_loader = DataLoader(dataset2, batch_size=1000)
    model = build()
    optimizer: optim.Optimizer = optim.Adam(model.parameters(), lr=args.lr)
    agent = offbeat.join()  # offbeat
    optimizer = agent.wrap(model, optimizer)  # offbeat
    scheduler = StepLR(optimizer, step_size=1, gamma=args.gamma)
    for epoch in agent.epochs(args.epochs):  # offbeat
        train(args.log_interval, model, agent.shard(train_loader), optimizer, epoch)  # offbeat
        test(model, test_loader)
        scheduler.step()


if __name__ == "__main__":
    main()
