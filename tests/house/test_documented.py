"""The commands and the Python of README.md and docs/: all of them run as they are printed.

A command is run with its own words; what stands for the reader's own (DIR, FOLDER, a script) is there, and
small. Where it would take long, options are added at its end, which have the last word: see `SHORTER`.
"""

import re
import shlex
import subprocess
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from data_files import small_set, write
from warm import finished, needs_shared_memory

import offbeat
from offbeat.cli.commands import COMMANDS
from offbeat.core.system.devices import one_thread

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    "docs/choosing.md",
    "docs/cluster.md",
    "docs/compression.md",
    "docs/concepts.md",
    "docs/cookbook.md",
    "docs/design.md",
    "docs/figures.md",
    "docs/live.md",
    "docs/metrics.md",
    "docs/optimizers.md",
    "docs/performance.md",
    "docs/recipes.md",
    "docs/scaling.md",
    "docs/theory.md",
    "docs/tuning.md",
    "docs/world.md",
)

TOUR = "docs/tour.md"
"""Its commands go on from one another, so that they are run in their order."""

TUNED = "--until 2 --eval-every 1 --tune-budget 2 --tune-seeds 1"
ONE_RATE = "--tune-grid 0.1 --tune-seeds 1"

SHORTER = {
    "offbeat compare --task mnist": "--until 2 --eval-every 1",
    "offbeat compare --algorithms adsgd,dsgd --partition": TUNED,
    "offbeat compare --algorithms": "--until 2 --eval-every 1 --seeds 1",
    "offbeat compare --skew 0 --target": "--until 4 --seeds 1 --tune-grid 0.3",
    "offbeat compare --task digits --algorithms all": "--until 1 --eval-every 1 --agents 3",  # minutes
    "offbeat compare --task quadratic --topology complete": "--until 2 --eval-every 1 --seeds 1",
    "offbeat compare --task quadratic --until 200": "--until 20 --eval-every 5",
    "offbeat compare --task quadratic --until 20 --algorithms adsgd,mine.py": TUNED,
    "offbeat compare --task quadratic --until 20 --algorithms adsgd,rfast": TUNED,
    "offbeat compare --task quadratic --": "",  # the others are short
    "offbeat compare --task quadratic": "--until 20",
    "offbeat compare --until 300": "--until 3 --algorithms adsgd,dsgd",
    "offbeat compare --loss 0.3": ONE_RATE
    + " --algorithms adsgd,rfast --until 101 --eval-every 25",  # the crash is at 100
    "offbeat sweep examples/mnist-evaluation.toml": "--dry-run",  # 75 runs
    "offbeat sweep examples/scaling.toml": "--dry-run",  # 18 runs, ten seconds
    "offbeat live --task digits": "--until 5",
    "offbeat live --task quadratic": "--until 5",
    "offbeat live --task mnist": "--until 5 --data DIR",  # or it would be downloaded
}
"""How a command begins -> what is added, for it would take minutes."""

ELSEWHERE = {
    "offbeat launch -n 4 examples/recipes/with_lightning.py": "needs Lightning: test_recipes runs it",
    "offbeat join offbeat-runs/train-0 --agents 2": "of a run that goes on; test_joining has one",
    "offbeat leave offbeat-runs/train-0 --agent 3": "likewise",
    "offbeat launch --resume --out offbeat-runs/train-0 -n 6 --topology exponential train.py": "likewise",
    "offbeat launch --ray": "needs nodes of a cluster: test_machines has some",
    "offbeat live --ray": "likewise",
    "offbeat reproduce adsgd --part lr --data DIR": "half an hour; test_reproduction makes a part",
    "offbeat reproduce adsgd --part lr --quick": "minutes; likewise",
    "offbeat doctor": "test_doctor runs it; its self-test needs fresh processes",
    "offbeat table scaling.parquet --speedup": "of the sweep above it, which is only planned here",
    "offbeat compare --task digits --algorithms all --until 30 --device cuda": "needs a GPU",
    "offbeat theory --table2": "ten seconds; test_theory runs it with fewer algorithms",
    "make test": "it would run this test",
    "make bench": "minutes of measuring",
    "make bench-live DATA=folder": "minutes of measuring",
    "make soak": "five minutes",
    "python bench/": "minutes of measuring",
    "python train.py": "the reader's own script: test_python_blocks_run runs it",
    "python -m offbeat": "another way to say offbeat",
    "python -c": "needs Ray: test_imports has what it shows",
    "pip install offbeat[ray]": "needs a network",
    "pip install 'offbeat[ray]'": "needs a network",
    "pip install offbeat[figures]": "needs a network",
    "pip install 'offbeat[tune]'": "needs a network",
    "pip install 'offbeat[weights]'": "needs a network",
}
"""How commands begin that are not run here, and why; targets and files are looked for all the same."""

