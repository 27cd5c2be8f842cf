"""A setting is declared once: everything else follows from the line that declares it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet
import pytest

import offbeat

DECLARATION = """    throwaway: float = setting(0.5, WORLD, "A setting of no use, to be seen everywhere.")
"""
SUPPORT = Path(__file__).parents[1] / "support"
BEFORE = "    data: str | Path | None = setting("


@pytest.fixture(scope="module")
def with_a_setting_more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with one line more, in one file."""
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(Path(offbeat.__file__).parent, folder / "offbeat")
    file = folder / "offbeat" / "experiments" / "experiment.py"
    source = file.read_text("utf-8")
    assert source.count(BEFORE) == 1
    file.write_text(source.replace(BEFORE, DECLARATION + BEFORE), "utf-8")
    return folder


PROGRAM = """
import json, sys
from offbeat.cli.commands import main
from warm import fork_the_server
fork_the_server()
for words in json.loads(sys.argv[1]):
    sys.argv[1:] = words
    try: main()
    except SystemExit as end:
        if end.code: raise
    print(chr(12), end="")
"""
GRID = "[fixed]\ntask = 'quadratic'\nagents = 3\ntopology = 'ring'\nalgorithm = 'adsgd'\nuntil = 5\n"
COMPARE = "compare --task quadratic --agents 3 --topology ring --algorithms adsgd --until 5 --throwaway 0.75"


@pytest.fixture(scope="module")
def shown(with_a_setting_more: Path) -> list[str]:
    """What some commands of this copy print, one after another in one process and in its folder."""
    (with_a_setting_more / "grid.toml").write_text(f"{GRID}[grid]\nthrowaway = [0.25, 1]\n")
    compared, swept = f"{COMPARE} --json a.json --report a.html", "sweep grid.toml --workers 1"
    lines = ("compare --help", "live --help", compared, swept)
    words = json.dumps([line.split() for line in lines])
    environment = {
        **os.environ,
        "PYTHONPATH": f"{with_a_setting_more}{os.pathsep}{SUPPORT}",
        "COLUMNS": "200",
    }
    environment["OMP_NUM_THREADS"] = "1"
    command = [sys.executable, "-P", "-c", PROGRAM, words]
    done = subprocess.run(
        command, cwd=with_a_setting_more, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\f")


def test_a_new_setting_is_an_option(shown: list[str]) -> None:
    for help_of in shown[:2]:
        line = next(" ".join(line.split()) for line in help_of.splitlines() if "--throwaway" in line)
        assert "A setting of no use, to be seen everywhere. [default: 0.5]" in line


def test_a_new_setting_is_in_json_in_the_headline_and_in_the_command_on_the_page(
    with_a_setting_more: Path, shown: list[str]
) -> None:
    assert ", throwaway 0.75, " in shown[2]
    made = json.loads((with_a_setting_more / "a.json").read_text("utf-8"))
    assert made["runs"][0]["settings"]["throwaway"] == 0.75
    page = (with_a_setting_more / "a.html").read_text("utf-8")
    assert "<span>--throwaway</span> 0.75" in page


@pytest.mark.usefixtures("shown")
def test_a_new_setting_is_a_key_of_a_sweep_and_a_column_of_its_table(with_a_setting_more: Path) -> None:
    table = pyarrow.parquet.read_table(with_a_setting_more / "grid.parquet")
    assert table["throwaway"].to_pylist() == [0.25, 1.0]
    assert str(table.schema.field("throwaway").type) == "double"
    assert len({*table["key"].to_pylist()}) == 2


@pytest.mark.usefixtures("usually_evaluated")
def test_the_command_of_a_page_says_only_what_the_command_line_has_words_for() -> None:
    run = offbeat.simulate(
        "adsgd", task="quadratic", agents=3, topology="ring", until=5, crash="agent 1 at 2"
    )
    words = run.settings.words()
    assert ("crash", "agent 1 at 2") in words
    assert not {"slowdown", "straggler", "dirichlet", "executor", "device", "loss"} & {
        name for name, _ in words
    }
    assert all(name != "crash" for name, _ in run.settings.words(live=True))
    assert shlex.join(["--eval-every", dict(words)["eval_every"]]) == "--eval-every 0.025"
