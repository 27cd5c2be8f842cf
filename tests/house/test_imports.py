"""The architecture: who may import whom, and how long a file and a function may be. Read from the source."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter

import pytest
from rooms import ROOMS, ROOT, SOURCE, Module, modules, ours, room_of

LAZY = {("tasks", "sklearn"), ("results", "pandas"), ("results", "offbeat"), ("engines.live", "torch"),
        ("core.system", "fcntl"), ("core.system", "ray"), ("experiments", "pyarrow"),
        ("engines.live.cluster", "ray"), ("experiments", "optuna"), ("results", "scipy"),
        ("world", "mixingmatrix"), ("cli", "offbeat")}  # fmt: skip
"""What is imported inside a function, because it is slow or optional."""

TABLE = ("row", "table", "finding")
ALGORITHM = {
    "collections",
    "dataclasses",
    "math",
    "offbeat.algorithms.adpsgd",
    "offbeat.algorithms.diloco",
    "offbeat.algorithms.rfast",
    "offbeat.core.agent",
    "offbeat.core.errors",
    "offbeat.core.forms",
    "offbeat.core.newest",
    "offbeat.core.pairs",
    "offbeat.core.push_sum",
    "offbeat.core.ring",
    "offbeat.core.rounds",
    "offbeat.core.server",
    "offbeat.core.summed",
    "offbeat.core.tree",
    "offbeat.core.vector",
}
"""All that an algorithm may import."""

LIVE = {
    *(f"offbeat.engines.live.shm.{name}" for name in ("board",)),
    *(f"offbeat.engines.live.node.{name}" for name in ("driver", "faults", "performer")),
    "offbeat.engines.live.node.saving",
    "offbeat.experiments.live.program",
    "offbeat.experiments.live.running",
    *(
        f"offbeat.engines.live.launcher.{name}"
        for name in (
            "children",
            "doctor",
            "homeless",
            "joining",
            "launch",
            "metrics",
            "requests",
            "screen",
            "view",
            "selftest",
            "stop_after",
        )
    ),
}

CLUSTER = ("asking", "checkup", "clocks", "exchange", "gateway", "mirror", "peer", "post", "talking")

COMMANDS = (
    "commands",
    "compare",
    "doctor",
    "joining",
    "launch",
    "live",
    "new",
    "options",
    "predict",
    "reproduce",
    "results",
    "sweep",
    "theory",
    "tools",
    "usage",
)

ONLY = {
    "pickle": {"offbeat.engines.sim.checks", "offbeat.engines.sim.ahead.fields"},
    "random": {
        "offbeat.core.pairs",
        "offbeat.core.agent",
        "offbeat.world.graphs",
        "offbeat.engines.live.node.encode",
        "offbeat.core.promises",
        "offbeat.engines.sim.replay",
        "offbeat.core.system.streams",
    },
    "time": {
        "offbeat.cli.progress",
        "offbeat.core.system.there",
        "offbeat.experiments.runs",
        "offbeat.experiments.reproduction.running",
        *LIVE,
        *(
            f"offbeat.engines.live.cluster.{name}"
            for name in (*CLUSTER, "attaching", "keeper", "lives", "remote")
        ),
    },
    "typer": {f"offbeat.cli.{name}" for name in COMMANDS},
    "threading": {
        "offbeat.core.system.ray_nodes",
        "offbeat.core.system.signals",
        "offbeat.engines.live.cluster.talking",
        "offbeat.engines.live.node.driver",
        "offbeat.experiments.forking",
        "offbeat.experiments.scheduler",
        "offbeat.experiments.workers",
    },
    "multiprocessing": {"offbeat.experiments.forking", "offbeat.experiments.workers"},
    "concurrent": {
        "offbeat.engines.live.cluster.talking",
        "offbeat.experiments.scheduler",
        "offbeat.experiments.workers",
    },
    "asyncio": {f"offbeat.engines.live.cluster.{name}" for name in (*CLUSTER, "fleet")},
    "socket": {
        "offbeat.engines.live.cluster.fleet",
        "offbeat.core.system.ray_cluster",
        "offbeat.core.system.ray_tls",
    },
    "ssl": {"offbeat.core.system.ray_tls"},
    "subprocess": {
        "offbeat.engines.live.launcher.children",
        "offbeat.engines.live.node.faults",
        "offbeat.core.system.native",
        "offbeat.core.system.ray_cluster",
        "offbeat.engines.live.cluster.gateway",
    },
    "secrets": {
        "offbeat.core.system.ray_nodes",
        "offbeat.engines.live.cluster.starting",
        "offbeat.engines.live.shm.run_folder",
    },
    "uuid": set(),
}
"""What few modules may import: clocks, randomness that is not a stream of the run, code that comes in
files."""

FILE, FUNCTION, PAPER = 350, 60, 105
"""The most lines of a file, of a function with its signature, and of an algorithm's file, which is to be read
beside its paper."""


def algorithms() -> list[Module]:
    """The algorithms' own files."""
    room = f"{ROOT}.algorithms."
    inside = [module for module in modules() if module.name.startswith(room)]
    return [module for module in inside if module.name.removeprefix(room).split(".")[0] not in TABLE]


