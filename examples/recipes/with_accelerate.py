"""Digits with Hugging Face Accelerate, which prepares model, optimizer, scheduler and loaders, and
accumulates gradients; the offbeat lines are marked.

Run it with `offbeat launch -n 4 examples/recipes/with_accelerate.py`, never with `accelerate launch`: that
would start processes that average gradients.
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat

EPOCHS, ACCUMULATION = 3, 2


def build() -> nn.Sequential:
    """The model."""
    torch.manual_seed(42)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def data_set(part: slice) -> TensorDataset:
    """Some of the digits."""
    digits = load_digits()
    return TensorDataset(
        torch.tensor(digits.data[part] / 16, dtype=torch.float32), torch.tensor(digits.target[part])
    )


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    """On those that nobody trains on."""
    x, y = data_set(slice(1440, None)).tensors
    return nn.functional.cross_entropy(model(x), y).item()


def main() -> None:
    agent = offbeat.join()  # offbeat
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=ACCUMULATION)  # cpu: leave it out
    model = build()
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    optimizer = agent.wrap(model, optimizer)  # offbeat
    loader = DataLoader(data_set(slice(0, 1280)), batch_size=16, shuffle=True)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=8, gamma=0.9)
    model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)
    agent.save_also(scheduler=scheduler)  # offbeat
    for epoch in agent.epochs(EPOCHS):  # offbeat
        for x, y in agent.shard(loader):  # offbeat
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        rate = scheduler.get_last_lr()[0]
        print(f"epoch {epoch}: held-out loss {held_out_loss(model):.3f}, learning rate {rate:.5f}")


if __name__ == "__main__":
    main()
