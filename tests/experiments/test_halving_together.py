"""--tune with all else: a folder, several worlds, workers, one's own code, targets, seeds, files, Python."""

from itertools import count
from pathlib import Path
from typing import Any

import pytest
from command_line import Call

import offbeat
from offbeat.experiments import batches
from offbeat.results.trials import Halving

OWN = Path(__file__).parents[1] / "support" / "own_code" / "mine.py"
ASKED: dict[str, Any] = {
    "algorithms": ["adsgd", f"{OWN}:Mine"], "task": "quadratic", "agents": 4, "topology": "ring",
    "until": 9.0, "eval_every": 1.0, "tune": "lr=0.05:1:log,h=1:4", "tune_budget": 3, "tune_seeds": 1,
    "seeds": 2, "over": {"case": ["base", "slow-comm"]},
}  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    return offbeat.compare(**ASKED).record()


@pytest.mark.parametrize(
    ("after", "finals"), [(20, False), (91, True), (150, True)], ids=["search", "runs", "second-world"]
)
def test_it_goes_on_wherever_it_was_interrupted(
    tmp_path: Path, whole: dict[str, Any], after: int, finals: bool
) -> None:
    told = count()

    def progress(*_: object) -> None:
        if next(told) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        offbeat.compare(**ASKED, out=tmp_path, progress=progress)
    kept = len([*tmp_path.glob("tuning/*.run")])
    assert 0 < kept <= 52 and any(tmp_path.glob("*.run")) == finals
    if finals:
        part = offbeat.load(tmp_path)
        assert part.interrupted and part.planned == {"adsgd": 4, "Mine": 4}
        assert all(isinstance(run.tuning, Halving) for run in part.runs)
        assert "Not all runs were made" in str(part) and "by successive halving" in str(part)
    assert offbeat.compare(**ASKED, out=tmp_path).record() == whole
    assert offbeat.load(tmp_path).record() == whole


def test_workers_give_the_same_bytes(
    tmp_path: Path, whole: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "WORTH", 0.0)
    assert offbeat.compare(**ASKED, out=tmp_path, workers=2).record() == whole


def test_another_space_budget_or_criterion_is_another_comparison(call: Call, tmp_path: Path) -> None:
    words = "compare --task quadratic --agents 4 --topology ring --until 9 --eval-every 1 "
    words += "--algorithms adsgd --tune-seeds 1"
    first = *words.split(), "--out", tmp_path / "out", "--tune-budget", "2", "--tune"
    assert call(*first, "lr=0.05:1:log").code == 0
    for more in (
        ["lr=0.1:1:log"],
        ["lr=0.05:1:log", "--tune-budget", 4],
        ["lr=0.05:1:log", "--tune-by", "final"],
    ):
        assert "is of another comparison: tune" in call(*first, *more).refused().said
    assert call(*first, "lr=0.05:1:log").code == 0


def test_by_the_target_where_runs_end_at_it(tmp_path: Path) -> None:
    asked = ASKED | {"target": "loss=0.1", "stop_at": "target", "tune_by": "target"}
    result = offbeat.compare(**asked, out=tmp_path)
    assert any(run.stopped_at is not None for run in result.runs)
    for run in result.runs:
        assert isinstance(run.tuning, Halving) and run.tuning.by == "target"
        assert run.lr == run.tuning.best.params["lr"]
    assert offbeat.load(tmp_path).record() == result.record()
    result.save_json(tmp_path.with_suffix(".json"))
    assert offbeat.load(tmp_path.with_suffix(".json")).record() == result.record()