def test_every_module_has_its_room() -> None:
    outside = {module.name for module in modules() if module.room == "__init__"}
    assert outside == {"offbeat", "offbeat.__main__"}
    assert {module.room for module in modules()} == {*ROOMS, "__init__"}


def test_the_house_has_at_most_a_dozen_names() -> None:
    assert len({path.stem for path in (SOURCE / ROOT).iterdir() if path.name != "__pycache__"}) <= 13


def test_the_head_of_a_room_says_what_it_is_for() -> None:
    heads = {module.name: ast.get_docstring(module.tree) or "" for module in modules()}
    assert [room for room in ROOMS if len(heads[f"{ROOT}.{room}"].splitlines()) < 3] == []


def test_rooms_import_downwards() -> None:
    """The table itself has no circle, and names every room below those that import it."""
    order = list(TopologicalSorter({room: allowed.split() for room, allowed in ROOMS.items()}).static_order())
    assert {*order} == {*ROOMS}


def test_the_table_is_no_wider_than_the_code() -> None:
    """A row that allows what nobody does would hide the day on which somebody starts."""
    for room, allowed in ROOMS.items():
        used = {
            room_of(name)
            for module in modules()
            if module.room == room
            for name in ours(module.top | module.lazy)
        }
        assert set(allowed.split()) <= used, room


def test_only_lower_rooms_are_imported() -> None:
    for module in modules():
        rooms = {room_of(name) for name in ours(module.top | module.lazy)} - {module.room}
        if module.name == ROOT:
            assert rooms <= {*ROOMS} - {"cli"}
        elif module.name != "offbeat.__main__":
            assert rooms <= {*ROOMS[module.room].split()}, module.name


def test_late_imports_are_those_of_the_list() -> None:
    late = {(m.room, name.partition(".")[0]): m.name for m in modules() for name in m.lazy}
    assert {of: name for of, name in late.items() if of not in LAZY} == {}


def test_what_few_may_import() -> None:
    for module in modules():
        for name in module.top | module.lazy:
            first = name.partition(".")[0]
            assert module.name in ONLY.get(first, {module.name}), f"{module.name} imports {name}"


def test_an_algorithm_sees_nothing_but_the_contract() -> None:
    assert len(algorithms()) > 20
    assert {m.name: more for m in algorithms() if (more := (m.top | m.lazy) - ALGORITHM)} == {}


def test_no_module_imports_itself_by_a_detour() -> None:
    """Not even inside of functions."""
    graph = {module.name: ours(module.top | module.lazy) for module in modules()}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the cycle
    assert (
        order.index("offbeat.core.vector")
        < order.index("offbeat.core.agent")
        < order.index("offbeat.cli.compare")
    )


def test_files_and_functions_are_short() -> None:
    long = {}
    for module in modules():
        most = PAPER if module in algorithms() else FILE
        if (lines := len(module.path.read_text("utf-8").splitlines())) > most:
            long[module.name] = lines
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert node.end_lineno is not None
                if (lines := node.end_lineno - node.lineno + 1) > FUNCTION:
                    long[f"{module.name}.{node.name}"] = lines
    assert long == {}


def test_importing_the_package_leaves_the_slow_and_the_optional_alone() -> None:
    """scikit-learn, plotly and the command line cost a second or more; pandas need not be there at all."""
    slow = ("pandas", "plotly", "pyarrow", "sklearn", "typer")
    code = f"import sys, offbeat; print([n for n in {slow} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "name",
    [*(f"engines.live.cluster.{each}" for each in ("actor", "gateway", "keeper")), "experiments.forking"],
)
def test_what_others_wait_for_begins_without_torch(name: str) -> None:
    """While a gateway begins anew the registers of its machine stand still, and workers import everything
    while their command does; these take seconds.
    """
    slow = ("torch", "networkx", "scipy", "offbeat.world")
    code = f"import sys, offbeat.{name}; print([n for n in {slow} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
