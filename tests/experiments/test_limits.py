"""How far a run of quadratics is from the optimum, and from its algorithm's own limit."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from runs import quadratic

import offbeat
from offbeat import Agent, Crash, Vector, World
from offbeat.algorithms import find
from offbeat.theory.fixed_points import At
from offbeat.theory.limits import settling
from offbeat.world.changes import parse_change
from offbeat.world.topology import build

TASK = quadratic(4)
RING = build("ring", 4)
SLOW = World(slow_compute={1: 4.0})


def made(*algorithms: str, until: float = 300, **settings: object) -> offbeat.Comparison:
    asked = {"task": TASK, "topology": "ring", "lr": 0.1, "world": SLOW, "eval_every": until} | settings
    return offbeat.compare([*algorithms], until=until, **asked)  # type: ignore[arg-type]


def rms(x: np.ndarray) -> float:
    return math.sqrt(float((x**2).sum(1).mean()))


def test_distances_are_those_of_the_models() -> None:
    """By numpy: of the final models from the closed forms."""
    h, w = np.diag(TASK.h), RING.dense_w()
    mixed = np.linalg.solve(0.1 * h + np.eye(4) - w, 0.1 * h @ TASK.b)
    for run in made("adsgd", "dsgd", "allreduce", until=40).runs:
        (x,) = (part.numpy() for part in run.models)
        end = mixed if run.algorithm != "allreduce" else np.tile(TASK.optimum, (4, 1))
        assert run.curve.of("to_limit")[-1] == pytest.approx(rms(x - end), rel=1e-9)
        assert run.curve.of("to_optimum")[-1] == pytest.approx(rms(x - TASK.optimum), rel=1e-12)
        apart = run.curve.of("consensus")[-1], float(np.linalg.norm(x.mean(0) - TASK.optimum))
        assert run.curve.of("to_optimum")[-1] == pytest.approx(math.hypot(*apart), rel=1e-9)
        assert run.curve.of("to_limit")[0] == pytest.approx(rms(end), rel=1e-9), "models begin at 0"


def test_it_comes_to_its_limit_and_not_to_the_optimum() -> None:
    (run,) = made("adsgd", until=1000).runs
    assert run.curve.of("to_limit")[-1] < 1e-9 < 0.1 < run.curve.of("to_optimum")[-1]


def test_who_made_how_many_updates_counts() -> None:
    """apsgd: sum_i p_i h_i (x - b_i) = 0 with the shares of the updates by then."""
    (run,) = made("apsgd", lr=0.01, until=400).runs
    assert run.trace is not None
    ph = run.trace.updates() * TASK.h
    (x,) = (part.numpy() for part in run.models)
    end = ph @ TASK.b / ph.sum()
    assert run.curve.of("to_limit")[-1] == pytest.approx(rms(x - end), rel=1e-9)
    assert run.curve.of("to_limit")[-1] < 0.1 * run.curve.of("to_optimum")[-1]
    assert "The limit of apsgd: an expectation" in str(made("apsgd", until=5))


@pytest.mark.parametrize("how", ["levels", "batched"])
def test_executors_agree(how: str) -> None:
    one, other = (made("adsgd", executor=each, until=30, eval_every=5) for each in (how, "event-by-event"))
    assert one.runs[0].curve.of("to_limit") == other.runs[0].curve.of("to_limit")


class Mine(Agent):
    """SGD on its own."""

    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.compute(self.x)


@pytest.mark.parametrize(
    ("algorithm", "settings", "said"),
    [
        ("adsgd", {"world": World(crashes=(Crash(1, 3.0, 5.0),))}, "adsgd: with crash"),
        ("adsgd", {"world": World(changes=(parse_change("cut {0} from the rest at 1"),))}, "adsgd: with cut"),
        ("adsgd", {"world": None, "byzantine": "agent 1 flips"}, "adsgd: with byzantine"),
        ("adsgd", {"optimizer": "momentum"}, "adsgd: with optimizer"),
        ("adsgd", {"schedule": "cosine"}, "adsgd: with schedule"),
        ("adsgd:local_steps=3", {}, "adsgd:local_steps=3: expected it without local_steps"),
        ("swift:every=2", {}, "swift:every=2: expected it without every"),
        ("diloco", {}, "diloco: it is of phi"),
        ("ringmaster", {}, "ringmaster: its updates do not say whose gradients were ignored"),
        ("dsgd", {"topology": "one-peer-exponential"}, "dsgd: with a graph that changes"),
        ("adsgd", {"compress": "bf16"}, "adsgd: with compress"),
        (Mine, {}, "Mine: an algorithm of your own"),
    ],
)
def test_where_no_limit_is_known_it_is_said_why(
    algorithm: str, settings: dict[str, object], said: str, tmp_path: Path
) -> None:
    result = made(algorithm, until=10, **settings)
    (run,) = result.runs
    assert run.final["to_limit"] is None and run.curve.of("to_optimum")[-1] > 0
    assert f"No limit is known of {said}" in str(result)
    result.save_json(tmp_path / "result.json")
    assert set(json.loads((tmp_path / "result.json").read_text())["runs"][0]["curve"]["to_limit"]) == {None}
    again = offbeat.load(tmp_path / "result.json")
    assert str(again) == str(result)
    result.save_report(tmp_path / "page.html")
    assert "No limit is known of" in (tmp_path / "page.html").read_text()


def test_what_only_slows_or_loses_keeps_the_limit() -> None:
    """Lost models, slowdowns, late mail: the limit is where it is, and the run comes to it."""
    slower = parse_change("agent 2 slows by 5 at 10 until 50")
    world = World(loss=0.3, changes=(slower,), latency=2.0, slow_communication={3: 5.0})
    for run in made("adsgd", "dsgd", until=1500, world=world).runs:
        assert run.curve.of("to_limit")[-1] < 1e-9


def test_of_a_learning_rate_of_any_size() -> None:
    """Nothing is mixed then: everybody ends at the minimiser of its own f_i."""
    task = quadratic(4)

    def at(name: str, lr: float) -> At:
        return At(find(name), task, build("ring", 4), lr, np.full(4, 0.25))

    with np.errstate(all="raise"):
        for name in ("adsgd", "sgp", "dpsgd"):
            assert np.isfinite(settling(at(name, 1e308))).all()
        assert settling(at("adsgd", 1e308)) == pytest.approx(task.b, abs=1e-12)


def test_where_no_equation_can_be_solved_there_is_no_limit() -> None:
    (run,) = offbeat.compare("dgd-atc", task="quadratic", topology="star", agents=2, lr=1e17, until=2).runs
    assert np.isnan(run.curve.of("to_limit")[-1])


def test_tasks_without_an_optimum_have_no_such_column() -> None:
    result = offbeat.compare("adsgd", until=2)
    assert "to_limit" not in result.runs[0].curve.more and "optimum" not in str(result)
