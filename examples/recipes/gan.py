"""A generative adversarial network with an optimizer for each network; the offbeat lines are marked.

Run it with `offbeat launch -n 4 examples/recipes/gan.py`. Every `step` of either optimizer mixes both
networks. So what the generator is trained on is made anew, by the mixed generator, after the discriminator's
step.
"""

import torch
from torch import Tensor, nn, optim
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat


def points(count: int, seed: int) -> Tensor:
    """The data: a long cloud in the plane, away from the origin."""
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return noise @ torch.tensor([[0.8, 0.5], [0.0, 0.3]]) + torch.tensor([3.0, -2.0])


def build() -> nn.ModuleList:
    """Generator and discriminator, as the exported file has them."""
    torch.manual_seed(2)
    generator = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2))
    discriminator = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    return nn.ModuleList([generator, discriminator])


@torch.no_grad()
def held_out_loss(model: nn.ModuleList) -> float:
    """The energy distance between what the generator makes and fresh points."""
    torch.manual_seed(0)
    fake, real = model[0](torch.randn(500, 4)), points(500, seed=9)
    between, within = torch.cdist(fake, real).mean(), torch.cdist(fake, fake).mean()
    return float(2 * between - within - torch.cdist(real, real).mean())


def main() -> None:
    g, d = networks = build()
    agent = offbeat.join()  # offbeat
    optimizers = [optim.Adam(network.parameters(), lr=5e-3, betas=(0.5, 0.999)) for network in networks]
    g_opt, d_opt = agent.wrap([g, d], optimizers)  # offbeat
    loader = DataLoader(TensorDataset(points(1600, seed=1)), batch_size=32, shuffle=True)
    for epoch in agent.epochs(3):  # offbeat
        for (real,) in agent.shard(loader):  # offbeat
            d_opt.zero_grad()
            fake = g(torch.randn(len(real), 4)).detach()
            (softplus(-d(real)) + softplus(d(fake))).mean().backward()
            d_opt.step()
            g_opt.zero_grad()
            softplus(-d(g(torch.randn(len(real), 4)))).mean().backward()
            g_opt.step()
        print(f"epoch {epoch}: distance {held_out_loss(networks):.3f}")


if __name__ == "__main__":
    main()
