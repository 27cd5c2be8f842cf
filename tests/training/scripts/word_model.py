"""A word-level language model with an LSTM whose encoder and decoder share their weights."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor, nn

import offbeat  # offbeat

bptt, batch_size, epochs, clip = 10, 8, 5, 0.5
words = re.findall("[a-z]+", (Path(__file__).parents[3] / "LICENSE").read_text().lower())
dictionary = {word: i for i, word in enumerate(sorted(set(words)))}
ids = torch.tensor([dictionary[word] for word in words])


class RNNModel(nn.Module):
    """An encoder, a recurrent module and a decoder."""

    def __init__(self, ntoken: int, nhid: int) -> None:
        super().__init__()
        self.drop, self.nhid = nn.Dropout(0.1), nhid
        self.encoder, self.rnn = nn.Embedding(ntoken, nhid), nn.LSTM(nhid, nhid, 1)
        self.decoder = nn.Linear(nhid, ntoken)
        self.decoder.weight = self.encoder.weight
        nn.init.uniform_(self.encoder.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)

    def forward(self, x: Tensor, hidden: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        output, hidden = self.rnn(self.drop(self.encoder(x)), hidden)
        return self.decoder(self.drop(output)).flatten(0, 1), hidden

    def init_hidden(self, bsz: int) -> tuple[Tensor, ...]:
        return torch.zeros(1, bsz, self.nhid), torch.zeros(1, bsz, self.nhid)


def build() -> RNNModel:
    torch.manual_seed(1111)
    return RNNModel(len(dictionary), 32)


def batchify(source: Tensor, bsz: int) -> Tensor:
    nbatch = source.size(0) // bsz
    return source[: nbatch * bsz].view(bsz, -1).t().contiguous()


def get_batch(source: Tensor, i: int) -> tuple[Tensor, Tensor]:
    seq_len = min(bptt, len(source) - 1 - i)
    return source[i : i + seq_len], source[i + 1 : i + 1 + seq_len].flatten()


train_data, val_data = batchify(ids[:1400], batch_size), batchify(ids[1400:], 4)
criterion = nn.CrossEntropyLoss()


@torch.no_grad()
def held_out_loss(model: RNNModel) -> float:
    """The perplexity."""
    model.eval()
    total_loss, hidden = 0.0, model.init_hidden(4)
    for i in range(0, val_data.size(0) - 1, bptt):
        data, targets = get_batch(val_data, i)
        output, hidden = model(data, hidden)
        total_loss += len(data) * criterion(output, targets).item()
    return math.exp(total_loss / (len(val_data) - 1))


def main() -> None:
    model = build()
    optimizer: torch.optim.Optimizer = torch.optim.SGD(model.parameters(), lr=4.0)
    agent = offbeat.join()  # offbeat
    optimizer = agent.wrap(model, optimizer)  # offbeat
    for epoch in agent.epochs(epochs):  # offbeat
        model.train()
        total_loss, hidden = 0.0, model.init_hidden(batch_size)
        batches = agent.shard(range(0, train_data.size(0) - 1, bptt))  # offbeat
        for batch, i in enumerate(batches):
            data, targets = get_batch(train_data, i)
            model.zero_grad()
            output, hidden = model(data, tuple(h.detach() for h in hidden))
            loss = criterion(output, targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            total_loss += loss.item()
            print(
                f"| epoch {epoch} | {batch}/{len(batches)} batches | ppl "
                f"{math.exp(total_loss / (batch + 1)):8.2f}"
            )
        print(f"| end of epoch {epoch} | valid ppl {held_out_loss(model):8.2f}")


if __name__ == "__main__":
    main()
