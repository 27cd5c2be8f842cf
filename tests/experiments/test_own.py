"""One's own code by name: algorithms, tasks and graphs of a comparison, from Python and the command line."""

import json
import platform
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from typer.testing import CliRunner
from warm import finished

import offbeat
from offbeat.algorithms import find
from offbeat.cli.commands import app
from offbeat.core.errors import ContractError, SettingError
from offbeat.core.system import own
from offbeat.core.system.own import version
from offbeat.experiments import batches
from offbeat.experiments.comparison import plan
from offbeat.experiments.scheduler import Batch
from offbeat.experiments.sweep.grid import points
from offbeat.experiments.sweep.running import run_batch, run_elsewhere, sweep
from offbeat.experiments.workers import Processes
from offbeat.results.again import command
from offbeat.results.headline import headline
from offbeat.results.page import page
from offbeat.results.run import Comparison

MINE = Path(__file__).parents[1] / "support" / "own_code" / "mine.py"
TASK = "mine.py:make_task"
QUICK: dict[str, Any] = {"until": 12.0, "eval_every": 4.0, "agents": 5, "lr": 0.05}
ALL = {"task": TASK, "topology": "mine.py:graph(k=4)", "batch": 4, **QUICK}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(MINE, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def say(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_objects_of_one_class_have_names_that_tell_them_apart() -> None:
    texts = "adsgd", "mine.py:Mine", "mine.py:Mine(h=10)", "mine.py:Mine(h=1)"
    assert [find(text).name for text in texts] == ["adsgd", "Mine", "Mine(h=10)", "Mine"]
    mine = type(find("mine.py:Mine").prototype)
    assert [find(each).name for each in (mine, mine(h=2))] == ["Mine", "Mine(h=2)"]  # type: ignore[call-arg]
    with pytest.raises(SettingError, match="named twice: Mine, Mine"):
        plan([mine, mine(h=1)], task="quadratic")  # type: ignore[call-arg]


def test_of_classes_of_one_name_the_files_tell_them_apart(folder: Path) -> None:
    shutil.copy(folder / "mine.py", folder / "other.py")
    made = plan("mine.py:Mine,other.py:Mine,mine.py:Mine(h=2)", task="quadratic", until=3)
    assert [spec.name for spec in made.specs] == ["mine.py:Mine", "other.py:Mine", "Mine(h=2)"]
    assert {run.algorithm for run in made.runs()} == {spec.name for spec in made.specs}


def test_a_name_of_the_table_is_not_taken(folder: Path) -> None:
    (folder / "a.py").write_text("from offbeat import ADSGD\n\n\nclass dsgd(ADSGD): ...\n")
    assert [find(f"a.py:{name}").name for name in ("dsgd", "ADSGD")] == ["a.py:dsgd", "a.py:ADSGD"]


def test_everything_by_name_gives_what_the_objects_give() -> None:
    run = offbeat.simulate("mine.py:Mine", **ALL)
    code = find("mine.py:Mine")
    setup = plan("adsgd", **ALL).setups[0]
    objects = ALL | {"task": setup.task, "topology": setup.topology}
    again = offbeat.simulate(type(code.prototype), **objects)
    assert run.digest == again.digest
    assert run.settings["own"] == [] and len(again.settings["own"]) == 3
    assert run.settings["code"] == code.code and again.settings["code"] == {}
    assert (run.algorithm, run.settings["algorithm"]) == ("Mine", "mine.py:Mine")
    assert (run.settings["task"], run.settings["topology"]) == (TASK, "mine.py:graph(k=4)")


def test_workers_load_it_and_give_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "WORTH", 0.0)
    shared, make = list[str](), Processes.submit

    def submit(self: Any, work: Any, batch: Any, number: int) -> Any:
        shared.extend(run.name for run in batch.runs)
        return make(self, work, batch, number)

    monkeypatch.setattr(Processes, "submit", submit)
    names = ["mine.py:Mine", "mine.py:Mine(h=3)", "mine.py:Mine(h=0.5)"]
    alone, both = (Comparison([*plan(names, **ALL, seeds=2).runs(workers=k)]) for k in (1, 2))
    assert shared
    assert json.dumps(alone.record()) == json.dumps(both.record())


def test_a_file_that_changes_while_runs_are_made_costs_nothing(folder: Path) -> None:
    runs = plan("mine.py:Mine,mine.py:Mine(h=2)", **ALL, seeds=2)
    (folder / "mine.py").write_text("raise RuntimeError('half written')\n")
    made = [*runs.runs()]
    assert len({str(run.settings["code"]) for run in made}) == 1
    with pytest.raises(SettingError, match=r"mine\.py, line 1: RuntimeError: half written"):
        plan("mine.py:Mine", **ALL)


def test_runs_of_two_versions_are_kept_apart(folder: Path) -> None:
    first = offbeat.simulate("mine.py:Mine", **ALL)
    text = (folder / "mine.py").read_text()
    (folder / "mine.py").write_text(text.replace("self.h *", "2 * self.h *"))
    second = offbeat.simulate("mine.py:Mine", **ALL, seed=1)
    assert len(Comparison([first, second]).groups()) == 2
    assert len(Comparison([first, offbeat.simulate("mine.py:Mine", **ALL)]).groups()) == 2
    assert len(Comparison([second, offbeat.simulate("mine.py:Mine", **ALL)]).groups()) == 1


@pytest.mark.parametrize(("text", "agents"), [("mine.py:fixed", 5), ("mine.py:Small", 9), (TASK, 9)])
def test_the_number_of_agents_is_the_tasks_or_given_to_it(text: str, agents: int) -> None:
    setup = plan("adsgd", task=text, topology="ring", until=3).setups[0]
    assert setup.task.agents == setup.topology.n == agents


def test_a_graph_says_how_many_agents_there_are(folder: Path) -> None:
    made = plan("adsgd", task=TASK, topology="mine.py:petersen", until=3)
    assert made.setups[0].task.agents == 10
    (folder / "g.csv").write_text("from,to\n0,1\n1,2\n")
    assert plan("adsgd", task=TASK, topology="g.csv", until=3).setups[0].task.agents == 3
    with pytest.raises(SettingError, match="The numbers of agents differ: task has 5, topology has 10"):
        plan("adsgd", task="mine.py:fixed", topology="mine.py:petersen", until=3)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"task": "mine.py:make_tusk"}, r"has no 'make_tusk'.*Did you mean 'make_task'"),
        ({"task": TASK}, "A task of your own needs `until`"),
        (
            {"task": "mine.py:fixed", "reg": 0.5, "until": 3},
            "does not name 'reg', so --reg would change nothing",
        ),
        (
            {"task": "mine.py:fixed", "skew": 0.5, "until": 3, "topology": "ring"},
            "the task quadratic, which has no method `split`",
        ),
        ({"task": "mine.py:fixed", "batch": 8, "until": 3}, "does not name 'batch'"),
        ({"task": "mine.py:make_task(batch=3)", "until": 3}, "'batch' is a setting of the experiment"),
        ({"task": "mine.py:graph", "until": 3}, "gives a Graph, which has no 'agents'"),
        ({"topology": "mine.py:make_task(width=1)", "agents": 4}, "needs 'agents'"),
        ({"topology": "mine.py:fixed"}, "mine.py:fixed gives a Quadratic; expected a networkx graph"),
        ({"algorithms": "mine.py:make_task"}, "needs 'agents'; expected mine.py:make_task"),
        (
            {"algorithms": "mine.py:petersen"},
            "is a Graph, and takes no options; expected a subclass of offbeat",
        ),
        ({"algorithms": "mine.py:Model(x=1)"}, "gives a Model; expected a subclass of offbeat.Agent"),
        ({"algorithms": "mine.py:Mine(g=1)"}, "there is no option 'g'; it takes h"),
        ({"algorithms": "mine.py:Mine", "lr": {"Yours": 1}}, "'Yours', which is not compared"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_runs(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        plan(**{"algorithms": "adsgd", "task": "quadratic", **settings})


def test_a_task_that_fails_is_blamed_with_its_line(folder: Path) -> None:
    (folder / "t.py").write_text(
        "import offbeat\nimport numpy as np\n\n\nclass Broken(offbeat.Quadratic):\n"
        "    def __init__(self, n):\n        super().__init__(np.ones((n, 2)), np.ones(n))\n\n"
        "    def gradients(self, agents, samples, models):\n        return models[0][0]\n\n\n"
        "class Worse(Broken):\n    def gradients(self, agents, samples, models):\n        return models[9]\n"
    )
    with pytest.raises(SettingError, match=r"t\.py:Broken: a gradient has shape .*expected the same"):
        plan("adsgd", task="t.py:Broken", until=3)
    with pytest.raises(SettingError, match=r"t\.py, line 15, in gradients: IndexError"):
        plan("adsgd", task="t.py:Worse", until=3)


def test_what_an_algorithm_raises_in_a_run_has_its_line(folder: Path) -> None:
    (folder / "a.py").write_text(
        "import offbeat\n\n\nclass Mine(offbeat.ADSGD):\n    def on_gradient(self, g):\n        {}['x']\n"
    )
    with pytest.raises(ContractError, match=r"in on_gradient at time .*KeyError: 'x' \(a\.py, line 6\)"):
        offbeat.simulate("a.py:Mine", task="quadratic", until=3)


def test_the_command_line_runs_it_and_the_page_says_how_to_run_it_again(folder: Path) -> None:
    names = "adsgd,mine.py:Mine,mine.py:Mine(h=10)"
    options = [
        "--task",
        TASK,
        "--topology",
        "mine.py:graph",
        "--until",
        "9",
        "--eval-every",
        "3",
        "--seeds",
        "2",
        "--check",
    ]
    options += ["--lr", "0.02", "--lr", "Mine(h=10)=0.001", "--agents", "5", "--workers", "1"]
    shown = say("compare", "--algorithms", names, *options, "--json", "a.json", "--report", "a.html")
    assert f"{TASK}, case base, 5 agents on mine.py:graph, evaluated every 3, to time 9" in shown
    line = re.sub(
        "<[^>]*>", "", re.findall("<pre><code>(.*?)</code></pre>", (folder / "a.html").read_text())[0]
    )
    again = shlex.split(line.replace("&#x27;", "'"))
    assert again[again.index("--algorithms") + 1] == names
    say(*again[1:], "--json", "b.json", "-q")
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()
    first = json.loads((folder / "a.json").read_text())["runs"][-1]
    assert (first["algorithm"], first["settings"]["algorithm"]) == ("Mine(h=10)", "mine.py:Mine(h=10)")
    assert first["settings"]["code"] == find("mine.py:Mine").code


def test_a_folder_with_blanks_and_a_comma_is_named_in_quotes_here_and_in_the_command(folder: Path) -> None:
    (folder / "a b,c").mkdir()
    shutil.move(folder / "mine.py", folder / "a b,c")
    named = '"a b,c/mine.py:Mine(h=2)",adsgd'
    options = [
        "--task",
        "a b,c/mine.py:make_task",
        "--metric",
        '"a b,c/mine.py:count"',
        "--until",
        "3",
        "--eval-every",
        "1",
    ]
    say("compare", "--algorithms", named, *options, "--json", "a.json")
    again = shlex.split(command(offbeat.load("a.json"))[0])
    assert again[again.index("--algorithms") + 1] == named
    say(*again[1:], "--json", "b.json", "-q")
    assert (folder / "a.json").read_bytes() == (folder / "b.json").read_bytes()


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("/home/me/mine.py:make_task(k='a/b')", "mine.py:make_task(k='a/b')"),
        ('"/a b,c/mine.py:f"', "mine.py:f"), ("graphs/a.csv", "a.csv"), ("mine.py:graph", "mine.py:graph"),
        ("erdos-renyi:0.3", "erdos-renyi:0.3"), ("a/b", "a/b"),
    ],
)  # fmt: skip
def test_in_a_headline_what_is_ones_own_is_shown_without_its_folder(said: str, shown: str) -> None:
    run = offbeat.simulate("adsgd", task="quadratic", agents=2, until=1)
    run = replace(run, settings=run.settings | {"task": said, "topology": said})
    assert headline(Comparison([run])).startswith(f"{shown}, case base, 2 agents on {shown}, ")


