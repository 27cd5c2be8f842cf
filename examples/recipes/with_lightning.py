"""Digits with Lightning: a LightningModule, a Trainer, and nothing else of a loop; the offbeat lines are
marked.

Run it with `offbeat launch -n 4 examples/recipes/with_lightning.py`. Lightning's own counts of epochs and
batches are saved with the agent, so an agent that is started again goes on in the epoch in which it was.
"""

from typing import Any

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat


class LitDigits(L.LightningModule):
    """A small network with batch normalization, which optimizes by itself."""

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

    def on_train_epoch_end(self) -> None:
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        print(f"epoch {self.current_epoch}: {self.global_step} steps, learning rate {rate:.5f}")

    def configure_optimizers(self) -> Any:
        optimizer = agent.wrap(self, torch.optim.AdamW(self.parameters(), lr=1e-2))  # offbeat
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.8)
        agent.save_also(scheduler=scheduler, loops=self.trainer.fit_loop)  # offbeat
        return {"optimizer": optimizer, "lr_scheduler": scheduler}


def build() -> LitDigits:
    """The model."""
    torch.manual_seed(42)
    return LitDigits()


def data_set(part: slice) -> TensorDataset:
    """Some of the digits."""
    digits = load_digits()
    return TensorDataset(
        torch.tensor(digits.data[part] / 16, dtype=torch.float32), torch.tensor(digits.target[part])
    )


@torch.no_grad()
def held_out_loss(model: LitDigits) -> float:
    """On those that nobody trains on."""
    model.eval()
    x, y = data_set(slice(1440, None)).tensors
    return F.cross_entropy(model.net(x), y).item()


def main() -> None:
    train = DataLoader(data_set(slice(0, 1280)), batch_size=32, shuffle=True)
    val = DataLoader(data_set(slice(1440, None)), batch_size=128)
    trainer = L.Trainer(
        max_epochs=3,
        devices=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=agent.folder,  # offbeat
    )
    trainer.fit(build(), agent.shard(train), val)  # offbeat


if __name__ == "__main__":
    agent = offbeat.join()  # offbeat
    main()
