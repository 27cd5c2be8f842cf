"""A small GPT-2, from the beginning, with the Trainer of Hugging Face Transformers; the offbeat lines are
marked.

Run it with `offbeat launch -n 4 examples/recipes/with_trainer.py`. The Trainer's checkpoints are those of one
agent, in that agent's folder; offbeat's own are what an agent that is started again goes on from.
"""

import argparse
import inspect
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

import offbeat  # offbeat

BLOCK = 32
text = inspect.getsource(argparse)[:12_000]
chars = sorted(set(text))
ids = torch.tensor([chars.index(ch) for ch in text])
blocks = ids[: len(ids) // BLOCK * BLOCK].view(-1, BLOCK)


def build() -> GPT2LMHeadModel:
    """The model."""
    torch.manual_seed(42)
    size = {"n_positions": BLOCK, "n_embd": 32, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(vocab_size=len(chars), bos_token_id=0, eos_token_id=0, **size))


@torch.no_grad()
def held_out_loss(model: GPT2LMHeadModel) -> float:
    """On the end of the text, that nobody trains on."""
    model.eval()
    return model(input_ids=blocks[320:], labels=blocks[320:]).loss.item()


class Ours(Trainer):
    """The Trainer, with its optimizer, its scheduler and its data shared."""

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        return agent.wrap(self.model, super().create_optimizer(*args, **kwargs))  # offbeat

    def create_scheduler(self, *args: Any, **kwargs: Any) -> Any:
        scheduler = super().create_scheduler(*args, **kwargs)
        agent.save_also(scheduler=scheduler)  # offbeat
        self.state.global_step = scheduler.last_epoch  # of all lives, so it stops when it has made them all
        return scheduler

    def get_train_dataloader(self) -> Any:
        return agent.shard(super().get_train_dataloader())  # offbeat


def main() -> None:
    arguments = TrainingArguments(
        output_dir=str(agent.folder / "trainer"),  # offbeat
        num_train_epochs=2,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        logging_steps=5,
        save_strategy="epoch",
        save_only_model=True,
        report_to=[],
        use_cpu=True,  # leave it out where there is a GPU
        disable_tqdm=True,
    )
    train = [{"input_ids": row, "labels": row} for row in blocks[:320]]
    Ours(model=build(), args=arguments, train_dataset=train).train()


if __name__ == "__main__":
    agent = offbeat.join()  # offbeat
    main()
