"""The picture of the rooms, docs/rooms.svg, from the table of who may import whom and from the source.

python tests/support/picture.py      # draws it again; `make docs` does so too
"""

import ast
from html import escape
from itertools import combinations, pairwise, permutations
from textwrap import wrap

import networkx as nx
from rooms import ROOMS, ROOT, SOURCE

PICTURE = SOURCE.parent / "docs" / "rooms.svg"
WIDE, GAP, HIGH, LINE, CHARACTERS = 244, 18, 46, 15, 36
STYLE = """
text { font: 12px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #57606a }
.name { font-size: 16px; font-weight: 600; fill: #1f2328 }
.files { font-family: ui-monospace, "DejaVu Sans Mono", Consolas, monospace; font-size: 10px }
rect { fill: #f6f8fa; stroke: #8c959f }
path { fill: none; stroke: #0969da; stroke-width: 1.4 }
#head path { fill: #0969da; stroke: none }
@media (prefers-color-scheme: dark) {
  text { fill: #9198a1 } .name { fill: #f0f6fc } rect { fill: #151b23; stroke: #656c76 }
  path { stroke: #4493f8 } #head path { fill: #4493f8 }
}
"""

Row = list[str]


def arrows() -> nx.DiGraph:
    """Who imports whom, without the arrows that others imply."""
    graph = nx.DiGraph((a, b) for a, allowed in ROOMS.items() for b in allowed.split())
    return nx.transitive_reduction(graph)


def layered(graph: nx.DiGraph) -> tuple[nx.DiGraph, list[Row]]:
    """The rooms from the bottom up, each above all that it imports, in an order in which few arrows cross.

    An arrow over several layers leads through a gap in each between, a node of its own.
    """
    depth: dict[str, int] = {}
    for room in reversed(list(nx.lexicographical_topological_sort(graph))):
        depth[room] = 1 + max((depth[below] for below in graph[room]), default=-1)
    through = nx.DiGraph()
    for a, b in sorted(graph.edges):
        gaps = {f"{a} > {b} {d}": d for d in range(depth[a] - 1, depth[b], -1)}
        depth |= gaps
        nx.add_path(through, [a, *gaps, b])
    rows = [sorted(room for room in depth if depth[room] == d) for d in range(max(depth.values()) + 1)]

    def untidiness(rows: list[Row]) -> float:
        """Crossings first, then length."""
        at = {room: k - len(row) / 2 for row in rows for k, room in enumerate(row)}
        pairs = [(a, b) for a, b in combinations(through.edges, 2) if depth[a[0]] == depth[b[0]]]
        crossed = sum((at[a[0]] - at[b[0]]) * (at[a[1]] - at[b[1]]) < 0 for a, b in pairs)
        return crossed + 0.01 * sum(abs(at[a] - at[b]) for a, b in through.edges)

    for k in [*range(len(rows)), *reversed(range(len(rows)))] * 2:
        orders = (list(order) for order in permutations(rows[k]))
        rows[k] = min(orders, key=lambda order: untidiness([*rows[:k], order, *rows[k + 1 :]]))
    return through, rows


def texts(room: str) -> tuple[Row, Row]:
    """What its head says it is for, and what lies in it; nothing of a gap."""
    if room not in ROOMS:
        return [], []
    folder = SOURCE / ROOT / room.replace(".", "/")
    said = (ast.get_docstring(ast.parse((folder / "__init__.py").read_text("utf-8"))) or "").splitlines()[0]
    inside = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    folders = sorted(path.parent.name for path in folder.glob("*/__init__.py"))
    inside += [f"{name}/" for name in folders if f"{room}.{name}" not in ROOMS]
    return wrap(said.replace("`", ""), CHARACTERS), wrap(" ".join(inside), CHARACTERS)


def wide(room: str) -> int:
    return WIDE if room in ROOMS else 4


def box(room: str, x: float, y: float, high: float) -> Row:
    said, files = texts(room)
    drawn = [f'<rect x="{x:g}" y="{y:g}" width="{WIDE}" height="{high}" rx="7"/>']
    drawn.append(f'<text class="name" x="{x + 10:g}" y="{y + 22:g}">{room.replace(".", "/")}</text>')
    for k, line in enumerate(said + files):
        kind = ' class="files"' if k >= len(said) else ""
        drawn.append(f'<text{kind} x="{x + 10:g}" y="{y + 40 + LINE * k:g}">{escape(line)}</text>')
    return drawn


def picture() -> str:
    """All rooms, the highest on top."""
    graph = arrows()
    through, rows = layered(graph)
    total = max(sum(wide(room) + GAP for room in row) for row in rows) + GAP
    place: dict[str, tuple[float, float, float]] = {}  # left, top, bottom
    drawn, y = Row(), float(GAP)
    for row in reversed(rows):
        high = 34 + LINE * max(sum(map(len, texts(room))) for room in row)
        x = (total - sum(wide(room) + GAP for room in row) + GAP) / 2
        for room in row:
            place[room] = (x, y, y + high)
            drawn += box(room, x, y, high) if room in ROOMS else []
            x += wide(room) + GAP
        y += high + HIGH

    def port(room: str, other: str, up: bool) -> float:
        """Where on its edge the arrow between the two begins or ends: in the order of the other ends."""
        others = sorted(through.predecessors(room) if up else through[room], key=lambda end: place[end][0])
        return place[room][0] + wide(room) * (others.index(other) + 1) / (len(others) + 1)

    for a, b in sorted(graph.edges):
        (way,) = nx.all_simple_paths(
            through.subgraph([a, b, *(n for n in through if f"{a} > {b} " in n)]), a, b
        )
        line = f"M{port(a, way[1], up=False):g} {place[a][2]:g}"
        for upper, lower in pairwise(way):
            start, end = port(upper, lower, up=False), port(lower, upper, up=True)
            top, bottom = place[upper][2], place[lower][1] - (6 if lower == b else 0)
            line += f" V{top:g} C{start:g} {top + 24:g} {end:g} {bottom - 24:g} {end:g} {bottom:g}"
        drawn.append(f'<path d="{line}" marker-end="url(#head)"><title>{a} imports {b}</title></path>')
    head = '<marker id="head" markerWidth="7" markerHeight="7" refX="2" refY="3" orient="auto">'
    head += '<path d="M0 0 L6 3 L0 6 z"/></marker>'
    size = f'viewBox="0 0 {total} {y - HIGH + GAP:g}" width="{total}"'
    title = "The rooms of offbeat: an arrow leads to what is imported; those that others imply are left out."
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{title}</title>'
    return "\n".join([opening, f"<style>{STYLE}</style>", f"<defs>{head}</defs>", *drawn, "</svg>\n"])


if __name__ == "__main__":
    PICTURE.write_text(picture(), "utf-8")
    print(f"Written: {PICTURE}")
