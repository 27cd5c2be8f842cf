"""The page and its figures: whole, self-contained, and right about what they show."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import plotly.graph_objects as go
import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import ADSGD, Algorithm, Comparison, Quadratic
from offbeat.cli.commands import app
from offbeat.core.settings import declared
from offbeat.experiments.experiment import Experiment
from offbeat.results.again import command
from offbeat.results.curves import curves
from offbeat.results.figure import Asked
from offbeat.results.headline import headline
from offbeat.results.notes import notes
from offbeat.results.page import page
from offbeat.results.timeline import shown, timelines, window
from offbeat.results.wording import target_name
from offbeat.tasks.quadratic import random_quadratic

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)><a href='javascript:alert(1)'>x</a>"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Reader(HTMLParser):
    """What a browser would make of a page: its elements, what they would load, the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.data: dict[str, str] = {}
        self.current = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.current = next((value or "" for name, value in attrs if name == "id"), tag)
        for name, value in attrs:
            if name.startswith("on"):
                self.handlers.append(name)
            if name in ("src", "href", "srcset", "poster", "data"):
                (self.links if tag == "a" else self.loads).append(value or "")

    def handle_data(self, data: str) -> None:
        self.data[self.current] = self.data.get(self.current, "") + data


def figures(text: str) -> dict[str, go.Figure]:
    """The figures in a page, as plotly reads them, each checked against plotly's schema."""
    found = json.loads(Reader(text).data["figures"])
    return {name: go.Figure(value) for name, value in found.items()}


# -- the headline -------------------------------------------------------------------------------

CHANGED: dict[str, Any] = {
    "task": "mnist", "agents": 4, "topology": "ring", "case": "comp-straggler", "straggler": [3],
    "slowdown": 4.0, "partition": "classes:2", "objective": "samples", "batch": 16, "reg": 0.1,
    "until": 90.0, "target": 0.5, "stop_at": "target", "speeds": "1,2,1,1", "links": "gamma:0.5",
    "metrics": ["gap"], "judge": "worst", "per_agent": True,
    "latency": "file:lat.csv", "bandwidth": 2.0, "sending": "unicast", "network": "fair",
    "event": ["agent 3 slows by 5 at 10"], "availability": "on.csv", "byzantine": ["agent 2 flips"],
    "eval_every": 0.5, "loss": 0.1, "crash": ["agent 3 at 10"], "compute": "constant",
    "communication": "constant", "data": "elsewhere", "executor": "batched", "device": "cuda",
    "optimizer": "momentum", "schedule": "cosine", "weights": "uniform", "compress": "int8",
    "model": "mlp", "width": 7, "augment": "flip", "eval_samples": 5,
    "unit": 0.02, "faults": ["kill agent 2 at step 9"], "a setting of tomorrow": 3,
}  # fmt: skip


def test_the_headline_names_whatever_is_not_as_it_is_by_default(digits: Comparison) -> None:
    run = digits.runs[0]
    settings = {*declared(Experiment)} | run.settings.keys() - {"algorithm", "lr", "seed", "own", "code"}
    assert settings - {"skew", "dirichlet"} <= CHANGED.keys(), "those two are short for a partition"

    def said(**changes: Any) -> str:
        made = Comparison([replace(run, settings=run.settings | changes)])
        return f"{headline(made)}; {target_name(made.runs[0])}"

    plain = said()
    world = "digits, case combined (agent 4, 10 times slower), 9 agents on grid, label skew 1"
    assert plain == f"{world}, to time 60, seed 0; time to 30 %"
    assert said(compute="gamma", communication="lognormal 1") == plain
    for name, value in CHANGED.items():
        of_network = {"model": "lenet"} if name in ("width", "augment", "eval_samples") else {}
        assert said(**of_network, **{name: value}) != said(**of_network), name
    many = [f"agent {k} slows by 5 at 10" for k in range(7)]
    assert ", agent 0 slows by 5 at 10 and 6 more, " in said(event=many)
    some = said(
        loss=0.3, crash=["agent 3 at 10"], batch=16, unit=0.02, optimizer="momentum", compute="constant"
    )
    for words in (
        "message loss 0.3",
        "crash of agent 3 at 10",
        "batches of 16",
        "unit 20 ms",
        "optimizer momentum",
    ):
        assert f", {words}, " in some
    assert (
        page(Comparison([replace(run, settings=run.settings | {"loss": 0.3})])).count("message loss 0.3") == 2
    )


