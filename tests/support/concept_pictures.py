"""The pictures of docs/concepts.md: a step, why nobody waits, how old a model is. The last two are of runs.

python tests/support/concept_pictures.py      # draws them again; `make docs` does so too
"""

from html import escape
from pathlib import Path

import offbeat
from offbeat.engines.events import GradientDone, rows_of

DOCS = Path(__file__).parents[2] / "docs"
WIDE, LEFT, ROW, BAR = 660, 74, 26, 18
STYLE = """
text { font: 14px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
.small { font-size: 12px; fill: #57606a }
.name { font-weight: 600 }
.inside { fill: #ffffff }
.busy { fill: #0550ae; stroke: #ffffff }
.idle { fill: #eac54f }
.box { fill: #f6f8fa; stroke: #8c959f }
.line { fill: none; stroke: #8c959f; stroke-width: 1.2 }
.way { fill: none; stroke: #bc4c00; stroke-width: 2 }
.dot { fill: #1f2328 } .hot { fill: #bc4c00 } text.hot { font-weight: 600 }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc } .small { fill: #9198a1 } .busy { fill: #316dca; stroke: #0d1117 }
  .idle { fill: #9e6a03 } .box { fill: #151b23; stroke: #656c76 } .line { stroke: #656c76 }
  .way { stroke: #f0883e } .dot { fill: #f0f6fc } .hot { fill: #f0883e }
}
"""
Drawn = list[str]


def picture(title: str, high: float, drawn: Drawn) -> str:
    """All of it, on nothing: the page's own background shows."""
    heads = "".join(
        f'<marker id="{name}" markerWidth="8" markerHeight="8" refX="6" refY="4" orient="auto">'
        f'<path class="{fill}" d="M0 0 L8 4 L0 8 z"/></marker>'
        for name, fill in (("to", "dot"), ("by", "hot"))
    )
    size = f'viewBox="0 0 {WIDE} {high:g}" width="{WIDE}" height="{high:g}"'
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img"><title>{escape(title)}</title>'
    return "\n".join([opening, f"<style>{STYLE}</style>", f"<defs>{heads}</defs>", *drawn, "</svg>\n"])


