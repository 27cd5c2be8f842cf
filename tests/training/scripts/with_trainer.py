"""A small GPT-2, from the beginning, with the Trainer of Hugging Face Transformers."""

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import offbeat  # offbeat

block = 32
text = (Path(__file__).parents[3] / "LICENSE").read_text()
chars = sorted(set(text))
ids = torch.tensor([chars.index(ch) for ch in text])
blocks = ids[: len(ids) // block * block].view(-1, block)


def build() -> GPT2LMHeadModel:
    torch.manual_seed(42)
    config = GPT2Config(
        vocab_size=len(chars),
        n_positions=block,
        n_embd=32,
        n_layer=2,
        n_head=4,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def examples(rows: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    return [{"input_ids": row, "labels": row} for row in rows]


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel) -> float:
    model.eval()
    return model(input_ids=blocks[300:], labels=blocks[300:]).loss.item()


class Ours(Trainer):
    """The Trainer, with its optimizer and its data shared."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        return agent.wrap(self.model, super().create_optimizer(*args, **kwargs))  # offbeat

    def get_train_dataloader(self) -> Any:
        return agent.shard(super().get_train_dataloader())  # offbeat


def main() -> None:
    arguments = TrainingArguments(
        output_dir="trained",
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        logging_steps=5,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Ours(model=build(), args=arguments, train_dataset=examples(blocks[:300]))
    trainer.train()


if __name__ == "__main__":
    agent = offbeat.join()  # offbeat
    main()
