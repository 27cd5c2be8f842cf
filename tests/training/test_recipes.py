"""The recipes of examples/recipes with a framework or a tracker: a run is killed, ended and resumed, and its
loss falls; what numbers this process among others does not reach its agents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from user_scripts import EXAMPLES, gives_a_better_model
from warm import finished, needs_shared_memory

from offbeat.engines.trace import Trace
from offbeat.training.alone import STARTERS

RECIPES = EXAMPLES / "recipes"
SAVED_EVERY = 4


@dataclass(frozen=True)
class Recipe:
    """steps: of an agent, in all lives; killed: after how many steps agent 1 is, in a later epoch than the
    first; rate: the learning rate that both print last, of a scheduler that counts all steps or epochs;
    more: steps that it makes where it is resumed after its end.
    """

    steps: int
    killed: int
    rate: str = ""
    more: int = 0


FRAMEWORKS = {
    "with_accelerate": Recipe(60, 26, rate=f"learning rate {0.01 * 0.9**7:.5f}"),
    "with_lightning": Recipe(60, 26, rate=f"60 steps, learning rate {0.01 * 0.8**3:.5f}"),
    "with_lightning_manual": Recipe(150, 62, rate=f"150 steps, learning rate {0.005 * 0.9**3:.5f}"),
    "with_trainer": Recipe(40, 26, rate=f"'learning_rate': '{5e-3 / 40:g}', 'epoch'", more=1),
    "with_wandb": Recipe(120, 50),
    "with_mlflow": Recipe(120, 50),
}


@needs_shared_memory
@pytest.mark.ecosystem
@pytest.mark.parametrize("name", FRAMEWORKS)
@pytest.mark.filterwarnings("ignore")  # theirs
def test_a_recipe_goes_on_after_a_death_and_an_end(name: str, tmp_path: Path) -> None:
    """An agent is killed in its second epoch, the run is ended in its last one, and resumed: all steps are
    made once but for those since the checkpoint before the death, as are those of the schedulers.
    """
    recipe, path = FRAMEWORKS[name], RECIPES / f"{name}.py"
    words = ["launch", "-n", "2", "--out", "out", "--checkpoint-every", str(SAVED_EVERY)]
    end = ["--stop-after", str(2 * recipe.steps - 12), "--fault", f"kill agent 1 at step {recipe.killed}"]
    run = finished(tmp_path, *words, *end, str(path))
    assert run.code == 0, run.said + run.complained
    assert "[1] died (killed by SIGKILL); restart 1 of 3" in run.said
    assert "The run ended (--stop-after" in run.complained
    said = run.said
    again = finished(tmp_path, *words, "--resume", str(path))
    assert again.code == 0, again.said + again.complained
    made, twice = Trace.load(tmp_path / "out" / "trace.npz").updates(), recipe.killed % SAVED_EVERY
    assert made[1] == recipe.steps + twice
    assert recipe.steps <= made[0] <= recipe.steps + recipe.more, "it may have been done before the end"
    said += again.said
    for i in range(2):
        assert re.search(rf"\[{i}\] .*{re.escape(recipe.rate)}", said), said
    gives_a_better_model(tmp_path, path)
    if name in TRACKED:
        TRACKED[name](tmp_path / "out", recipe.steps)


def tracked_by_wandb(out: Path, steps: int) -> None:
    """Files of a run for each agent, under one id in all its lives, and of one for the average."""
    ids = [
        {path.name.partition("-out-")[2] for path in (out / f"agent-{i}" / "wandb").glob("offline-run-*")}
        for i in range(2)
    ]
    assert ids == [{"agent-0", "average"}, {"agent-1"}]


def tracked_by_mlflow(out: Path, steps: int) -> None:
    """Three runs with the name of this one as their tag; those of the agents to their last step."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{out / 'mlflow.db'}")
    (experiment,) = client.search_experiments(filter_string="name = 'digits'")
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert sorted(runs) == ["agent 0", "agent 1", "average"]
    assert {run.data.tags["group"] for run in runs.values()} == {"out"}
    for run in runs.values():
        losses = client.get_metric_history(run.info.run_id, "held-out loss")
        assert losses[-1].step >= steps and losses[-1].value < 1.0


TRACKED = {"with_wandb": tracked_by_wandb, "with_mlflow": tracked_by_mlflow}

WHO = """
import os
import torch
import offbeat

agent = offbeat.join()
print("has", sorted(name for name in os.environ if "RANK" in name or "SIZE" in name or "SLURM" in name))
(agent.folder / "mine").write_text(agent.folder.parent.name)
model = torch.nn.Linear(2, 2)
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.1))
model(torch.ones(2)).sum().backward()
optimizer.step()
"""

OTHERS = {name: "1" for each, (_, rank) in STARTERS.items() for name in (each, rank)}
OTHERS |= {"LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "SLURM_NTASKS": "2", "SLURM_JOB_ID": "7"}


@needs_shared_memory
def test_agents_are_no_processes_of_who_started_their_launcher(tmp_path: Path) -> None:
    """Else Accelerate and Lightning wait for the others; and each has a folder of its own."""
    setup = f"import os; os.environ.update({OTHERS!r})"
    run = finished(tmp_path, "launch", "-n", "2", "--out", "out", "train.py", script=WHO, setup=setup)
    assert run.code == 0, run.said + run.complained
    for i in range(2):
        assert f"[{i}] has ['OFFBEAT_RANK', 'SLURM_JOB_ID']" in run.said
        assert (tmp_path / "out" / f"agent-{i}" / "mine").read_text() == "out"
