"""`offbeat theory --table2` as text."""

from collections.abc import Mapping, Sequence

from offbeat.theory.table2 import GRAPHS, NO_FORMULA, Row

Section = tuple[str, Sequence[str], list[tuple[str, ...]]]

NOTES = (
    "Counted on runs of nine agents on a ring, a torus and a complete graph, with d neighbours each, or of a "
    "server with d workers; in brackets the formula. Kept: what a handler holds at most, its gradient and "
    "what it gives away with it (offbeat.theory.measured says exactly what counts). Sent: bytes of the trace "
    "over updates, in models. ADSGD saves: by how much its own number is smaller, for each d; -: it is not.",
    "No formula: " + "; ".join(f"{name}, {why}" for name, why in NO_FORMULA.items()) + ".",
)


def sections(found: Mapping[str, Mapping[int, Row]]) -> list[Section]:
    """Memory, messages, and traffic over links, each with two, four and eight neighbours."""
    heads = ("algorithm", *(f"d = {d}" for d in GRAPHS), "ADSGD saves")
    rows = {name: [each[d] for d in GRAPHS] for name, each in found.items()}
    counted = {name: [row.counted for row in each] for name, each in rows.items()}

    def section(title: str, names: str, formula: str) -> Section:
        values = {name: [getattr(c, names, None) for c in each] for name, each in counted.items()}
        lines = []
        for name, each in rows.items():
            cells = [_cell(v, getattr(r, formula)) for v, r in zip(values[name], each, strict=True)]
            lines.append((name, *cells, _saved(values["adsgd"], values[name])))
        return title, heads, lines

    return [
        section("Kept, in models", "keeps", "keeps"),
        section("Sent an update, in models, a multicast counted once", "sent", "sends"),
        section("Sent an update, in models, over all links", "carried", "carries"),
    ]


def _cell(value: float | None, formula: float | None) -> str:
    return "-" if value is None else _text(value) + (f" ({_text(formula)})" if formula is not None else "")


def _text(value: float) -> str:
    return f"{value:.0f}" if value == round(value) else f"{value:.2f}"


def _saved(adsgd: Sequence[float | None], other: Sequence[float | None]) -> str:
    shares = [1 - mine / its if mine and its else 0.0 for mine, its in zip(adsgd, other, strict=True)]
    if max(shares) < 0.005:
        return "-"
    return ", ".join(f"{100 * share:.0f}" if share > 0.005 else "-" for share in shares) + " %"
