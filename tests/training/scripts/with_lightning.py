"""Digits with Lightning: a LightningModule, a Trainer, and nothing else of a loop."""

from typing import Any

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat


class LitDigits(L.LightningModule):
    """A small network with batch normalization."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Linear(64, 10))

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.net(x), y))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        return agent.wrap(self, optimizer)  # offbeat


def build() -> LitDigits:
    torch.manual_seed(42)
    return LitDigits()


def data_set(part: slice) -> TensorDataset:
    digits = load_digits()
    return TensorDataset(
        torch.tensor(digits.data[part] / 16, dtype=torch.float32), torch.tensor(digits.target[part])
    )


@torch.no_grad()
def held_out_loss(model: LitDigits) -> float:
    model.eval()
    x, y = data_set(slice(1440, None)).tensors
    return F.cross_entropy(model.net(x), y).item()


def main() -> None:
    train = DataLoader(data_set(slice(0, 1280)), batch_size=32, shuffle=True)
    val = DataLoader(data_set(slice(1440, None)), batch_size=128)
    trainer = L.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False)
    trainer.fit(build(), agent.shard(train), val)  # offbeat


if __name__ == "__main__":
    agent = offbeat.join()  # offbeat
    main()