def test_a_gap_is_said_only_where_the_optimum_is_known(quadratic: Comparison) -> None:
    """A task of the user's has a loss, whatever its name."""
    known, mine = (
        quadratic,
        offbeat.compare("adsgd", task=random_quadratic(4, np.random.default_rng(0)), until=20, target=0.1),
    )
    assert mine.runs[0].settings["task"] == "quadratic"
    assert "time to gap 0.01" in str(known) and "gap to the optimum" in page(known)
    assert "time to loss 0.1" in str(mine)
    assert not re.search(r"\bgap\b", Reader(page(mine)).data["p"] + Reader(page(mine)).data["figures"])


def test_what_has_no_effect_is_said_below_the_table_and_not_in_the_headline(digits: Comparison) -> None:
    def told(comparison: Comparison) -> list[str]:
        return [note for note in notes(comparison) if note.startswith("Without effect")]

    def of(**changes: Any) -> Comparison:
        return Comparison([replace(digits.runs[0], settings=digits.runs[0].settings | changes)])

    assert told(digits) == told(of(partition="skew:0.5", skew=0.5)) == told(of(slowdown=4.0)) == []
    assert told(of(case="base", straggler=None, slowdown=4.0)) == ["Without effect here: slowdown 4."]
    asked = of(task="quadratic", batch=64, partition="iid", skew=1.0)
    assert told(asked) == ["Without effect here: partition iid, batch 64."]
    assert not re.search("iid|batch", headline(asked))
    mine = of(task="mine", own=["the task mine"], batch=64)
    assert told(mine) == ["Without effect here: batch 64."]


# -- the page --------------------------------------------------------------------------------------


