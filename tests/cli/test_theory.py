"""`offbeat theory`: what it prints, its JSON, a recorded run, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import Call
from runs import started

from offbeat import World
from offbeat.algorithms import ALGORITHMS
from offbeat.core.errors import SettingError
from offbeat.engines.trace import Trace
from offbeat.tasks import build
from offbeat.theory import LIMITS, limit, table2
from offbeat.world.topology import build as graph


def test_it_reads_at_80_columns(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    outcome = call("theory", "--delay", "3", "--horizon", "1000000")
    assert outcome.code == 0 and max(map(len, outcome.out.splitlines())) <= 80
    for said in ("lambda_2          0.7674", "10^-510", "adsgd:theta=0.0004762", "uncertain: recalled too"):
        assert said in outcome.out
    assert all(name in outcome.out for name in ALGORITHMS)


def test_titles_of_small_tables_are_whole_lines(call: Call) -> None:
    lines = call("theory", "--topology", "one-peer-exponential", "--agents", "8").out.splitlines()
    assert "An agent, in models: what it keeps, and sends an update by all links" in lines


def test_a_task_says_its_numbers(call: Call) -> None:
    rng = np.random.default_rng(0)
    for name in ("quadratic", "digits"):
        given = json.loads(call("theory", "--task", name, "--json").out)["given"]
        task: Any = build(name, 9, 0)
        worst, start = 0.0, 0.0
        for i in range(9):  # gradients of f_i along random lines, in float64 but for rounding of float32
            (x,) = task.initial()
            every = [np.asarray(task.minibatches.shards[i])] if name == "digits" else [np.zeros(10)]
            for _ in range(3):
                y = x + 0.1 * torch.from_numpy(rng.normal(size=x.shape)).to(x.dtype)
                a, b = (task.gradients([i], every, (m[None],))[0] for m in (x, y))
                worst = max(worst, float((a - b).norm() / (x - y).norm()))
        assert 0 < worst <= given["L"] * 1.0001 and given["sigma"] > 0 and given["start"] > start
        if name == "quadratic":
            assert worst == pytest.approx(given["L"]) == max(task.h)
    given = json.loads(call("theory", "--task", "quadratic", "--smoothness", "7", "--json").out)["given"]
    assert given["L"] == 7.0
    Path("mine.py").write_text(
        "import torch\n\nimport offbeat\n\n\ndef make(n):\n    x, y = torch.rand(60, 2), torch.rand(60, 1)\n"
        "    f = torch.nn.functional.mse_loss\n"
        "    return offbeat.ModuleTask(torch.nn.Linear(2, 1), f, train=(x, y), test=(x, y), agents=n)\n"
    )
    assert "a method `constants`" in call("theory", "--task", "mine.py:make").refused().said


def test_a_limit_takes_names() -> None:
    named = limit("adsgd", "quadratic", "torus:3x3", 0.05)
    assert (named == limit("adsgd", build("quadratic", 9, 0), graph("torus", 9), 0.05)).all()  # type: ignore[arg-type]
    for task, topology, said in (("digits", "grid", "quadratics"), ("quadratic", 3, "name of a graph")):
        with pytest.raises(SettingError, match=said):
            limit("adsgd", task, topology, 0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_of_a_learning_rate(name: str) -> None:
    task, on = build("quadratic", 8, 0), "ring"
    wrong = {
        "x": "Cannot read the learning rate 'x'",
        "nan": "got nan",
        -1: "got -1",
        0: "write 0.01, not 0,01",
    }
    for lr, said in (wrong | {np.inf: "got inf", None: "Cannot read"}).items():
        with pytest.raises(SettingError, match=said):
            limit(name, task, on, lr)  # type: ignore[arg-type]
    if LIMITS[name].most is not None:
        with pytest.raises(SettingError, match=rf"^No run of {name} on these quadratics ends .* below \d"):
            limit(name, task, on, 1e300)  # type: ignore[arg-type]


def test_a_graph_that_says_its_size_has_it(call: Call) -> None:
    assert json.loads(call("theory", "--topology", "torus:4x4", "--json").out)["given"]["n"] == 16


def test_json_has_it_all(call: Call) -> None:
    found = json.loads(call("theory", "--delay", "3", "--lr", "0.01", "--json").out)
    assert {*found["rates"]} == {*found["agents"]} == {*ALGORITHMS}
    assert found["rates"]["adsgd"][0]["most"] == pytest.approx(0.4)
    assert found["rates"]["rfast"][0]["power"] == pytest.approx(-510, abs=1)
    pair = found["pair"]
    assert pair["alpha"] == 0.01 and pair["theta"] == pytest.approx(pair["gamma"] / 0.01)
    assert pair["gamma"] == pytest.approx(1 / (7 * (1 + 1.316228 / 0.01)), rel=1e-5)
    assert found["bounds"]["consensus"] == pytest.approx(0.02 / 0.232577, rel=1e-5)


def test_table_2(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table2, "ALGORITHMS", {name: ALGORITHMS[name] for name in ("adsgd", "rfast")})
    monkeypatch.setenv("COLUMNS", "80")
    outcome = call("theory", "--table2")
    assert outcome.code == 0 and max(map(len, outcome.out.splitlines())) <= 80
    assert "rfast 13 (13) 21 (21) 37 (37) 69, 71, 73 %" in " ".join(outcome.out.split())
    monkeypatch.setattr(table2, "ALGORITHMS", {"adsgd": ALGORITHMS["adsgd"]})
    found = json.loads(call("theory", "--table2", "--json").out)
    assert found["adsgd"]["4"]["counted"] == {"keeps": 6.0, "sent": 1.0, "carried": 4.0}
    for other in ("--lr", "--smoothness", "--sigma", "--start"):
        assert "expected no other option" in call("theory", "--table2", other, "0.1").refused().said


def recorded(algorithm: str) -> Trace:
    sim = started(algorithm, world=World(slow_compute={4: 5.0}), topology="ring", check=False)
    sim.run(40)
    return sim.recorder.trace()


def test_of_a_recorded_run_b_d_and_k_are_measured(call: Call) -> None:
    trace = recorded("adsgd")
    trace.save("trace.npz")
    found = json.loads(call("theory", "--topology", "ring", "--trace", "trace.npz", "--json").out)["given"]
    assert (found["B"], found["D"]) == (trace.staleness().B, trace.staleness().D)
    assert found["K"] == trace.iterations()[-1] + 1 and found["topology"] == "ring"
    given = json.loads(call("theory", "--trace", "trace.npz", "--window", "12", "--json").out)["given"]
    assert (given["B"], given["D"]) == (12, trace.staleness().D)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--smoothness 0", "Expected for --smoothness a number from 1e-30 to 1e"),
        ("--smoothness nan", "got nan"),
        ("--topology one-peer-exponential --smoothness -4", "Expected for --smoothness"),
        ("--delay -1", "Expected for --delay a number from 0"),
        ("--window 3", "Expected at least 9, one for each agent"),
        ("--task cifar10", "Expected one of digits, mnist, fashion-mnist, quadratic,"),
        ("--task shakespeare", "which trains a network"),
        ("--agents 0", "Theory is of 2 to 2,000 agents, for it takes all eigenvalues of W; got 0."),
        ("--agents 100000", "got 100,000. Expected a smaller graph"),
        ("--window 0", "Expected for --window a number from 1"),
        ("--horizon 0", "Expected for --horizon a number from 1"),
        ("--lr 0", "Expected for --lr"),
        ("--sigma inf", "Expected for --sigma"),
        ("--start -1", "Expected for --start"),
        ("--agents 1 --topology ring", "Theory is of 2 to 2,000 agents"),
        ("--agents 3000 --topology ring", "got 3,000. Expected a smaller"),
        ("--agents 7", "7 agents make no grid"),
        ("--topology gird", "Did you mean 'grid'?"),
        ("--topology one-way.graphml", "needs w_ij = w_ji"),
        ("--trace none.npz", "There is no file none.npz"),
        ("--trace mail.npz", "whose age is not measured. Give --delay."),
        ("--trace mail.npz --agents 4", "mail.npz is of 9 agents; got --agents 4"),
    ],
)
def test_what_makes_no_sense_is_refused(call: Call, words: str, said: str) -> None:
    recorded("dsgd").save("mail.npz")
    text = "<graphml><graph edgedefault='directed'>{}</graph></graphml>"
    edges = "".join(f"<edge source='{i}' target='{(i + 1) % 9}'/>" for i in range(9))
    Path("one-way.graphml").write_text(text.format(edges))
    outcome = call("theory", *words.split()).refused()
    assert said in outcome.said and outcome.err.count("\n") == 1
