"""What a live run is told: there and back through JSON, from earlier versions too, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from offbeat.core.errors import DataError, SettingError
from offbeat.core.system.reading import reading
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.settings import CheckpointPolicy, ExperimentProgram, RunSettings, ScriptProgram

SCRIPT = RunSettings(
    agents=3,
    folder=Path("/out"),
    program=ScriptProgram("ring", ("train.py", "--lr", "1")),
    fault=(parse_fault("slow agent 1 by 2", 3),),
    checkpoint_every=CheckpointPolicy(seconds=60.0),
    resume=True,
)
EXPERIMENT = RunSettings(
    agents=2,
    folder=Path("/out"),
    program=ExperimentProgram({"task": "quadratic", "topology": "ring"}, 0.05),
    unit=0.02,
    checkpoint_every=CheckpointPolicy(5),
)
OLD: dict[str, Any] = {
    "agents": 2, "topology": "ring", "algorithm": "dsgd", "seed": 1, "unit": 1.0, "folder": "/out",
    "checkpoint_every": "60s", "resume": False, "script": ["train.py"], "faults": [],
}  # fmt: skip


def read(record: Any) -> RunSettings:
    with reading("run.json", "the settings of a run"):
        return RunSettings.of(record, "run.json")


@pytest.mark.parametrize("settings", [SCRIPT, EXPERIMENT])
def test_they_come_back_from_json(settings: RunSettings) -> None:
    assert read(json.loads(json.dumps(settings.record()))) == settings


def test_what_earlier_versions_wrote_is_read() -> None:
    """Before there was an --on-nan, nothing was looked at."""
    settings = read(OLD)
    assert (settings.on_nan, settings.algorithm, settings.program) == (
        "ignore", "dsgd", ScriptProgram("ring", ("train.py",)),
    )  # fmt: skip
    assert read({**OLD, "damaged": [1], "checkpoint_every": 0}).checkpoint_every == CheckpointPolicy()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": "run 2"}, "written by a newer offbeat: it says 'run 2'"),
        ({"colour": 1}, "the setting 'colour' is not known"),
        ({"agents": "2"}, "the setting 'agents' is '2'"),
        ({"agents": 0}, "Expected 1 to 8,192 agents; got 0"),
        ({"faults": ["kill agent 9"]}, "there is no agent 9"),
        ({"on_nan": "shout"}, "expected one of skip, stop, ignore"),
    ],
)
def test_what_is_newer_or_wrong_is_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        read({**OLD, **change})


def test_one_policy_for_steps_and_seconds() -> None:
    steps, seconds, never = (CheckpointPolicy.parse(text) for text in ("500", "60s", "0"))
    assert [steps.due(n, 1e9) for n in (499, 500, 1000)] == [False, True, True]
    assert [seconds.due(7, passed) for passed in (59.0, 60.0)] == [False, True]
    assert not never and not never.due(0, 1e9)
    assert [CheckpointPolicy.parse(policy.record()) for policy in (steps, seconds, never)] == [
        steps, seconds, never,
    ]  # fmt: skip
    with pytest.raises(SettingError, match="Cannot read 'often'"):
        CheckpointPolicy.parse("often")