def test_page_is_whole_and_self_contained(digits: Comparison) -> None:
    text = page(digits)
    read = Reader(text)
    assert read.loads == [] and read.handlers == []
    assert all(re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{4,5}", link) for link in read.links)
    assert read.tags.count("script") == 3 and read.tags.count("h1") == 1 and read.tags.count("title") == 1
    assert "default-src 'none'" in text and 'name="viewport"' in text
    assert len(text) < 6e6
    drawn = figures(text)
    assert len(drawn) == read.tags.count("figure") == read.tags.count("figcaption") == 11
    body = text[text.index("<main>") : text.index("</main>")]
    for run in digits.runs:
        assert f"<td>{run.algorithm}</td>" in body and run.digest in body
    for number in ("2505.10322", "1710.06952", "2307.11617", "1705.09056"):
        assert f"https://arxiv.org/abs/{number}" in body
    assert offbeat.__version__ in body and np.__version__ in body


def test_page_escapes_what_users_name(digits: Comparison) -> None:
    mine = Algorithm(HOSTILE, ADSGD(), "mine", "nowhere")
    made = offbeat.compare([mine, "dsgd"], task="quadratic", until=20, crash=("agent 1 at 5",))
    text = page(made)
    read = Reader(text)
    assert "img" not in read.tags and read.tags.count("script") == 3 and read.handlers == []
    assert not any("javascript" in link for link in read.links)
    assert "<img" not in Reader(text).data["figures"] and "no words for the algorithm" in text
    assert len(figures(text)) == 9, "but none of the limit, which no agent that may crash has"


def test_page_without_accuracy(quadratic: Comparison) -> None:
    text = page(quadratic)
    assert "test accuracy" not in text[text.index("<main>") : text.index("</main>")]
    assert "gap to the optimum" in text and "adsgd lr=0.05" in text
    assert len(figures(text)) == 9


def test_page_of_diverged_runs(diverged: Comparison) -> None:
    text = page(diverged)
    assert "diverged by time" in text and "× diverged: dsgd 2 of 2 seeds." in text
    assert len(figures(text)) == 10
    for x in ("time", "updates", "megabytes"):
        for trace in curves(diverged, Asked("loss", x)).plotly().data:
            assert np.isfinite(trace.y).all() and max(trace.y) < 100


def test_a_run_that_met_its_target_and_diverged_later_says_both(quadratic: Comparison) -> None:
    made = offbeat.compare("adsgd", task="quadratic", until=400, lr=[20.0, 0.1], target=100.0)
    lost, lasting = (run.record() for run in made.runs)
    assert lost["time_to_target"] == 0 and lost["diverged_at"] > 0
    assert lasting["time_to_target"] == 0 and lasting["diverged_at"] is None
    for said in (str(made), re.sub("<[^>]*>", " ", page(made))):
        assert re.search(r"adsgd lr=20 +0, then diverged +diverged ", said), "and it is not the best"
        assert "adsgd with lr 20, seed 0, met its target at time 0, then diverged by time" in said


def test_page_when_everything_diverged_at_once() -> None:
    made = offbeat.compare("adsgd", task="digits", until=3, eval_every=3, lr=1e38)
    assert made.runs[0].diverged_at is not None
    assert len(figures(page(made))) > 3


@pytest.mark.parametrize("algorithms", ["adsgd", "adsgd,dsgd"])
def test_page_of_a_single_agent(algorithms: str) -> None:
    text = page(offbeat.compare(algorithms, task="quadratic", agents=1, topology="chain", until=20))
    assert "Nothing was sent" in text
    assert len(figures(text)) == 6


def test_page_of_an_own_task_and_graph() -> None:
    task = Quadratic(np.eye(3), np.ones(3))
    object.__setattr__(task, "name", "<b>mine</b>")
    ring = nx.DiGraph([(0, 1), (1, 2), (2, 0)])
    text = page(offbeat.compare(["rfast"], task=task, topology=ring, until=20))
    assert "&lt;b&gt;mine&lt;/b&gt;" in text and "<b>mine</b>" not in text
    assert "no words for the task &lt;b&gt;mine&lt;/b&gt; and the graph custom" in text
    assert "offbeat compare" not in text
    assert not any(
        "target" in (trace.name or "") for figure in figures(text).values() for trace in figure.data
    )


def test_page_of_interrupted_and_empty_comparisons(quadratic: Comparison) -> None:
    some = Comparison(quadratic.runs[:3], interrupted=True, planned={"adsgd": 99, "none": 2})
    assert re.search(
        r"Not all runs were made: these are those that were finished \(adsgd \d of 99, none 0", page(some)
    )
    assert "Not all runs were made: these" in page(Comparison(quadratic.runs[:3], interrupted=True))
    assert "No run was finished" in page(Comparison([], interrupted=True))


def test_page_shows_how_steps_were_tuned() -> None:
    tuned: dict[str, Any] = {"lr": "tuned", "tune_seeds": 1, "tune_grid": (0.1, 0.3)}
    text = page(offbeat.compare(["adsgd", "rfast"], task="quadratic", until=10, **tuned))
    assert text.count("<td>chosen</td>") == 2 and "--lr</span> tuned" in text


def test_page_without_a_trace(digits: Comparison) -> None:
    text = page(Comparison([run for run in digits.runs if run.trace is None]))
    assert "Who computed" not in text and len(figures(text)) == 9


def test_save_report_writes_the_page(quadratic: Comparison, tmp_path: Path) -> None:
    quadratic.save_report(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == page(quadratic)


# -- the command line ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"lr": 0.03, "case": "combined", "straggler": 2, "slowdown": 5.0, "loss": 0.1, "seeds": 2},
        {
            "lr": [0.1, 0.3],
            "crash": ("agent 3 at 2 until 4", "agent 1 at 3"),
            "topology": "random-regular:4",
            "seed": 3,
        },
        {"lr": {"": [0.1, 0.3], "rfast": 0.7}, "compute": "exponential", "communication": "lognormal 0.5"},
        {
            "lr": {"": "tuned", "adsgd": 0.123},
            "tune_by": "final",
            "tune_grid": (0.1, 0.3),
            "tune_seeds": 2,
            "dirichlet": 0.5,
            "target": 0.5,
            "eval_every": 0.7,
        },
        {"lr": {"adsgd": 0.1, "rfast": 0.2}, "executor": "event-by-event"},
        {"topology": "erdos-renyi:0.4", "case": "combined", "seeds": 3},
    ],
)
def test_the_command_line_makes_the_same_runs(settings: dict[str, Any], tmp_path: Path) -> None:
    made = offbeat.compare(["adsgd", "rfast"], task="quadratic", until=6, agents=12, **settings)
    line, missing = command(made)
    assert missing == []
    words = shlex.split(line)
    assert words[:2] == ["offbeat", "compare"]
    result = CliRunner().invoke(app, [*words[1:], "--quiet", "--json", str(tmp_path / "again.json")])
    assert result.exit_code == 0, result.output
    again = json.loads((tmp_path / "again.json").read_text("utf-8"))["runs"]
    assert [run["digest"] for run in again] == [run.digest for run in made.runs]