PRELUDE = """
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
network = model = nn.Linear(4, 3)
x, y = torch.randn(90, 4), torch.randint(3, (90,))
x_test, y_test = x, y
loader = DataLoader(TensorDataset(x, y), batch_size=9)
loss = nn.functional.cross_entropy
"""
"""What the blocks of Python take for granted: the reader's own."""


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(page), re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Those in indented lines, without their comments, and those in running text that are whole."""
    plain = re.sub(r"^```.*?^```", "", text(page), flags=re.MULTILINE | re.DOTALL)
    lines = re.findall(r"^ {4}(\S.*)$", plain.replace("\\\n", " "), re.MULTILINE)
    inline = re.findall(r"`((?:offbeat [a-z]+|make|python|pip) [^`]+)`", plain)
    found = [re.sub(r"\s+", " ", re.split(r"\s{2,}#", line)[0]).strip() for line in [*lines, *inline]]
    return [
        re.sub(r"^\.venv/bin/", "", each)
        for each in found
        if re.match(r"(\.venv/bin/)?(offbeat|make|python|pip) ", each)
    ]


ALL = list(dict.fromkeys(command for page in PAGES for command in commands(page)))
RUN = [command for command in ALL if command.startswith("offbeat ") and not command.startswith((*ELSEWHERE,))]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the commands name: DIR, FOLDER, LIVE, train.py, mine.py, grid.toml, examples/."""
    folder = tmp_path_factory.mktemp("documented")
    write(folder / "DIR", small_set(train=400, test=50))
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "train.py").write_text(PRELUDE + blocks("README.md", "python")[0])
    (folder / "mine.py").write_text((ROOT / "tests/support/own_code/mine.py").read_text())
    (folder / "grid.toml").write_text(blocks("README.md", "toml")[0])
    words = "launch -n 2 --checkpoint-every 2 --out FOLDER train.py"
    assert finished(folder, *words.split()).code == 0
    return folder


def test_there_are_commands_to_run() -> None:
    assert len(RUN) >= 15 and any("torus" in command for command in RUN)
    for beginning in SHORTER:
        assert any(command.startswith(beginning) for command in RUN), f"no page has {beginning} any more"
    for beginning in ELSEWHERE:
        assert any(command.startswith(beginning) for command in ALL), f"no page has {beginning} any more"


@needs_shared_memory
@pytest.mark.parametrize("command", RUN)
def test_commands_run_as_they_are_printed(place: Path, command: str) -> None:
    added = next((more for beginning, more in SHORTER.items() if command.startswith(beginning)), "")
    words = shlex.split(f"{command} {added}")[1:]
    if "--resume" in words:  # of a run that has ended, which is taken as it is
        assert (
            finished(
                place, *["live", "--task", "quadratic", "--agents", "2", "--until", "10", "--out", "LIVE"]
            ).code
            == 0
        )
        words = [word.replace("FOLDER", "LIVE") for word in words]
    run = finished(place, *words, setup="import os; os.environ['OFFBEAT_DATA'] = 'DIR'")
    assert run.code == 0, run.complained
    assert run.said.strip()


@pytest.mark.parametrize("command", [command for command in ALL if not command.startswith("offbeat ")])
def test_other_commands_are_there(command: str) -> None:
    program, *words = shlex.split(command)
    if program == "make":
        subprocess.run(["make", "-n", *words], cwd=ROOT, check=True, capture_output=True)
    elif command.startswith("python bench/"):
        assert (ROOT / words[0]).is_file()
    assert program == "make" or command.startswith(tuple(ELSEWHERE))


def test_the_demo_runs(place: Path) -> None:
    recipe = (ROOT / "Makefile").read_text().replace("\\\n", " ")
    found = re.findall(r"^\t\$\(BIN\)/offbeat (compare .*)", recipe, re.MULTILINE)
    assert len(found) == 2
    (place / "build").mkdir()
    for command in found:
        short = "--until 3 --eval-every 1 --seeds 1" + " --tune-grid 0.1 --tune-seeds 1" * (
            "tuned" in command
        )
        assert finished(place, *shlex.split(f"{command} {short}")).code == 0
    assert len([*(place / "build").glob("*.html")]) == 2


def test_commands_in_running_text_name_what_there_is() -> None:
    known = COMMANDS
    for page in (*PAGES, TOUR):
        for name in re.findall(r"`offbeat ([a-z]+)", text(page)):
            assert name in known, f"{page}: offbeat {name}"


