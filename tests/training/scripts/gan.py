"""A generative adversarial network on points of the plane: both networks in one module, one optimizer."""

import torch
from torch import Tensor, nn, optim
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat

nz, epochs = 4, 3
real_label, fake_label = 1.0, 0.0


def points(count: int, seed: int) -> Tensor:
    """A long cloud away from the origin."""
    noise = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return noise @ torch.tensor([[0.8, 0.5], [0.0, 0.3]]) + torch.tensor([3.0, -2.0])


def build() -> nn.ModuleList:
    torch.manual_seed(2)
    generator = nn.Sequential(nn.Linear(nz, 32), nn.ReLU(), nn.Linear(32, 2))
    discriminator = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    return nn.ModuleList([generator, discriminator])


@torch.no_grad()
def held_out_loss(model: nn.ModuleList) -> float:
    """The energy distance between what the generator makes and fresh points."""
    torch.manual_seed(0)
    fake, real = model[0](torch.randn(500, nz)), points(500, seed=9)
    return (
        2 * torch.cdist(fake, real).mean() - torch.cdist(fake, fake).mean() - torch.cdist(real, real).mean()
    ).item()


def main() -> None:
    model = build()
    netG, netD = model
    agent = offbeat.join()  # offbeat
    optimizer: optim.Optimizer = optim.Adam(model.parameters(), lr=5e-3, betas=(0.5, 0.999))
    optimizer = agent.wrap(model, optimizer)  # offbeat
    dataloader = DataLoader(TensorDataset(points(1600, seed=1)), batch_size=32, shuffle=True)
    criterion = nn.BCEWithLogitsLoss()
    for epoch in agent.epochs(epochs):  # offbeat
        for i, (real,) in enumerate(agent.shard(dataloader)):  # offbeat
            # Update the discriminator; the generator has no gradient, so its optimizer leaves it alone.
            model.zero_grad()
            noise = torch.randn(len(real), nz)
            score = netD(real)
            errD_real = criterion(score, torch.full_like(score, real_label))
            errD_fake = criterion(netD(netG(noise).detach()), torch.full_like(score, fake_label))
            (errD_real + errD_fake).backward()
            optimizer.step()
            # Update the generator.
            model.zero_grad()
            errG = criterion(netD(netG(noise)), torch.full_like(score, real_label))
            errG.backward()
            netD.zero_grad()
            optimizer.step()
            print(
                f"[{epoch}/{epochs}][{i}] Loss_D: {(errD_real + errD_fake).item():.4f} Loss_G: "
                f"{errG.item():.4f}"
            )


if __name__ == "__main__":
    main()
