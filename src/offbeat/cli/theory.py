"""The command line of what theory says ahead of any run: what is taken as given."""

import json as json_format
from dataclasses import asdict, replace
from pathlib import Path

from rich.text import Text

from offbeat.cli import theory_table2
from offbeat.cli.console import Out
from offbeat.cli.options import option
from offbeat.cli.theory_shown import as_table, record, show, show_changing
from offbeat.core.errors import SettingError
from offbeat.core.settings import USUAL_AGENTS
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import WEIGHED, Experiment
from offbeat.experiments.setup import prepare
from offbeat.tasks import TASKS
from offbeat.tasks.constants import Constants
from offbeat.theory.bounds import Given, check_agents, pair_of_horizon, pair_of_rate, spectrum
from offbeat.theory.table2 import table2
from offbeat.world.topology import Topology, build, size_of

HORIZON = 100_000
MANY = f"How many; default: those of the trace, the graph's, or {USUAL_AGENTS}."
GIVEN = "What is taken as given"
WHO = "Who hears whom: 'offbeat list topologies'. Default: that of the trace, or grid."
OF_TASK = "L, sigma, start: of this task, of seed 0: digits, mnist, fashion-mnist, quadratic; or mine.py:f."
UNSAID = Constants(1.0, 0.0, 1.0)
SMOOTHNESS = "L: of every agent's f_i, no gradient changes by more than L times the distance; default: 1."
DELAY = "D: no model that is mixed is older than so many updates of all agents together. Default: 0."
WINDOW = "B: every agent writes at least once in so many updates. Default: one for each agent."
HORIZONS = f"K: how many updates of all agents together; default: those of the trace, or {HORIZON:,}."
RATE = "alpha: the learning rate; default: the one for the horizon."
SIGMA = "The noise of gradients: E ||g_i - grad f_i||^2 <= sigma^2. Default: the task's, or 0."
START = "sum_i (f_i(x^0) - inf f_i): how far all agents' losses can fall. Default: the task's, or 1."
TABLE = (
    "Count on short runs what every algorithm keeps and sends, beside the formulas: table 2 of "
    "arXiv:2505.10322. Nothing else is said."
)
TRACE = "A trace.npz of a run, or a live run's folder: B, D and K are measured in it."


def theory(
    topology: str | None = option(None, GIVEN, WHO),
    agents: int | None = option(None, GIVEN, MANY),
    weights: str | None = option(None, GIVEN, WEIGHED),
    task: str | None = option(None, GIVEN, OF_TASK),
    smoothness: float | None = option(None, GIVEN, SMOOTHNESS),
    delay: int | None = option(None, GIVEN, DELAY),
    window: int | None = option(None, GIVEN, WINDOW),
    horizon: int | None = option(None, GIVEN, HORIZONS),
    lr: float | None = option(None, GIVEN, RATE),
    sigma: float | None = option(None, GIVEN, SIGMA),
    start: float | None = option(None, GIVEN, START),
    trace: Path | None = option(None, GIVEN, TRACE),
    table: bool = option(False, None, TABLE, "--table2"),
    as_json: bool = option(False, None, "Print it as JSON.", "--json"),
) -> None:
    """Say what theory knows ahead of a run: mixing, learning rates, two step sizes, bounds, traffic.

    Nothing is run, except for --table2. Every number says who says so. Bounds hold for every task of that
    smoothness; what happens is far better than they say.

    An algorithm whose bound has no B may have agents that compute as slowly as they like. That is what sets
    ADSGD apart from methods that track gradients: compare their learning rates, and raise --window.

    Examples:

      offbeat theory --topology ring --agents 16 --delay 20

      offbeat theory --task digits --delay 40

      offbeat theory --smoothness 4 --delay 10 --lr 0.01 --horizon 1000000

      offbeat compare --task quadratic --traces .
      offbeat theory --trace adsgd-lr0.01-seed0.npz --smoothness 2
    """
    numbers = (smoothness, sigma, start)
    if table:
        asked = (task, *numbers, topology, agents, weights, delay, window, horizon, lr, trace)
        _table2(as_json, alone=all(each is None for each in asked))
        return
    graph, counts = _measured(trace, topology, agents, weights, delay, window, horizon)
    if task is not None:
        _refuse_without_constants(task)
    *there, how = UNSAID if task is None else _of_task(task, graph)
    L, noise, far = (usual if said is None else said for said, usual in zip(numbers, there, strict=True))
    _check(L, counts, lr, noise, far)
    if graph.rounds is not None:
        show_changing(graph, graph.rounds, as_json)
        return
    given = Given(graph.n, spectrum(graph), D=counts[0], B=counts[1], K=counts[2], read=counts[3])
    given = replace(given, L=L, sigma=noise, start=far)
    pair = pair_of_horizon(given) if lr is None else pair_of_rate(given, lr)
    if as_json:
        print(json_format.dumps(record(graph, given, pair), indent=2, allow_nan=False))
    else:
        show(graph, given, pair, f"L, sigma and start of {task}, where not given: {how}." * bool(task))