def test_the_command_line_repeats_every_bit_of_a_step() -> None:
    for lr in np.random.default_rng(0).uniform(0.01, 1, 15).tolist():
        made = offbeat.compare(
            "rfast", task="quadratic", until=1, agents=7, topology="ring", lr={"rfast": lr}
        )
        words = shlex.split(command(made)[0])
        text = words[words.index("--lr") + 1]
        assert (float(text[6:]) if text.startswith("rfast=") else float(text) * 7) == lr


def test_what_the_command_line_cannot_say() -> None:
    short: dict[str, Any] = {"task": "quadratic", "until": 2}
    for settings, missing in (
        ({"compute": offbeat.empirical([1.0, 2.0])}, "the measured delays of compute"),
        ({"topology": nx.petersen_graph()}, "the graph Petersen Graph"),
        ({"task": random_quadratic(9, np.random.default_rng(0))}, "the task quadratic"),
        ({"optimizer": lambda lr: offbeat.Momentum(lr, 0.5)}, "the optimizer <lambda>"),
    ):
        assert command(offbeat.compare(["adsgd"], **(short | settings)))[1] == [missing]
    assert command(offbeat.compare([offbeat.ADSGD()], **short))[1] == ["the algorithm adsgd"]
    assert command(offbeat.compare(["adsgd"], compute="gamma 0.3 mean 2", **short))[1] == []


def test_timeline_adds_up(digits: Comparison) -> None:
    """Between gradients an agent waits: computing and waiting fill the window, and nothing overlaps."""
    for run in digits.runs:
        if run.trace is None:
            continue
        figure = timelines({run.algorithm: run}, (10.0, 30.0))
        rows: dict[int, list[tuple[float, float]]] = {i: [] for i in range(9)}
        for trace in figure.data:
            if trace.legendgroup in ("computing", "waiting") and trace.showlegend is False:
                for y, start, length in zip(trace.y, trace.base, trace.x, strict=True):
                    rows[round(y)].append((start, start + length))
        for spans in rows.values():
            ordered = sorted(spans)
            assert ordered[0][0] == 10.0 and ordered[-1][1] == pytest.approx(30.0)
            assert all(a[1] == pytest.approx(b[0]) for a, b in pairwise(ordered))


def test_timeline_shows_who_was_down_and_that_a_ring_then_stands_still() -> None:
    crash = ("agent 3 at 20 until 26",)
    made = offbeat.compare(["adsgd", "allreduce"], task="quadratic", until=60, crash=crash)
    start, end = window(made.runs)
    assert start < 20 < end <= 60
    drawn = {run.algorithm: timelines({"one": run}, (0, 60)).data for run in made.runs}
    down = {
        name: next(t for t in bars if t.legendgroup == "down" and len(t.x)) for name, bars in drawn.items()
    }
    assert down["adsgd"].base[0] == 20 and down["adsgd"].x[0] == 6
    assert down["allreduce"].x[0] == 40
    late = timelines({"one": made.runs[1]}, (30, 60)).data
    waits = [t for t in late if t.legendgroup == "waiting" and t.showlegend is False]
    assert len(waits[0].x) == 8 and set(waits[0].x) == {30.0}


def test_timeline_shows_the_straggler_of_many() -> None:
    made = offbeat.compare(
        "dsgd", task="quadratic", agents=30, topology="ring", case="combined", straggler=17, until=30
    )
    rows = shown(made.runs[0])
    assert len(rows) == 16 and {16, 17, 18} <= set(rows)
    assert "<b>17</b>" in timelines({"one": made.runs[0]}).layout.yaxis.ticktext


def test_timelines_share_one_window(digits: Comparison) -> None:
    traced = {run.algorithm: run for run in digits.runs if run.trace is not None}
    figure = timelines(traced)
    ranges = {tuple(axis.range) for axis in figure.select_xaxes()}
    assert len(ranges) == 1
    assert {t.name for t in figure.data if t.name} == {"computing", "waiting", "sending"}


# -- in a browser ----------------------------------------------------------------------------------


@pytest.mark.skipif(BROWSER is None, reason="no Chromium")
def test_a_browser_draws_the_page_without_a_word(digits: Comparison, tmp_path: Path) -> None:
    digits.save_report(tmp_path / "report.html")
    done = subprocess.run(
        [
            str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--disable-quic",
            f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--v=0",
            "--virtual-time-budget=10000", "--dump-dom", (tmp_path / "report.html").as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    count = len(figures(page(digits)))
    assert done.stdout.count("js-plotly-plot") >= count
    assert len(re.findall(r'class="main-svg"', done.stdout)) >= count
