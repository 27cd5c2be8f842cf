"""Scripts as people write them, with at most five lines for offbeat: they train, survive a kill, and give a
model.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
from user_scripts import gives_a_better_model
from warm import finished, needs_shared_memory

from offbeat.engines.trace import Trace

SCRIPTS = Path(__file__).parent / "scripts"
RECIPES = Path(__file__).parents[2] / "examples" / "recipes"
PATHS = {path.stem: path for path in sorted([*SCRIPTS.glob("*.py"), *RECIPES.glob("*.py")])}
SAVED_EVERY = 4


@dataclass(frozen=True)
class Case:
    """steps: of an agent that nobody kills; killed: after how many steps the other one is; again: steps it
    repeats; replayed: whether the trace is, too.
    """

    steps: int
    killed: int
    again: int = 0
    replayed: bool = False


OURS = {
    "digits_cnn": Case(46, 35, again=3),
    "char_transformer": Case(40, 27),
    "resnet": Case(20, 11, again=3),
    "word_model": Case(45, 31, again=3),
    "vae": Case(46, 35, again=3),
    "gan": Case(150, 79, again=3, replayed=True),
    "reinforce": Case(70, 31),
}
"""A loop that counts steps makes as many as it wants in all lives; another one repeats those since its
checkpoint."""


def check(folder: Path, name: str, case: Case) -> None:
    """Train with two agents, one of which is killed; what is exported is better than what was begun with."""
    path = PATHS[name]
    words = f"launch -n 2 --out out --checkpoint-every {SAVED_EVERY} --fault".split()
    run = finished(folder, *words, f"kill agent 1 at step {case.killed}", str(path))
    assert run.code == 0, run.said + run.complained
    assert "[1] died (killed by SIGKILL); restart 1 of 3" in run.said
    assert Trace.load(folder / "out" / "trace.npz").updates().tolist() == [
        case.steps,
        case.steps + case.again,
    ]
    if case.replayed:
        replay = finished(folder, "replay", "out")
        assert "Schedule and mixed versions: the same." in replay.said, replay.complained
    gives_a_better_model(folder, path)


@needs_shared_memory
@pytest.mark.parametrize("name", OURS)
def test_a_script_trains_survives_a_kill_and_gives_a_better_model(name: str, tmp_path: Path) -> None:
    check(tmp_path, name, OURS[name])


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_offbeat_takes_few_marked_lines_and_no_others(path: Path) -> None:
    """At most five, but for recipes that save more, and keep files."""
    lines = path.read_text().splitlines()
    marked = {k for k, line in enumerate(lines, 1) if re.search("  # offbeat(: .*)?$", line)}
    names = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Name | ast.alias))
    used = {node.lineno for node in names if (node.id if isinstance(node, ast.Name) else node.name) in USED}
    assert used == marked
    assert 1 < len(marked) <= (11 if path.parent == RECIPES else 5)


USED = ("offbeat", "agent")
