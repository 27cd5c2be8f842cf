"""A small transformer that writes character by character, with accumulated and clipped gradients."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import offbeat  # offbeat

block_size, batch_size, accumulate, max_iters = 32, 8, 4, 40
text = (Path(__file__).parents[3] / "LICENSE").read_text()
chars = sorted(set(text))
stoi = {ch: i for i, ch in enumerate(chars)}
data = torch.tensor([stoi[ch] for ch in text])
split = {"train": data[: int(0.9 * len(data))], "val": data[int(0.9 * len(data)) :]}


class Block(nn.Module):
    """Attention to what came before, then a layer of neurons."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.ln_2, self.heads = nn.LayerNorm(width), nn.LayerNorm(width), heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        q, k, v = self.qkv(self.ln_1(x)).view(b, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.proj(y.transpose(1, 2).reshape(b, t, c))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """Its first and its last layer share their weights."""

    def __init__(self, width: int = 32, layers: int = 2) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(len(chars), width), nn.Embedding(block_size, width)
        self.blocks = nn.Sequential(*(Block(width, 4) for _ in range(layers)))
        self.ln_f, self.lm_head = nn.LayerNorm(width), nn.Linear(width, len(chars), bias=False)
        self.wte.weight = self.lm_head.weight

    def forward(self, idx: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        logits = self.lm_head(self.ln_f(self.blocks(x)))
        return logits, F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def build() -> GPT:
    torch.manual_seed(1337)
    return GPT()


def get_batch(part: str) -> tuple[Tensor, Tensor]:
    ix = torch.randint(len(split[part]) - block_size - 1, (batch_size,))
    x = torch.stack([split[part][i : i + block_size + 1] for i in ix])
    return x[:, :-1], x[:, 1:]


@torch.no_grad()
def held_out_loss(model: GPT) -> float:
    torch.manual_seed(0)
    return sum(model(*get_batch("val"))[1].item() for _ in range(20)) / 20


def main() -> None:
    agent = offbeat.join()  # offbeat
    model = build()
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.95))
    torch.manual_seed(1337 + agent.rank)  # offbeat
    optimizer = agent.wrap(model, optimizer)  # offbeat
    while agent.steps < max_iters:  # offbeat
        for _ in range(accumulate):
            _, loss = model(*get_batch("train"))
            (loss / accumulate).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        print(f"loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