def test_the_tour_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = [command for command in commands(TOUR) if command not in ALL]
    assert len(new) >= 4
    for command in new:
        short = "--until 61 --seeds 1" * ("--until" in command)
        run = finished(tmp_path, *shlex.split(f"{command} {short}")[1:])
        assert run.code == 0 and run.said.strip(), run.complained
    assert (tmp_path / "tour.svg").exists() and (tmp_path / "tour.csv").exists()
    monkeypatch.chdir(tmp_path)
    for block in blocks(TOUR, "python"):
        exec(block, {})
    assert (tmp_path / "tour.pdf").exists() and (tmp_path / "tour.html").exists()


# -- Python ----------------------------------------------------------------------------------------


def test_python_blocks_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("offbeat.training.member._joined", [])
    alone, compare, own, module = blocks("README.md", "python")
    with one_thread():
        exec(PRELUDE + alone, {})
        exec(compare.replace("until=4000, seeds=3", "until=10, seeds=1"), {})
    assert "adsgd" in capsys.readouterr().out and (tmp_path / "report.html").exists()
    names: dict[str, Any] = {"offbeat": offbeat}
    with one_thread():
        exec(PRELUDE + "import offbeat\n" + module.replace("until=300", "until=3"), names)
    exec("from dataclasses import dataclass, field\nfrom offbeat import Agent, Vector, mix\n" + own, names)
    ours, printed = (offbeat.simulate(each, task="quadratic", until=20) for each in ("adsgd", names["ADSGD"]))
    assert printed.digest == ours.digest


def test_python_blocks_of_the_pages_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("offbeat.training.member._joined", [])
    whole, loops = blocks("docs/live.md", "python")
    with one_thread():
        exec(PRELUDE + whole, {})
    monkeypatch.setattr("offbeat.training.member._joined", [])
    step = "optimizer.zero_grad(); loss(model(x), y).backward(); optimizer.step()"
    names: dict[str, Any] = {}
    with one_thread():
        exec(PRELUDE + whole.split("for ")[0] + loops.replace("...", step).replace("2000", "200"), names)
    assert names["agent"].steps == 200


def test_python_blocks_about_data_run() -> None:
    task, houses, loop = blocks("docs/data.md", "python")
    compile(houses, "mine.py", "exec")
    names: dict[str, Any] = {}
    regression = (
        "import offbeat\nfrom torch.nn.functional import mse_loss\nnetwork = nn.Sequential(nn.Linear(4, 1))\n"
    )
    regression += "y = y_test = x[:, :1]\n"
    with one_thread():
        exec(PRELUDE + regression + task.replace("until=300", "until=3"), names)
    assert names["task"].measure == "loss"
    agent = SimpleNamespace(rank=1, world=3)
    own = (
        "import numpy as np\nfrom torch.utils.data import Subset\nlabels, data = y.numpy(), loader.dataset\n"
    )
    names = {"agent": agent}
    exec(PRELUDE + own + loop, names)
    assert len(names["loader"].dataset) == 30


def test_python_blocks_about_figures_and_metrics_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    with one_thread():
        for block in [*blocks("docs/figures.md", "python"), *blocks("docs/metrics.md", "python")]:
            exec(block.replace("until=800", "until=20").replace("seeds=5", "seeds=2"), names)
    assert len([*tmp_path.glob("*.pdf")]) == 6 and (tmp_path / "accuracy.svg").exists()


def test_python_blocks_of_the_concepts_print_what_they_say(capsys: pytest.CaptureFixture[str]) -> None:
    """Their numbers stand in the text, and in the pictures."""
    waits, ages = blocks("docs/concepts.md", "python")
    names: dict[str, Any] = {}
    exec(waits, names)
    counts = [int(line.split()[1]) for line in capsys.readouterr().out.splitlines()]
    assert f"# {str(counts)[1:-1]}\n" in waits
    assert all(f"{count} gradients applied" in text("docs/waiting.svg") for count in counts)
    exec(ages, names)
    for line in capsys.readouterr().out.splitlines():
        assert f"# {line}" in ages
    now, then = names["trace"].selected()
    used = [
        (source, int(k - s))
        for (_, source, _), k, s in zip(names["trace"].mixed.tolist(), now, then, strict=True)
        if k == 17
    ]
    assert used == [(0, 4), (2, 2)]


def test_python_blocks_of_the_cookbook_run() -> None:
    names: dict[str, Any] = {}
    exec(PRELUDE, names)
    with one_thread():
        for block in blocks("docs/cookbook.md", "python"):
            exec(block, names)
    held = offbeat.simulate("adsgd", task=names["task"], topology="ring", until=1).holdings
    assert held is not None and sorted(held.sizes) == sorted(names["site"].bincount().tolist())