def word(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    of = f' class="{kind}"' if kind else ""
    return f'<text{of} x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'


def bar(x: float, y: float, wide: float, kind: str, high: float = BAR) -> str:
    return f'<rect class="{kind}" x="{x:.1f}" y="{y:g}" width="{wide:.1f}" height="{high:g}" rx="2"/>'


def arrow(path: str, hot: bool = False) -> str:
    kind, head = ("way", "by") if hot else ("line", "to")
    return f'<path class="{kind}" d="{path}" marker-end="url(#{head})"/>'


# -- a step ----------------------------------------------------------------------------------------


def step() -> str:
    """What an agent does, and what reaches it meanwhile: a scheme, not a run."""
    begin, end, last = 40.0, 400.0, WIDE - 24.0
    drawn = [
        bar(begin, 150, end - begin, "busy", 34),
        word((begin + end) / 2, 172, "agent i: gradient g at its own model x", "inside", "middle"),
        bar(end + 8, 150, last - end - 8, "busy", 34),
        word((end + 8 + last) / 2, 172, "the next one, at the new x", "inside", "middle"),
    ]
    for name, top, times in (("j", 14, (120, 265)), ("k", 70, (190,))):
        drawn.append(bar(begin, top, end - begin, "box", 34))
        drawn.append(word(begin + 8, top + 22, f"from {name}:", "small"))
        for count, x in enumerate(times):
            newest = count == len(times) - 1
            kind = "hot" if newest else "small"
            drawn.append(f'<circle class="{"hot" if newest else "dot"}" cx="{x}" cy="{top + 17}" r="5"/>')
            drawn.append(word(x + 10, top + 22, "is mixed" if newest else "is replaced", kind))
        drawn.append(arrow(f"M{end:g} {top + 17} H{end + 34:g} V142", hot=True))
    drawn += [
        word(end + 46, 62, "mix and step", "name"),
        word(end + 46, 84, "x ← Σ w x − lr g"),
        word(end + 46, 106, "of its own, j's and k's newest", "small"),
        arrow(f"M{end + 34:g} 186 V226", hot=True),
        word(end + 46, 218, "x goes to the neighbours", "hot"),
        word(begin, 210, "time →", "small"),
    ]
    return picture("A step of an agent of ADSGD", 240, drawn)


# -- of runs ---------------------------------------------------------------------------------------


def run(algorithm: str, until: float, bandwidth: str) -> offbeat.Run:
    """Four agents in a ring, the last of which computes three times slower."""
    return offbeat.simulate(
        algorithm, task="quadratic", agents=4, topology="ring", case="comp-straggler", straggler="3",
        slowdown=3, communication="constant", bandwidth=bandwidth, until=until,
    )  # fmt: skip


def traced(made: offbeat.Run) -> offbeat.Trace:
    assert made.trace is not None
    return made.trace


def lanes(trace: offbeat.Trace, top: float, until: float) -> Drawn:
    """A lane for each agent: when it computed, from its gradients; in between it waited."""
    scale, drawn = (WIDE - LEFT - 14) / until, Drawn()
    done = rows_of(trace.events, GradientDone)
    for agent in range(trace.agents):
        y, free = top + ROW * agent, 0.0
        slow = ", slow" if agent == trace.agents - 1 else ""
        drawn.append(word(LEFT - 8, y + 14, f"{agent}{slow}", "small", "end"))
        for start, end in done[done["agent"] == agent][["start", "end"]].tolist():
            for kind, since, to in (("idle", free, start), ("busy", start, end)):
                if min(to, until) > since:
                    drawn.append(bar(LEFT + scale * since, y, scale * (min(to, until) - since), kind))
            free = end
    return drawn


def waiting() -> str:
    """Three algorithms in the same world."""
    until, drawn, y = 12.0, Drawn(), 10.0
    for name, why in (
        ("adsgd", "waits for nobody"),
        ("dsgd", "waits for its neighbours, each round"),
        ("allreduce", "waits for everybody, each round"),
    ):
        trace = traced(run(name, 2 * until, "4"))
        drawn += [
            word(LEFT, y + 14, name, "name"),
            word(
                LEFT + 78,
                y + 14,
                f"{why}: {trace.updates(until).sum()} gradients applied by time {until:g}",
                "small",
            ),
            *lanes(trace, y + 24, until),
        ]
        y += 24 + 4 * ROW + 16
    drawn += [bar(LEFT, y, 16, "busy"), word(LEFT + 24, y + 14, "computes a gradient", "small")]
    drawn += [bar(LEFT + 180, y, 16, "idle"), word(LEFT + 204, y + 14, "waits", "small")]
    drawn.append(word(WIDE - 14, y + 14, "time →", "small", "end"))
    return picture("Who computes and who waits, with one slow agent", y + 30, drawn)


AGED = 17
"""The iteration of which docs/concepts.md speaks."""


def staleness() -> str:
    """Which versions one update mixes, and what their authors have made since."""
    until, high = 7.0, 46.0
    trace = traced(run("adsgd", until, "1"))
    scale, top = (WIDE - LEFT - 14) / until, 30.0
    rows = trace.table()
    at = {row["k"]: (LEFT + scale * row["time"], top + high * row["agent"]) for row in rows}
    made = {(row["agent"], row["step"]): row["k"] for row in rows}
    drawn = Drawn()
    for agent in range(trace.agents):
        y = top + high * agent
        drawn.append(word(LEFT - 8, y + 5, f"agent {agent}", "small", "end"))
        drawn.append(f'<path class="line" d="M{LEFT} {y:g} H{WIDE - 14}"/>')
    (update,) = (row for row in rows if row["k"] == AGED)
    mixed = {made[source, version] for source, version in update["versions"].items()}
    for k in sorted(mixed):
        (x, y), (x2, y2) = at[k], at[AGED]
        bend = 0.4 * (x2 - x)
        drawn.append(
            arrow(f"M{x:.1f} {y:g} C{x + bend:.1f} {y:g} {x2 - bend:.1f} {y2:g} {x2 - 8:.1f} {y2:g}", True)
        )
    for k, (x, y) in at.items():
        hot = k in mixed or k == AGED
        drawn.append(
            f'<circle class="{"hot" if hot else "dot"}" cx="{x:.1f}" cy="{y:g}" r="{6 if hot else 4}"/>'
        )
        drawn.append(word(x, y - 10, str(k), "hot" if hot else "small", "middle"))
    end = top + high * trace.agents
    drawn.append(word(WIDE - 14, end - 12, "time →", "small", "end"))
    return picture("Which models an update mixes, and how old they are", end, drawn)


PICTURES = {"step": step, "waiting": waiting, "staleness": staleness}
"""Of docs/concepts.md, by the name of the file."""


def drawn() -> dict[Path, str]:
    return {DOCS / f"{name}.svg": draw() for name, draw in PICTURES.items()}


if __name__ == "__main__":
    for path, text in drawn().items():
        path.write_text(text, "utf-8")