def test_a_class_that_does_nothing_with_a_gradient_is_refused_before_anything_runs(folder: Path) -> None:
    (folder / "a.py").write_text("import offbeat\n\n\nclass Mine(offbeat.Agent): ...\n")
    with pytest.raises(ContractError, match=r"Mine must say what it does with a gradient: override on_grad"):
        plan("a.py:Mine", task="quadratic")


def test_metrics_of_ones_own_are_measured_and_named_by_their_options(folder: Path) -> None:
    run = offbeat.simulate("adsgd", **ALL, metrics="disagreement,mine.py:count,mine.py:power(k=2)")
    assert {"count", "power_k_2"} <= {*run.curve.names()}
    assert run.curve.of("count") == run.curve.of("updates")
    assert run.curve.of("power_k_2") == [update**2 for update in run.curve.of("updates")]
    assert run.settings["own"] == [] and "mine.py:power(k=2)" in run.settings["metrics"]
    shown = say(
        "compare", "--algorithms", "adsgd", "--task", "quadratic", "--until", "3", "--metric", "mine.py:count"
    )
    assert "mine.py:count" in shown
    with pytest.raises(SettingError, match=r"mine\.py, line \d+, in wrong: ZeroDivisionError"):
        offbeat.simulate("adsgd", **ALL, metrics="mine.py:wrong")