def _refuse_without_constants(task: str) -> None:
    """Before any data are looked for. Raises SettingError for a task of the table that is a network's."""
    if task in TASKS and TASKS[task].model is not None:
        able = ", ".join(name for name, row in TASKS.items() if row.model is None)
        raise SettingError(
            f"No L is known of {task}, which trains a network. Expected one of {able}, a task of your own "
            "that says it, mine.py:make_task; or give --smoothness instead of --task."
        )


def _of_task(task: str, graph: Topology) -> Constants:
    """What the task, of seed 0 and its usual settings, says of itself. Raises SettingError if it does not."""
    made = prepare(Experiment(task=task, topology=graph, until=1.0), 0).task
    constants = getattr(made, "constants", None)
    if constants is None:
        give = "a method `constants` that returns an offbeat.tasks.Constants(L, sigma, start)"
        raise SettingError(f"The task {made.name} does not say its L. Expected {give}; or give --smoothness.")
    return Constants(*constants())


def _table2(as_json: bool, alone: bool) -> None:
    """Print it. Raises SettingError if it was asked for with anything else."""
    if not alone:
        raise SettingError("--table2 has graphs and runs of its own: expected no other option but --json.")
    found = table2()
    if as_json:
        rows = {name: {d: asdict(row) for d, row in each.items()} for name, each in found.items()}
        print(json_format.dumps(rows, indent=2, allow_nan=False))
        return
    out = Out()
    for section in theory_table2.sections(found):
        out.print(as_table(*section))
    for note in theory_table2.NOTES:
        out.print(Text(note, "dim"))


def _measured(
    path: Path | None, topology: str | None, agents: int | None, weights: str | None, delay: int | None,
    window: int | None, horizon: int | None,
) -> tuple[Topology, tuple[int, int, int, int | None]]:  # fmt: skip
    """The graph; and D, B, K as asked for, else as measured, else as usual; D by blocks, where measured."""
    read = None
    if path is None:
        topology = topology or "grid"
        n = (size_of(topology) or USUAL_AGENTS) if agents is None else agents
        check_agents(n)
        graph = build(topology, n, weights=weights)
        counts = (0, graph.n, HORIZON)
    else:
        trace = Trace.load(path)
        if agents not in (None, trace.agents):
            raise SettingError(f"{path} is of {trace.agents} agents; got --agents {agents}. Leave it out.")
        if not len(trace.writes):
            raise SettingError(f"In {path} no model was written: expected a run with updates.")
        s = {"topology": "grid", **trace.settings, **trace.settings.get("experiment", {})}
        recorded = s.get("weights") if topology is None else None
        graph = build(
            topology or str(s["topology"]), trace.agents, int(s.get("seed", 0)), weights or recorded
        )
        staleness, k = trace.staleness(), int(trace.iterations()[-1]) + 1
        if staleness.D is None and delay is None:
            raise SettingError(
                f"{path} has no D: what that algorithm mixes comes as mail, whose age is not measured. "
                "Give --delay."
            )
        counts = (staleness.D or 0, staleness.B, k)
        read = staleness.D if trace.blocks and delay is None and window is None else None
    asked = (delay, window, horizon)
    if window is not None and 0 < window < graph.n:
        raise SettingError(
            f"--window {window} is too small: every agent writes at least once in so many updates of all "
            f"agents together. Expected at least {graph.n}, one for each agent."
        )
    D, B, K = (there if wanted is None else wanted for wanted, there in zip(asked, counts, strict=True))
    return graph, (D, B, K, read)


def _check(
    L: float, counts: tuple[int, int, int, int | None], lr: float | None, sigma: float, start: float
) -> None:
    """Raises SettingError for numbers that cannot be, or whose products no number could hold."""
    tiny, huge = 1e-30, 1e30
    numbers = [
        ("--smoothness", L, tiny), ("--delay", counts[0], 0), ("--window", counts[1], 1),
        ("--lr", lr, tiny), ("--horizon", counts[2], 1), ("--sigma", sigma, 0), ("--start", start, 0),
    ]  # fmt: skip
    for name, value, least in numbers:
        if value is not None and not least <= value <= huge:
            raise SettingError(f"Expected for {name} a number from {least:g} to {huge:g}; got {value}.")
