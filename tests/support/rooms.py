"""The rooms of the house: which there are, who may import whom, and who does, read from the source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
ROOT = "offbeat"

ROOMS = {
    "core": "",
    "core.system": "core",
    "world": "core core.system",
    "tasks": "core core.system",
    "tasks.metrics": "core tasks",
    "algorithms": "core core.system world",
    "engines": "core core.system",
    "engines.sim": "core core.system world tasks engines",
    "engines.live": "core core.system world engines",
    "engines.live.cluster": "core core.system engines.live",
    "theory": "core world tasks algorithms engines engines.sim",
    "results": "core core.system world tasks.metrics algorithms engines theory",
    "training": "core core.system world algorithms engines engines.live",
    "experiments": (
        "core core.system world tasks tasks.metrics algorithms engines engines.sim engines.live theory "
        "results"
    ),
    "cli": (
        "core core.system world tasks tasks.metrics algorithms engines engines.live engines.live.cluster "
        "theory results training experiments"
    ),
}
"""Room -> the rooms that it may import; a module is in the innermost of these. `offbeat/__init__.py` may
import all."""


@dataclass
class Module:
    """A source file; `top` and `lazy` are the modules that it imports when it is imported, and later."""

    name: str
    path: Path
    tree: ast.Module
    top: set[str] = field(default_factory=set)
    lazy: set[str] = field(default_factory=set)

    @property
    def room(self) -> str:
        """The innermost room that it is in."""
        return room_of(self.name)


def room_of(name: str) -> str:
    """`offbeat.world.delays` -> world; what is not ours keeps its first name, the package itself is
    `__init__`.
    """
    first, _, below = name.partition(".")
    rooms = [room for room in ROOMS if f"{below}.".startswith(f"{room}.")]
    return first if first != ROOT else max(rooms, key=len) if rooms else "__init__"


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")


PATHS = {name_of(path): path for path in sorted((SOURCE / ROOT).rglob("*.py"))}


def imported(node: ast.AST, late: bool = False) -> Iterator[tuple[str, bool]]:
    """Every module that is imported below this node, and whether in a function."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names):
                yield from ((alias.name, late) for alias in names)
            case ast.ImportFrom(module, names, level):
                assert level == 0, "relative imports hide where things come from"
                assert module is not None
                whole = [f"{module}.{alias.name}" for alias in names]
                yield from ((name if name in PATHS else module, late) for name in whole)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _:
                yield from imported(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


@cache
def modules() -> list[Module]:
    """All source files; read once, and not when tests are collected: every worker does that."""
    found = [Module(name, path, ast.parse(path.read_text("utf-8"))) for name, path in PATHS.items()]
    for module in found:
        for name, late in imported(module.tree):
            (module.lazy if late else module.top).add(name)
    return found


def ours(names: set[str]) -> set[str]:
    return {name for name in names if name in PATHS}
