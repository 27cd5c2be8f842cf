"""A variational autoencoder of handwritten digits."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat

images = torch.tensor(load_digits().data / 16, dtype=torch.float32)
epochs = 2


class VAE(nn.Module):
    """From 64 pixels to 4 numbers, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc21, self.fc22 = nn.Linear(64, 48), nn.Linear(48, 4), nn.Linear(48, 4)
        self.fc3, self.fc4 = nn.Linear(4, 48), nn.Linear(48, 64)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h1 = F.relu(self.fc1(x))
        return self.fc21(h1), self.fc22(h1)

    def reparameterize(self, mu: Tensor, logvar: Tensor) -> Tensor:
        return mu + torch.randn_like(mu) * torch.exp(0.5 * logvar)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z))))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decode(self.reparameterize(mu, logvar)), mu, logvar


def loss_function(recon_x: Tensor, x: Tensor, mu: Tensor, logvar: Tensor) -> Tensor:
    bce = F.binary_cross_entropy(recon_x, x, reduction="sum")
    kld = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    return bce + kld


def build() -> VAE:
    torch.manual_seed(1)
    return VAE()


@torch.no_grad()
def held_out_loss(model: VAE) -> float:
    torch.manual_seed(0)
    return loss_function(*(lambda x: (model(x)[0], x, *model.encode(x)))(images[1440:])).item() / 357


def main() -> None:
    model = build()
    agent = offbeat.join()  # offbeat
    optimizer: optim.Optimizer = optim.Adam(model.parameters(), lr=3e-3)
    optimizer = agent.wrap(model, optimizer)  # offbeat
    kwargs: dict[str, Any] = {"batch_size": 32, "shuffle": True}
    train_loader = agent.shard(DataLoader(TensorDataset(images[:1440]), **kwargs))  # offbeat
    test_loader = DataLoader(TensorDataset(images[1440:]), batch_size=128)
    for epoch in agent.epochs(epochs):  # offbeat
        model.train()
        train_loss = 0.0
        for batch_idx, (data,) in enumerate(train_loader):
            optimizer.zero_grad()
            recon_batch, mu, logvar = model(data)
            loss = loss_function(recon_batch, data, mu, logvar)
            loss.backward()
            train_loss += loss.item()
            optimizer.step()
            print(
                f"Train Epoch: {epoch} [{batch_idx}/{len(train_loader)}]\tLoss: {loss.item() / len(data):.6f}"
            )
        print(f"====> Epoch: {epoch} Average loss: {train_loss / len(train_loader.dataset):.4f}")
        model.eval()
        with torch.no_grad():
            test_loss = sum(loss_function(model(x)[0], x, *model.encode(x)).item() for (x,) in test_loader)
        print(f"====> Test set loss: {test_loss / len(images[1440:]):.4f}")


if __name__ == "__main__":
    main()
