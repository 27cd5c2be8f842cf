"""Digits with Hugging Face Accelerate, which prepares model, optimizer and loaders, and accumulates
gradients.
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat

num_epochs, accumulation = 3, 2


def build() -> nn.Sequential:
    torch.manual_seed(42)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def data_set(part: slice) -> TensorDataset:
    digits = load_digits()
    return TensorDataset(
        torch.tensor(digits.data[part] / 16, dtype=torch.float32), torch.tensor(digits.target[part])
    )


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    x, y = data_set(slice(1440, None)).tensors
    return nn.functional.cross_entropy(model(x), y).item()


def main() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulation)
    model = build()
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    agent = offbeat.join()  # offbeat
    optimizer = agent.wrap(model, optimizer)  # offbeat
    train_dataloader = DataLoader(data_set(slice(0, 1280)), batch_size=16, shuffle=True)
    eval_dataloader = DataLoader(data_set(slice(1440, None)), batch_size=64)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1000)
    model, optimizer, train_dataloader, eval_dataloader, scheduler = accelerator.prepare(
        model, optimizer, train_dataloader, eval_dataloader, scheduler
    )
    for epoch in agent.epochs(num_epochs):  # offbeat
        model.train()
        for x, y in agent.shard(train_dataloader):  # offbeat
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(x), y)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        model.eval()
        correct = torch.zeros(())
        for x, y in eval_dataloader:
            with torch.no_grad():
                predictions, references = accelerator.gather_for_metrics((model(x).argmax(-1), y))
            correct += (predictions == references).sum()
        accelerator.print(f"epoch {epoch}: accuracy {correct / 357:.3f}")


if __name__ == "__main__":
    main()
