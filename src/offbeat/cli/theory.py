"""The command line of what theory says ahead of any run."""

import json as json_format
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, Algorithm
from offbeat.cli import theory_table2
from offbeat.cli.console import Out
from offbeat.cli.options import option
from offbeat.core.errors import SettingError
from offbeat.core.rounds import Rounds
from offbeat.engines.trace import Trace
from offbeat.experiments.experiment import WEIGHED, Experiment
from offbeat.experiments.setup import prepare
from offbeat.tasks.constants import Constants
from offbeat.theory.bounds import Given, Pair, bounds, pair_of_horizon, pair_of_rate, spectrum
from offbeat.theory.rates import DERIVED, RATES
from offbeat.theory.table2 import memory, table2, traffic
from offbeat.world.changing import Graphs
from offbeat.world.topology import Topology, build, size_of

AGENTS, HORIZON = 9, 100_000

MANY = f"How many; default: those of the trace, the graph's, or {AGENTS}."
GIVEN = "What is taken as given"
WHO = "Who hears whom: 'offbeat list topologies'. Default: that of the trace, or grid."
OF_TASK = "Take L, sigma and start from this task, of seed 0: digits, mnist, quadratic; or mine.py:make_task."
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

SOURCE = {
    "lambda_2": "how slowly mixing goes",
    "lambda_n": "the least eigenvalue",
    "1 - lambda_2": "in (ii) and (iii), below",
    "1 - max |lambda|": "spectral gap",
    "least w_ii": "what an agent keeps of its own model",
    "rho": "lambda_2 of the mean of averaging random pairs",
}

NOTES = (
    "derived here: worked out in offbeat.theory, whose tests hold runs to it. recalled: general knowledge of "
    "a publication that was not read again, and not its statement; uncertain: recalled too, its constants "
    "may be off, an order of magnitude at most. No delay of computing is in what has no B.",
    "keeps: model-sized vectors of an agent with as many neighbours as there are on average, and of the "
    "busiest; sends: models an update, a multicast counted once, and over all links. Counted: --table2.",
)
SHORT = (
    "B = {} is below the number of agents, {}: only where some write at the same instant does each write "
    "once in so few updates."
)
CHANGES = (
    "No one matrix has a spectrum here: what is known of learning rates, bounds and limits is of graphs that "
    "stand still. Algorithms that are not listed are defined on these only, or need no graph."
)


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
    *there, how = UNSAID if task is None else _of_task(task, graph)
    L, noise, far = (usual if said is None else said for said, usual in zip(numbers, there, strict=True))
    _check(L, counts, lr, noise, far)
    if graph.rounds is not None:
        _changing(graph, graph.rounds, as_json)
        return
    given = Given(graph.n, spectrum(graph), D=counts[0], B=counts[1], K=counts[2], read=counts[3])
    given = replace(given, L=L, sigma=noise, start=far)
    pair = pair_of_horizon(given) if lr is None else pair_of_rate(given, lr)
    if as_json:
        print(json_format.dumps(_record(graph, given, pair), indent=2, allow_nan=False))
    else:
        _print(graph, given, pair, f"L, sigma and start of {task}, where not given: {how}." * bool(task))


def _print(graph: Topology, given: Given, pair: Pair, of_task: str) -> None:
    out, unknown = Out(), [name for name in ALGORITHMS if name not in RATES]
    said = f"{given.n} agents on {graph.name}; L = {given.L:g}, D = {given.D}, B = {given.B}, K = {given.K:,}"
    out.print(Text(f"{said}, start = {given.start:g}, sigma = {given.sigma:g}", "bold"))
    for title, heads, rows in _sections(graph, given, pair):
        out.print(_table(title, heads, rows))
    short = SHORT.format(given.B, given.n) * (given.n > given.B)
    unsaid = f"No learning rate is known here of {', '.join(unknown)}." * bool(unknown)
    for note in filter(None, [of_task, *NOTES, short, unsaid]):
        out.print(Text(note, "dim"))


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
        out.print(_table(*section))
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
        n = (size_of(topology) or AGENTS) if agents is None else agents
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
    D, B, K = (there if wanted is None else wanted for wanted, there in zip(asked, counts, strict=True))
    return graph, (D, B, K, read)


def _changing(graph: Topology, rounds: Graphs, as_json: bool) -> None:
    """What is known of a graph that changes: how it averages, and what its algorithms keep and send."""
    left, after = rounds.left()
    taken = [name for name, spec in ALGORITHMS.items() if isinstance(spec.prototype, Rounds)]
    specs = {name: ALGORITHMS[name] for name in taken if ALGORITHMS[name].prototype.changing_graph}
    if as_json:
        kept = {
            name: {"keeps": memory(spec, graph.degree), "sends": _by_links(spec, graph)}
            for name, spec in specs.items()
        }
        said = {"topology": graph.name, "n": graph.n, "period": rounds.period, "degree": graph.degree}
        print(
            json_format.dumps(
                {"given": said, "left": {"factor": left, "of": after}, "agents": kept}, indent=2
            )
        )
        return
    out = Out()
    out.print(Text(f"{graph.n} agents on {graph.name}, which changes from round to round", "bold"))
    period = "none: each is drawn" if rounds.period is None else f"{rounds.period}"
    out.print(_table("Rounds", ("", "", ""), [
        ("period", period, "rounds until they begin again"),
        ("neighbours", f"{graph.degree:.3g}", "to whom an agent sends in a round, on average"),
        ("left", f"{left:.4g}", f"at most, {after}: 0 is an exact average"),
    ]))  # fmt: skip
    rows = []
    for name, spec in specs.items():
        numbers = memory(spec, graph.degree), _by_links(spec, graph)
        rows.append((name, *("-" if number is None else f"{number:.3g}" for number in numbers)))
    title = "An agent, in models: what it keeps, and sends an update by all links"
    out.print(_table(title, ("algorithm", "keeps", "sends"), rows))
    out.print(Text(CHANGES, "dim"))