def test_a_sweep_takes_it_and_makes_its_runs_again_when_it_changes(folder: Path) -> None:
    (folder / "grid.toml").write_text(
        f"[fixed]\ntask = '{TASK}'\ntopology = 'mine.py:graph'\nagents = 5\nuntil = 3\neval_every = 1\n"
        "[grid]\nalgorithm = ['adsgd', 'mine.py:Mine', 'mine.py:Mine(h=10)']\n[lr]\n'Mine(h=10)' = 0.001\n"
    )
    say("sweep", "grid.toml", "--workers", "2")
    rows = pyarrow.parquet.read_table("grid.parquet").to_pylist()
    assert [(row["algorithm"], row["lr"]) for row in rows] == [
        ("adsgd", 0.01), ("mine.py:Mine", 0.01), ("mine.py:Mine(h=10)", 0.001)
    ]  # fmt: skip
    assert [json.loads(row["code"]) for row in rows] == [find("mine.py:Mine").code] * 3
    runs = [
        run.digest
        for run in plan(
            "mine.py:Mine", task=TASK, topology="mine.py:graph", agents=5, until=3, eval_every=1
        ).runs()
    ]
    assert runs == [rows[1]["digest"]]
    for where in ("grid.parquet", "grid.parquet.runs"):  # called as `compare` calls them
        assert [run.algorithm for run in offbeat.load(where).runs] == ["adsgd", "Mine", "Mine(h=10)"]
    assert "3 done, 0 to do" in say("sweep", "grid.toml", "--dry-run")
    (folder / "mine.py").write_text((folder / "mine.py").read_text() + "# another\n")
    assert "0 done, 3 to do" in say("sweep", "grid.toml", "--dry-run")


