"""The architecture: who may import whom, and how long a file and a function may be. Read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
ROOT = "offbeat"

ALLOWED = {
    # what everything stands on
    "errors": "",
    "lifeline": "",
    "locks": "",
    "signals": "",
    "devices": "",
    "native": "reading",
    "reading": "",
    "streams": "",
    "trace": "reading",
    "vector": "",
    "kernel": "native vector",
    "workers": "signals",
    # the contracts: of an algorithm, of a task, of a graph
    "rules": "vector",
    "agent": "rules vector",
    "promises": "agent vector",
    "room": "",
    "task": "vector",
    "graphs": "",
    "topology": "agent graphs",
    # the world of a run, and what one agent sends in it
    "measured": "reading",
    "delays": "measured",
    "world": "delays",
    "outbox": "agent vector",
    # what keeps or uses the contracts; none of these three knows another
    "algorithms": "agent promises topology vector",
    "tasks": "kernel native streams task vector reading",
    "live": "agent kernel lifeline locks outbox promises reading rules signals streams topology trace vector world",
    "sim": "agent devices kernel outbox promises rules streams task topology trace vector world",
    # results, and how they are shown
    "results": "topology trace vector",
    "report": "algorithms experiment results topology trace",
    # everything put together
    "experiment": "algorithms delays devices graphs promises room rules streams task tasks topology vector world",
    "memory": "algorithms devices experiment room trace",
    "runs": "algorithms devices experiment memory promises results rules sim streams task trace vector",
    "portions": "algorithms experiment memory results rules runs workers",
    "tuning": "results",
    "comparison": "agent algorithms experiment memory portions results rules runs tuning workers",
    "member": "agent algorithms live streams topology vector",
    "child": "live member",
    "liverun": "algorithms experiment live results rules sim streams trace vector runs reading",
    "livefolder": "algorithms live trace reading",
    "replaying": "algorithms experiment live rules sim streams task topology trace vector runs reading",
    "sweeping": "algorithms delays experiment locks reading results runs task trace workers world",
    "fitting": "trace",
    "predicting": "algorithms delays experiment fitting results tasks trace runs",
    "perfetto": "trace",
    "exporting": "live trace vector",
    "doctor": "kernel lifeline live tasks vector",
    "console": "report results",
    "outputs": "console report results",
    "cli": "algorithms comparison console memory outputs report results signals tasks trace tuning workers world",
    "cli_list": "algorithms console delays graphs tasks world",
    "cli_launch": "algorithms cli console live livefolder perfetto replaying room topology trace",
    "cli_live": "algorithms cli comparison console experiment live livefolder liverun outputs reading results room "
    "signals world",
    "cli_predict": "algorithms cli outputs predicting report results trace world",
    "cli_sweep": "cli console outputs signals sweeping",
    "cli_tools": "console doctor exporting",
    "commands": "cli cli_launch cli_list cli_live cli_predict cli_sweep cli_tools console",
    "preloaded": "commands lifeline",
    "__main__": "commands",
}
"""Unit -> the units that it may import. A unit is a module or a package of `offbeat`; all may import `errors`,
and the package itself (`offbeat/__init__.py`) may import all but the command line and the report."""

LAZY = {("results", "report"), ("tasks", "sklearn"), ("results", "pandas"), ("live", "torch"),
        ("locks", "fcntl"), ("sweeping", "pyarrow"), ("sweeping", "ray")}  # fmt: skip
"""What is imported inside a function, because it is slow or optional, or because results show themselves."""

ALGORITHM = {"collections", "dataclasses", "offbeat.agent", "offbeat.errors", "offbeat.vector"}
"""All that an algorithm may import."""

LIVE = {
    f"offbeat.live.{name}"
    for name in ("board", "children", "driver", "faults", "launch", "metrics", "output", "performer", "saver", "screen")
}

COMMANDS = ("cli", "cli_launch", "cli_list", "cli_live", "cli_predict", "cli_sweep", "cli_tools")

ONLY = {
    "pickle": {"offbeat.sim.checks"},
    "random": {
        "offbeat.agent",
        "offbeat.graphs",
        "offbeat.live.encode",
        "offbeat.promises",
        "offbeat.sim.replay",
        "offbeat.streams",
    },
    "time": {"offbeat.console", "offbeat.doctor", "offbeat.liverun", "offbeat.runs", *LIVE},
    "typer": {f"offbeat.{name}" for name in COMMANDS},
    "threading": {"offbeat.live.driver", "offbeat.workers"},
    "multiprocessing": {"offbeat.workers"},
    "concurrent": {"offbeat.sweeping.pools", "offbeat.sweeping.running", "offbeat.workers"},
    "asyncio": set(),
    "socket": set(),
    "subprocess": {"offbeat.live.children", "offbeat.live.faults", "offbeat.native"},
    "secrets": {"offbeat.live.shm"},
    "uuid": set(),
}
"""What few modules may import: clocks, randomness that is not a stream of the run, code that comes in files."""

FILE, FUNCTION = 400, 60
"""The most lines of a file, and of a function below its signature."""


@dataclass
class Module:
    """A source file; `top` and `lazy` are the modules that it imports when it is imported, and later."""

    name: str
    path: Path
    tree: ast.Module
    top: set[str] = field(default_factory=set)
    lazy: set[str] = field(default_factory=set)

    @property
    def unit(self) -> str:
        """The first name below the package."""
        return self.name.removeprefix(ROOT).lstrip(".").partition(".")[0] or "__init__"


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
                yield from ((name if (name := f"{module}.{a.name}") in PATHS else module, late) for a in names)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                pass
            case _:
                yield from imported(child, late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))


def modules() -> list[Module]:
    found = [Module(name, path, ast.parse(path.read_text("utf-8"))) for name, path in PATHS.items()]
    for module in found:
        for name, late in imported(module.tree):
            (module.lazy if late else module.top).add(name)
    return found


MODULES = modules()
each = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.name)


def unit_of(name: str) -> str:
    """`offbeat.world` -> sim; what is not ours keeps its first name."""
    first, _, rest = name.partition(".")
    return (rest.partition(".")[0] or "__init__") if first == ROOT else first


def test_every_module_has_its_place() -> None:
    assert {module.unit for module in MODULES} == {*ALLOWED, "__init__"}


def test_the_table_is_no_wider_than_the_code() -> None:
    """A row that allows what nobody does would hide the day on which somebody starts."""
    for unit, allowed in ALLOWED.items():
        used = {unit_of(name) for module in MODULES if module.unit == unit for name in module.top if name in PATHS}
        assert set(allowed.split()) <= used, unit


@each
def test_only_lower_layers_are_imported(module: Module) -> None:
    ours = {unit_of(name) for name in module.top if name.partition(".")[0] == ROOT}
    if module.unit == "__init__":
        assert ours <= {*ALLOWED} - {*COMMANDS, "commands", "report", "preloaded", "__main__"}
    else:
        assert ours - {module.unit} <= {*ALLOWED[module.unit].split(), "errors"}


@each
def test_late_imports_are_those_of_the_list(module: Module) -> None:
    assert {(module.unit, unit_of(name)) for name in module.lazy} <= LAZY


@each
def test_what_few_may_import(module: Module) -> None:
    for name in module.top | module.lazy:
        first = name.partition(".")[0]
        assert module.name in ONLY.get(first, {module.name}), f"{module.name} imports {name}"


@pytest.mark.parametrize("name", [name for name in PATHS if name.startswith("offbeat.algorithms.")])
def test_an_algorithm_sees_nothing_but_the_contract(name: str) -> None:
    (module,) = (module for module in MODULES if module.name == name)
    assert module.top | module.lazy <= ALGORITHM


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {module.name: {name for name in module.top if name in PATHS} for module in MODULES}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert order.index("offbeat.vector") < order.index("offbeat.agent") < order.index("offbeat.cli")


@each
def test_files_and_functions_are_short(module: Module) -> None:
    lines = len(module.path.read_text("utf-8").splitlines())
    assert lines <= FILE, f"{module.name} has {lines} lines"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.body[0].lineno + 1
            assert length <= FUNCTION, f"{module.name}.{node.name} has {length} lines"


def test_importing_the_package_leaves_the_slow_and_the_optional_alone() -> None:
    """scikit-learn, plotly and the command line cost a second or more; pandas need not be there at all."""
    slow = ("pandas", "plotly", "pyarrow", "sklearn", "typer")
    code = f"import sys, offbeat; print([n for n in {slow} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