def _by_links(spec: Algorithm, graph: Topology) -> float | None:
    """Models an update over all links, of which some rounds may have none."""
    sends = traffic(spec, graph.n, graph.degree)
    return None if sends is None else sends[1]


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


def _sections(graph: Topology, given: Given, pair: Pair) -> list[theory_table2.Section]:
    weights: list[tuple[str, ...]] = [
        (name, f"{value:.4g}", SOURCE[name]) for name, value in _weights(given).items()
    ]
    rates: list[tuple[str, ...]] = [
        (name, rate.text, rate.what, rate.source)
        for name in ALGORITHMS
        for rate in (RATES[name](given) if name in RATES else [])
    ]
    return [
        ("Weights, computed from W", ("", "", ""), weights),
        ("Learning rates: at most", ("algorithm", "lr", "what converges", "who says so"), rates),
        ("ADSGD with two step sizes", ("", "", "", "who says so"), _steps(given, pair)),
        ("What that is sure of, as means over the K updates", ("", "at most", "", "who says so"),
         _sure(given, pair)),
        ("An agent, in models: what it keeps, and sends an update",
         ("algorithm", "keeps", "busiest", "sends", "by all links"), _agents(graph)),
    ]  # fmt: skip


def _weights(given: Given) -> dict[str, float]:
    w = given.w
    values = (w.second, w.last, 1 - w.second, w.gap, w.own, w.pairs)
    return dict(zip(SOURCE, values, strict=True))


def _steps(given: Given, pair: Pair) -> list[tuple[str, ...]]:
    condition = "(S): gamma <= 1 / ((2D + 1)(L + (1 - lambda_n) / alpha))"
    plain = "meets" if Pair(pair.alpha, pair.alpha).admissible(given) else "does not meet"
    return [
        ("alpha", f"{pair.alpha:.4g}", "the learning rate: --lr", ""),
        ("gamma", f"{pair.gamma:.4g}", f"the step; {condition}: no B", DERIVED),
        ("theta", f"{pair.theta:.4g}", f"gamma / alpha, as 'adsgd:theta={pair.theta:.4g}'", ""),
        ("theta = 1", "", f"plain adsgd {plain} (S), which suffices and is not necessary", DERIVED),
    ]


def _sure(given: Given, pair: Pair) -> list[tuple[str, ...]]:
    sure = bounds(given, pair)
    error = math.sqrt(sure.consensus / given.n)
    return [
        ("(i)", f"{sure.auxiliary:.4g}", "||grad L_alpha||^2 at the agents' models", DERIVED),
        ("(ii)", f"{sure.consensus:.4g}", "sum_i ||x_i - mean x||^2", DERIVED),
        ("consensus", f"{error:.4g}", "root of (ii) / n, as 'compare' measures it", DERIVED),
        ("(iii)", f"{sure.average:.4g}", "||grad f||^2 at the mean model, f = sum_i f_i", DERIVED),
        ("(iii) again", f"{sure.sharper:.4g}", "the same by way of alpha^2", DERIVED),
        ("rate", "K^(-1/3)", "of (iii), if alpha ~ K^(-1/3) and gamma ~ K^(-2/3)", "arXiv:2505.10322"),
    ]


def _agents(graph: Topology) -> list[tuple[str, ...]]:
    most = max(len(graph.peers(i)) for i in range(graph.n))
    rows: list[tuple[str, ...]] = []
    for name, spec in ALGORITHMS.items():
        keeps = ["-" if (m := memory(spec, d)) is None else f"{m:.3g}" for d in (graph.degree, most)]
        sends = traffic(spec, graph.n, graph.degree)
        rows.append((name, *keeps, *(("-", "-") if sends is None else (f"{each:.3g}" for each in sends))))
    return rows


def _record(graph: Topology, given: Given, pair: Pair) -> dict[str, Any]:
    """Everything as JSON; a learning rate that is no number any more has its power of ten."""
    listed = {
        name: [asdict(rate) for rate in RATES[name](given)] if name in RATES else [] for name in ALGORITHMS
    }
    kept = {
        name: {"keeps": memory(spec, graph.degree), "sends": traffic(spec, graph.n, graph.degree)}
        for name, spec in ALGORITHMS.items()
    }
    numbers = {key: value for key, value in asdict(given).items() if key != "w"}
    return {
        "given": {"topology": graph.name, **numbers}, "weights": _weights(given), "rates": listed,
        "pair": {**asdict(pair), "theta": pair.theta}, "bounds": asdict(bounds(given, pair)), "agents": kept,
    }  # fmt: skip


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """The first column and numbers are never broken; text is."""
    words = 2 if len(heads) < 5 else len(heads)
    table = Table(
        title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD if any(heads) else None,
        pad_edge=False, padding=(0, 1), collapse_padding=True, show_header=any(heads),
    )  # fmt: skip
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if 0 < index < words else "left", no_wrap=index < words)
    for row in rows:
        table.add_row(*map(Text, row))
    return table
