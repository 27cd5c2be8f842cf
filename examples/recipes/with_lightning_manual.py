"""A generative adversarial network with Lightning's manual optimization: an optimizer for each network, whose
`step` this module calls; the offbeat lines are marked.

Run it with `offbeat launch -n 4 examples/recipes/with_lightning_manual.py`. Every `step` of either optimizer
mixes both networks. So what the generator is trained on is made anew after the discriminator's step.
"""

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat


def points(count: int, seed: int) -> Tensor:
    """The data: a long cloud in the plane, away from the origin."""
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return noise @ torch.tensor([[0.8, 0.5], [0.0, 0.3]]) + torch.tensor([3.0, -2.0])


class LitGan(L.LightningModule):
    """Generator and discriminator."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.g = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
        self.d = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def training_step(self, batch: tuple[Tensor], batch_idx: int) -> None:
        g_opt, d_opt = self.optimizers()
        (real,) = batch
        d_opt.zero_grad()
        fake = self.g(torch.randn(len(real), 4)).detach()
        self.manual_backward((softplus(-self.d(real)) + softplus(self.d(fake))).mean())
        d_opt.step()
        g_opt.zero_grad()
        self.manual_backward(softplus(-self.d(self.g(torch.randn(len(real), 4)))).mean())
        g_opt.step()

    def on_train_epoch_end(self) -> None:
        for scheduler in self.lr_schedulers():
            scheduler.step()
        rate = self.trainer.optimizers[0].param_groups[0]["lr"]
        print(f"epoch {self.current_epoch}: {self.global_step} steps, learning rate {rate:.5f}")

    def configure_optimizers(self) -> Any:
        networks = (self.g, self.d)
        made = [torch.optim.Adam(part.parameters(), lr=5e-3, betas=(0.5, 0.999)) for part in networks]
        both = agent.wrap(self, made)  # offbeat
        schedulers = [torch.optim.lr_scheduler.ExponentialLR(each, 0.9) for each in both]
        agent.save_also(g=schedulers[0], d=schedulers[1], loops=self.trainer.fit_loop)  # offbeat
        return both, schedulers


def build() -> LitGan:
    """The model."""
    torch.manual_seed(2)
    return LitGan()


@torch.no_grad()
def held_out_loss(model: LitGan) -> float:
    """The energy distance between what the generator makes and fresh points."""
    torch.manual_seed(0)
    fake, real = model.g(torch.randn(500, 4)), points(500, seed=9)
    between, within = torch.cdist(fake, real).mean(), torch.cdist(fake, fake).mean()
    return float(2 * between - within - torch.cdist(real, real).mean())


def main() -> None:
    loader = DataLoader(TensorDataset(points(1600, seed=1)), batch_size=32, shuffle=True)
    trainer = L.Trainer(
        max_epochs=3,
        devices=1,
        accelerator="cpu",
        logger=False,
        default_root_dir=agent.folder,  # offbeat
    )
    trainer.fit(build(), agent.shard(loader))  # offbeat


if __name__ == "__main__":
    agent = offbeat.join()  # offbeat
    main()