def test_a_worker_of_a_sweep_refuses_another_version(folder: Path) -> None:
    (point,) = points({"fixed": {"task": "quadratic", "algorithm": "mine.py:Mine", "until": 3}})
    other = replace(point, code={"mine.py": "0" * 64})
    (outcome,) = run_batch(Batch((other,)))
    assert "mine.py, or what it imports from its folder, has changed" in outcome.failure


OWN = {
    "task": TASK,
    "topology": "mine.py:graph",
    "metrics": "mine.py:count",
    "agents": 5,
    "until": 3,
    "eval_every": 1,
}
ON_A_CLUSTER = {"fixed": OWN, "grid": {"algorithm": ["adsgd", "mine.py:Mine(h=2)"], "seed": [0, 1]}}


def test_a_machine_of_a_cluster_works_in_the_folder_of_the_sweep_or_says_which_machine_has_none(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there, batch = folder / "there", Batch(tuple(points(ON_A_CLUSTER)[2:]))
    there.mkdir()
    monkeypatch.setattr(own, "_modules", {})
    monkeypatch.chdir(there)
    for outcome in run_elsewhere(str(folder / "nowhere"), batch):
        assert outcome.failure.startswith(f"Cannot read mine.py (in {there}): No such file")
        assert f"(On {platform.node()}, which has no folder {folder / 'nowhere'}.)" in outcome.failure
    assert [outcome.row for outcome in run_elsewhere(str(folder), batch)] == [
        outcome.row for outcome in run_batch(batch)
    ]
    (folder / "mine.py").write_text((folder / "mine.py").read_text() + "# another\n")
    monkeypatch.setattr(own, "_modules", {})
    (changed, _) = run_elsewhere(str(folder), batch)
    assert "mine.py, or what it imports from its folder, has changed" in changed.failure
    assert f"(On {platform.node()}.)" in changed.failure


@pytest.mark.cluster
def test_a_ray_cluster_runs_it_and_gives_the_same_bytes(folder: Path) -> None:
    pytest.importorskip("ray")
    lines = "".join(f"{name} = {value!r}\n" for name, value in OWN.items())
    asked = ON_A_CLUSTER["grid"]
    (folder / "grid.toml").write_text(
        f"[fixed]\n{lines}[grid]\n" + "".join(f"{name} = {value!r}\n" for name, value in asked.items())
    )
    assert sweep(points(ON_A_CLUSTER), folder / "here.parquet", workers=1) == []
    words = ["sweep", "grid.toml", "--out", "there.parquet", "--ray", "local:1", "--workers", "2"]
    done = finished(folder, *words, seconds=250)
    assert done.code == 0, done.said + done.complained
    assert (folder / "there.parquet").read_bytes() == (folder / "here.parquet").read_bytes()


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="it needs shared memory")
def test_agents_of_a_live_run_load_it_and_its_folder_goes_on_with_that_version_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--task", TASK, "--topology", "mine.py:graph", "--agents", "2", "--unit", "5ms", "-q"]
    run_it = ["live", "--algorithms", "mine.py:Mine(h=2)", *options, "--until", "20", "--out", "out"]
    assert finished(folder, *run_it, "--json", "a.json").code == 0
    (run,) = json.loads((folder / "a.json").read_text())["runs"]
    mine = str(folder.resolve() / "mine.py")
    assert (run["algorithm"], run["settings"]["algorithm"]) == ("Mine(h=2)", f"{mine}:Mine(h=2)")
    assert run["settings"]["code"] == {mine: version("mine.py")} and run["settings"]["own"] == []
    assert "Schedule and mixed versions: the same." in say("replay", "out/Mine-h=2-lr0.01/trace.npz")
    (folder / "mine.py").write_text((folder / "mine.py").read_text() + "# another\n")
    monkeypatch.setattr(own, "_modules", {})  # as in another process
    done = CliRunner().invoke(app, ["live", "--resume", "--out", "out"])
    assert isinstance(done.exception, SettingError) and "has changed" in str(done.exception)


def test_nothing_of_it_is_missing_from_the_command() -> None:
    result = Comparison([offbeat.simulate("mine.py:Mine(h=2)", **ALL)])
    assert command(result)[1] == []
    assert result.runs[0].settings["code"]["mine.py"] in page(result)
