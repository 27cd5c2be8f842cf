"""A launcher that attaches itself to a run on a cluster, whose own has died."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from offbeat.cli.commands import app
from offbeat.core.errors import SettingError
from offbeat.engines.live.cluster import attaching, starting
from offbeat.engines.live.cluster.keeper import Plan
from offbeat.engines.live.cluster.starting import Cluster
from offbeat.engines.live.cluster.wanted import Wanted


def found(monkeypatch: pytest.MonkeyPatch, *, lives: bool) -> float:
    """Attach where a gateway has heard of a launcher half a second ago; the seconds that this takes."""
    now, heard = [0.0], [-0.5]

    def state() -> dict[str, object]:
        heard[0] = now[0] - 0.1 if lives and now[0] else heard[0]
        about = {"plan": asdict(Plan("run", 0, 1, {}, "out")), "changes": [], "order": 0}
        return {**about, "looked": now[0] - heard[0]}

    def sleep(seconds: float) -> None:
        now[0] += seconds

    named = SimpleNamespace(state=SimpleNamespace(remote=state))
    monkeypatch.setattr(starting, "Named", lambda name: named)
    monkeypatch.setattr(attaching, "time", SimpleNamespace(sleep=sleep))
    actors = SimpleNamespace(list_named_actors=lambda all_namespaces: [{"name": "run.0"}])
    ray = SimpleNamespace(nodes=list, util=actors, get=lambda answer, timeout: answer)
    assert Cluster(ray, Wanted(ray="auto")).find("run").plan.run == "run"
    return now[0]


def test_a_launcher_that_has_died_just_now_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, lives=False) == 1.5


def test_one_that_lives_stays_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingError, match="heard of just now"):
        found(monkeypatch, lives=True)


def test_a_run_that_goes_on_is_given_nothing_anew() -> None:
    words = "launch --ray auto --attach run -n 7 --seed 1 --partition-grace 9 --quiet"
    with pytest.raises(SettingError, match=r"a run as it is: expected no --agents, --seed beside it\."):
        CliRunner().invoke(app, words.split(), catch_exceptions=False)
