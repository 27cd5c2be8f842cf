"""`offbeat theory` as text and as JSON: what is known of a graph, of learning rates and of bounds."""

import json as json_format
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, Algorithm
from offbeat.cli.console import Out
from offbeat.cli.theory_table2 import Section
from offbeat.core.rounds import Rounds
from offbeat.theory.bounds import Given, Pair, bounds
from offbeat.theory.rates import DERIVED, RATES
from offbeat.theory.steps import tracked_step
from offbeat.theory.table2 import memory, traffic
from offbeat.world.changing import Graphs
from offbeat.world.topology import Topology

SOURCE = {
    "lambda_2": "how slowly mixing goes",
    "lambda_n": "the least eigenvalue",
    "1 - lambda_2": "in (ii) and (iii), below",
    "1 - max |lambda|": "spectral gap",
    "least w_ii": "what an agent keeps of its own model",
    "rho": "lambda_2 of the mean of averaging random pairs",
    "R-FAST's step": "in lr, if what is mixed is one round old; of 'rfast:matched' 1",
}

NOTES = (
    "derived here: worked out in offbeat.theory, whose tests hold runs to it. recalled: general knowledge of "
    "a publication that was not read again, and not its statement; uncertain: recalled too, its constants "
    "may be off, an order of magnitude at most. No delay of computing is in what has no B.",
    "keeps: model-sized vectors of an agent with as many neighbours as there are on average, and of the "
    "busiest; sends: models an update, a multicast counted once, and over all links: derived here, and "
    "counted by --table2.",
)
SHORT = (
    "B = {} is below the number of agents, {}: only where some write at the same instant does each write "
    "once in so few updates."
)
CHANGES = (
    "No one matrix has a spectrum here: what is known of learning rates, bounds and limits is of graphs that "
    "stand still. Algorithms that are not listed are defined on these only, or need no graph."
)


def show(graph: Topology, given: Given, pair: Pair, of_task: str) -> None:
    out, unknown = Out(), [name for name in ALGORITHMS if name not in RATES]
    said = f"{given.n} agents on {graph.name}; L = {given.L:g}, D = {given.D}, B = {given.B}, K = {given.K:,}"
    out.print(Text(f"{said}, start = {given.start:g}, sigma = {given.sigma:g}", "bold"))
    for title, heads, rows in _sections(graph, given, pair):
        out.print(as_table(title, heads, rows))
    short = SHORT.format(given.B, given.n) * (given.n > given.B)
    unsaid = f"No learning rate is known here of {', '.join(unknown)}." * bool(unknown)
    for note in filter(None, [of_task, *NOTES, short, unsaid]):
        out.print(Text(note, "dim"))


def show_changing(graph: Topology, rounds: Graphs, as_json: bool) -> None:
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
    out.print(as_table("Rounds", ("", "", ""), [
        ("period", period, "rounds until they begin again"),
        ("neighbours", f"{graph.degree:.3g}", "to whom an agent sends in a round, on average"),
        ("left", f"{left:.4g}", f"at most, {after}: 0 is an exact average"),
    ]))  # fmt: skip
    rows = []
    for name, spec in specs.items():
        numbers = memory(spec, graph.degree), _by_links(spec, graph)
        rows.append((name, *("-" if number is None else f"{number:.3g}" for number in numbers)))
    title = "An agent, in models: what it keeps, and sends an update by all links"
    out.print(as_table(title, ("algorithm", "keeps", "sends"), rows))
    out.print(Text(CHANGES, "dim"))


def _by_links(spec: Algorithm, graph: Topology) -> float | None:
    """Models an update over all links, of which some rounds may have none."""
    sends = traffic(spec, graph.n, graph.degree)
    return None if sends is None else sends[1]


def _sections(graph: Topology, given: Given, pair: Pair) -> list[Section]:
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
    values = (w.second, w.last, 1 - w.second, w.gap, w.own, w.pairs, tracked_step(w))
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


def record(graph: Topology, given: Given, pair: Pair) -> dict[str, Any]:
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


def as_table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Group:
    """The first column and numbers are never broken; text is, and the title only where the line ends."""
    words = 2 if len(heads) < 5 else len(heads)
    table = Table(
        box=SIMPLE_HEAD if any(heads) else None,
        pad_edge=False, padding=(0, 1), collapse_padding=True, show_header=any(heads),
    )  # fmt: skip
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if 0 < index < words else "left", no_wrap=index < words)
    for row in rows:
        table.add_row(*map(Text, row))
    return Group(Text(title, "bold"), table)
