"""The exported model: what the agents' checkpoints average to, in a file that the model loads as it is."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import checkpoints
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from warm import finished, needs_shared_memory

from offbeat.core.errors import DataError, OffbeatError, SettingError
from offbeat.core.vector import Vector
from offbeat.engines.live.node import checkpoint
from offbeat.training.export import ExportError, export

NET = """
model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 4))
model[2].weight = model[0].weight
model[2].bias.requires_grad_(False)
"""

SCRIPT = f"""
import torch
import offbeat

torch.manual_seed(3)
{NET}
agent = offbeat.join()
optimizer = agent.wrap(model, torch.optim.AdamW(model.parameters(), lr=1e-2))
for step in range(12 + agent.rank):
    optimizer.zero_grad()
    torch.nn.functional.mse_loss(model(torch.randn(8, 4) + agent.rank), torch.randn(8, 4)).backward()
    optimizer.step()
"""

ABOUT = {
    "algorithm": "adsgd",
    "agents": 3,
    "topology": "ring",
    "seed": 0,
    "model": [["w", [2], "torch.float32"]],
}


@dataclass(frozen=True)
class Foreign:
    """A message of an algorithm that whoever exports does not know."""

    x: Tensor


def save(
    folder: Path,
    agent: int,
    step: int,
    about: Mapping[str, Any] = ABOUT,
    at: float | None = None,
    **tensors: Any,
) -> Path:
    """A checkpoint as a run of a script writes it, at this time."""
    named = tensors or {"w": torch.tensor([1.0, 2.0]) * (agent + 1)}
    heard = Foreign(torch.ones(3))
    state: dict[str, Any] = {
        "agent": {"heard": heard, "x": Vector((torch.ones(3),))},
        "model": {"w": named.pop("w")},
        "rest": named,
    }
    state |= {} if at is None else {"time": at}
    return checkpoints.save(folder / "checkpoints" / f"agent-{agent}", step, about, state)


def resummed(content: bytes) -> bytes:
    """A changed checkpoint with the checksum that fits it."""
    match = checkpoint.SUM.match(content)
    assert match is not None
    start, end = match.span(1)
    return content[:start] + f"{zlib.crc32(content[:start] + content[end:]):08x}".encode() + content[end:]


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@needs_shared_memory
def test_the_mean_of_a_run_loads_into_the_model(tmp_path: Path) -> None:
    run = finished(tmp_path, "launch", "-n", "3", "--out", "out", "train.py", script=SCRIPT)
    assert run.code == 0, run.said + run.complained
    again = finished(tmp_path, "export", "out")
    assert again.code == 0, again.complained
    for i in range(3):
        assert f"agent {i}: step {12 + i} at time " in again.said
        assert f", out/checkpoints/agent-{i}/step-" in again.said
    assert "Written: out/model.safetensors" in again.said
    assert "model.load_state_dict(safetensors.torch.load_file('out/model.safetensors'))" in again.said
    named: dict[str, Any] = {"torch": torch}
    exec(NET, named)
    model: nn.Module = named["model"]
    mean = load_file(tmp_path / "out" / "model.safetensors")
    model.load_state_dict(mean)  # strictly
    states = []
    for i in range(3):
        folder = tmp_path / "out" / "checkpoints" / f"agent-{i}"
        _, state = checkpoint.load(checkpoint.path_of(folder, 12 + i))
        states.append(state["model"] | state["rest"])
    assert mean.keys() == states[0].keys() >= {"0.weight", "2.weight", "1.running_var", "2.bias"}
    for name, got in mean.items():
        each = torch.stack([state[name] for state in states])
        if name == "1.num_batches_tracked":
            assert got.item() == 14
        elif name == "2.bias":
            assert torch.equal(got, each[0]), "frozen: the same bits"
        else:
            assert torch.equal(got, each.double().mean(0).float()), name
    assert not torch.equal(states[0]["1.running_mean"], states[1]["1.running_mean"])
    assert torch.equal(mean["0.weight"], mean["2.weight"]), "tied"
    head = metadata(tmp_path / "out" / "model.safetensors")
    assert json.loads(head["steps"]) == {"0": 12, "1": 13, "2": 14}
    assert (head["run"], json.loads(head["about"])["algorithm"]) == ("out", "adsgd")


def test_every_dtype_has_its_mean_and_agreement_keeps_the_bits(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {
            "w": torch.tensor([1.0 + k, 2.0**-24], dtype=torch.float32),
            "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16) * (k + 1),
            "complex": torch.tensor([1j * k]),
            "count": torch.tensor(7 - k),
            "mask": torch.tensor([False, k == 1]),
            "same": torch.tensor([0.1, float("-inf"), -0.0], dtype=torch.float64),
            "none": torch.zeros(0, 3),
        }
        for k in range(3)
    ]
    for k, row in enumerate(rows):
        save(tmp_path, k, 10, **row)
    mean = load_file(export(tmp_path).path)
    assert mean["w"].tolist() == [2.0, 2.0**-24]
    assert (mean["half"].tolist(), mean["half"].dtype) == ([2.0, 4.0], torch.bfloat16)
    assert mean["complex"].tolist() == [1j]
    assert mean["count"].item() == 7
    assert mean["count"].shape == ()
    assert mean["mask"].tolist() == [False, True]
    assert torch.equal(mean["same"].view(torch.int64), rows[0]["same"].view(torch.int64))
    assert mean["none"].shape == (0, 3)


def test_a_mean_is_taken_in_float64(tmp_path: Path) -> None:
    values = [1.0, 2.0**-24, 2.0**-24]  # in float32 the small ones would vanish one by one
    for k, value in enumerate(values):
        save(tmp_path, k, 10, w=torch.tensor([value]))
    got = load_file(export(tmp_path).path)["w"]
    assert torch.equal(got, (torch.tensor(values).double().sum() / 3).float().reshape(1))


def test_one_agent_one_step_and_the_names_of_files(tmp_path: Path) -> None:
    for k in range(3):
        for step in (10, 20 + k):
            save(tmp_path, k, step, w=torch.tensor([float(100 * k + step)]))
    assert load_file(export(tmp_path).path)["w"].item() == 121
    at = export(tmp_path, step=10)
    assert at.path.name == "model-step-10.safetensors"
    assert load_file(at.path)["w"].item() == 110
    one = export(tmp_path, agents=[1])
    assert one.path.name == "model-agents-1.safetensors"
    assert load_file(one.path)["w"].item() == 121
    assert [(s.agent, s.step) for s in one.sources] == [(1, 21)]
    both = export(tmp_path, tmp_path / "mine.safetensors", agents=[2], step=10)
    assert load_file(both.path)["w"].item() == 210
    some = export(tmp_path, agents=[2, 0, 2])
    assert load_file(some.path)["w"].item() == 121
    assert [s.agent for s in some.sources] == [0, 2]
    with pytest.raises(SettingError, match="expected some of 0 to 2"):
        export(tmp_path, agents=[])


def test_who_is_far_behind_is_named_and_can_be_left_out(tmp_path: Path) -> None:
    """Agent 0 is quick, agent 1 slow, agent 2 left early; agent 3 is as good as done."""
    about = ABOUT | {"agents": 4}
    for k, (step, at) in enumerate([(100, 20.0), (49, 50.0), (90, 39.0), (90, 41.0)]):
        save(tmp_path, k, step, about, at=at)
    assert export(tmp_path).behind == (1, 2)
    done = finished(tmp_path, "export", ".", "--force")
    assert "agent 2: step 90 at time 39, " in done.said
    assert (
        "early or were killed: agents 1, 2. They count as much as the others; --agents 0,3 leaves them out."
        in (" ".join(done.said.split()))
    )
    fewer = finished(tmp_path, "export", ".", "--agents", "0,3")
    assert "count as much" not in fewer.said
    assert load_file(tmp_path / "model-agents-0-3.safetensors")["w"].tolist() == [2.5, 5.0]
    for text, said in (
        ("0,x", "Cannot read the agents '0,x'"),
        ("0,-1", "Agents -1, 0 were asked"),
        ("4", "of 0 to 3"),
    ):
        refused = finished(tmp_path, "export", ".", "--agents", text)
        assert (refused.code, said in refused.complained) == (2, True), refused.complained


def test_who_has_no_checkpoint_is_named_or_left_out(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    save(tmp_path, 2, 20)
    with pytest.raises(SettingError, match=r"of every agent .* agent 1 has none.* --allow-missing"):
        export(tmp_path)
    with pytest.raises(SettingError, match="agent 1 has none; agent 2 has those of 20"):
        export(tmp_path, step=10)
    with pytest.raises(SettingError, match=r"of step 5 .* agent 0 has those of 10"):
        export(tmp_path, step=5, allow_missing=True)
    with pytest.raises(SettingError, match="agent 1 has none"):
        export(tmp_path, agents=[1], allow_missing=True)
    with pytest.raises(SettingError, match="Agents 3 were asked for; expected some of 0 to 2"):
        export(tmp_path, agents=[3])
    save(tmp_path / "common", 0, 10, ABOUT | {"agents": 2})
    for k, step in ((0, 20), (1, 20), (1, 30)):
        save(tmp_path / "common", k, step, ABOUT | {"agents": 2})
    with pytest.raises(SettingError, match=r"agent 0 has those of 20, 10\..* All of them have those of 20\."):
        export(tmp_path / "common", step=30)
    done = export(tmp_path, allow_missing=True)
    assert done.missing == (1,)
    assert load_file(done.path)["w"].tolist() == [2.0, 4.0]
    assert json.loads(metadata(done.path)["missing"]) == [1]


def test_a_file_that_exists_is_kept_unless_forced(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path, k, 10)
    out = tmp_path / "model.safetensors"
    out.write_text("mine")
    with pytest.raises(SettingError, match=r"exists; --force replaces it"):
        export(tmp_path)
    assert out.read_text() == "mine"
    export(tmp_path, force=True)
    assert load_file(out)["w"].tolist() == [2.0, 4.0]
    with pytest.raises(SettingError, match="is a folder"):
        export(tmp_path, tmp_path, force=True)
    with pytest.raises(ExportError, match=r"Cannot write .* No such file"):
        export(tmp_path, tmp_path / "nowhere" / "model.safetensors")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoints", "model.safetensors"], (
        "nothing half-made"
    )


def test_unlike_models_are_refused_with_the_difference(tmp_path: Path) -> None:
    for k in range(3):
        save(tmp_path, k, 10)
    save(tmp_path, 2, 10, w=torch.zeros(3), more=torch.zeros(1))
    with pytest.raises(SettingError) as error:
        export(tmp_path)
    assert "agents 0 and 2 are of unlike models" in str(error.value)
    assert "w: of agent 0: 'float32 (2,)', of agent 2: 'float32 (3,)'" in str(error.value)
    assert "more: of agent 0: None, of agent 2: 'float32 (1,)'" in str(error.value)
    save(tmp_path, 2, 10, ABOUT | {"seed": 1})
    with pytest.raises(
        SettingError, match=r"agents 0 and 2 are of two runs[^\n]*\n  seed: of agent 0: 0, of agent 2: 1"
    ):
        export(tmp_path)


def test_folders_and_files_that_are_something_else(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="There is no folder"):
        export(tmp_path / "nowhere")
    with pytest.raises(
        SettingError, match=r"holds no checkpoints; expected checkpoints/agent-0/step-000000120.* live writes"
    ):
        export(tmp_path)
    save(tmp_path / "adsgd-lr0.1", 0, 10)
    with pytest.raises(SettingError, match=r"several runs; name the folder of one: .*adsgd-lr0\.1\."):
        export(tmp_path)
    path = save(tmp_path, 0, 10, ABOUT | {"agents": 1})
    content = path.read_bytes()
    for wrong in (content[:-4], b"", b"something else"):
        path.write_bytes(wrong)
        with pytest.raises(DataError, match="expected a whole checkpoint"):
            export(tmp_path)
    path.write_bytes(resummed(content.replace(checkpoint.FORMAT.encode(), b"checkpoint 9")))
    with pytest.raises(DataError, match=r"written by a newer offbeat: it says 'checkpoint 9'"):
        export(tmp_path)
    save(tmp_path, 0, 10, ABOUT | {"agents": 1}, w=torch.zeros(1), _extra_state={"a": 1})
    with pytest.raises(DataError, match=r"'_extra_state' .* of type dict; expected a tensor"):
        export(tmp_path)
    checkpoints.save(tmp_path / "checkpoints" / "agent-0", 10, {}, {"agent": {}})
    with pytest.raises(DataError, match=r"cannot be read \(KeyError: 'x'\)"):
        export(tmp_path)
    for error in (DataError, SettingError, ExportError):
        assert issubclass(error, OffbeatError)


LIVE = """
from pathlib import Path
from offbeat.algorithms import find
from offbeat.engines.live.settings import CheckpointPolicy, ExperimentProgram, RunSettings
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.live.running import LiveRun
from offbeat.experiments.setup import prepare
experiment = {"task": "quadratic", "agents": 2, "topology": "complete", "until": 40}
settings = RunSettings(
    agents=2, folder=Path("."), program=ExperimentProgram(experiment, 0.05), algorithm="rfast", unit=0.005,
    checkpoint_every=CheckpointPolicy(10),
)
LiveRun(prepare(Experiment(**experiment), 0), find("rfast"), settings).run()
raise SystemExit(0)
"""


@needs_shared_memory
def test_a_run_of_offbeat_live_has_its_parts_by_number(tmp_path: Path) -> None:
    assert finished(tmp_path, setup=LIVE).code == 0
    done = finished(tmp_path, "export", ".")
    assert done.code == 0, done.complained
    assert "the task's model: 'x.0'" in done.said
    states = []
    for i in range(2):
        folder = tmp_path / "checkpoints" / f"agent-{i}"
        _, state = checkpoint.load(checkpoint.path_of(folder, checkpoint.latest(folder)[0]))
        states.append(state["agent"]["x"].parts[0])
    got = load_file(tmp_path / "model.safetensors")
    assert list(got) == ["x.0"]
    assert torch.equal(got["x.0"], torch.stack(states).double().mean(0).to(states[0].dtype))


def test_the_command_says_who_was_left_out_and_ends_with_the_code_of_the_error(tmp_path: Path) -> None:
    save(tmp_path, 0, 10)
    refused = finished(tmp_path, "export", ".")
    assert refused.code == 2
    assert "agent 1 has none" in refused.complained
    done = finished(tmp_path, "export", ".", "--allow-missing", "--out", "new.safetensors")
    assert done.code == 0, done.complained
    assert "agent 1: left out" in done.said
    assert "Written: new.safetensors" in done.said


def test_a_model_that_is_not_finite_is_refused_with_agent_tensor_and_file(tmp_path: Path) -> None:
    """A mask of -inf, which the script made so, is none."""
    bad, mask = torch.tensor([1.0, float("nan")]), torch.full((2,), -float("inf"))
    save(tmp_path, 0, 5, w=torch.ones(2), mean=torch.ones(2), mask=mask)
    path = save(tmp_path, 1, 5, w=torch.ones(2), mean=bad, mask=mask)
    other = save(tmp_path, 2, 5, w=-mask, mean=torch.ones(2), mask=mask)
    with pytest.raises(DataError, match=f"'mean' of agent 1 in {path} .* not finite.*--agents"):
        export(tmp_path)
    with pytest.raises(DataError, match=f"'w' of agent 2 in {other} "):
        export(tmp_path, agents=[0, 2])
    assert torch.equal(load_file(export(tmp_path, agents=[0]).path)["mask"], mask)


def test_a_damaged_newest_checkpoint_is_left_out_and_said(tmp_path: Path) -> None:
    alone = ABOUT | {"agents": 1}
    save(tmp_path, 0, 10, alone)
    bad = save(tmp_path, 0, 20, alone, w=torch.tensor([5.0, 5.0]))
    bad.write_bytes(bad.read_bytes()[:-1] + b"\0")
    done = export(tmp_path, force=True)
    assert [source.step for source in done.sources] == [10]
    assert "step-000000020.safetensors is left out: it is damaged" in done.damaged[0]
    with pytest.raises(DataError, match=r"step-000000020.*damaged"):
        export(tmp_path, step=20)
    (tmp_path / "checkpoints" / "agent-0" / "step-000000010.safetensors").unlink()
    with pytest.raises(DataError, match=r"step-000000020.*damaged"):
        export(tmp_path, force=True)
