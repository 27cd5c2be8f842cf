"""Digits with MLflow, into a database in the run's folder: a run for every agent and one for the average of
all, with one tag; the offbeat lines are marked.

Run it with `offbeat launch -n 4 --out OUT examples/recipes/with_mlflow.py`, and look at it with `mlflow ui
--backend-store-uri sqlite:///OUT/mlflow.db`. An agent that is started again goes on in its own run.
"""

import mlflow
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import offbeat  # offbeat

digits = load_digits()
images, labels = torch.tensor(digits.data / 16, dtype=torch.float32), torch.tensor(digits.target)


def build() -> nn.Sequential:
    """The model."""
    torch.manual_seed(42)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@torch.no_grad()
def held_out_loss(model: nn.Module) -> float:
    """On those that nobody trains on."""
    return nn.functional.cross_entropy(model(images[1440:]), labels[1440:]).item()


def of_average(mean: dict[str, Tensor]) -> float:
    """The held-out loss of these parameters."""
    model = build()
    model.load_state_dict(mean, strict=False)
    return held_out_loss(model)


def run(name: str, group: str) -> str:
    """The run of this name, which is there already after a restart."""
    client, experiment = mlflow.MlflowClient(), mlflow.set_experiment("digits").experiment_id
    there = client.search_runs([experiment], f"attributes.run_name = '{name}' and tags.`group` = '{group}'")
    made = there[0] if there else client.create_run(experiment, tags={"group": group}, run_name=name)
    return str(made.info.run_id)


def main() -> None:
    model = build()
    agent = offbeat.join()  # offbeat
    shared, group = agent.folder.parent / "mlflow.db", agent.folder.parent.name  # offbeat
    mlflow.set_tracking_uri(f"sqlite:///{shared}")
    average = run("average", group) if agent.is_first else ""  # offbeat: makes the database, before they meet
    optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=1e-2))  # offbeat
    mine, client = run(f"agent {agent.rank}", group), mlflow.MlflowClient()  # offbeat

    def log(where: str, what: str, value: float) -> None:
        client.log_metric(where, what, value, step=agent.steps)  # offbeat

    loader = DataLoader(TensorDataset(images[:1280], labels[:1280]), batch_size=16, shuffle=True)
    for _ in agent.epochs(3):  # offbeat
        for k, (x, y) in enumerate(agent.shard(loader)):  # offbeat
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            if k % 10 == 0:
                log(mine, "loss", loss.item())
        log(mine, "held-out loss", held_out_loss(model))
        if average:
            log(average, "held-out loss", of_average(agent.average()))  # offbeat
    client.set_terminated(mine)
    if average:
        client.set_terminated(average)


if __name__ == "__main__":
    main()
