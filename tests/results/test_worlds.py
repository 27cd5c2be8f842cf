"""The pictures of worlds on the page, and what is said beside them."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import networkx as nx
import pytest
from typer.testing import CliRunner

import offbeat
from offbeat import Comparison, World
from offbeat.cli.commands import app
from offbeat.results.graph import AGENTS, graph
from offbeat.results.happenings import ROWS, happenings, not_shown
from offbeat.results.page import page
from offbeat.results.world import WorldValues
from offbeat.results.worlds import SHOWN, in_words, pictures, seen
from offbeat.world.topology import build

SMALL: dict[str, Any] = {"task": "quadratic", "agents": 9, "until": 8, "eval_every": 4}
EVENTS: dict[str, Any] = {
    "event": ["agent 1 sends slower by 5 at 2 until 4", "cut {0,1} from the rest at 5"],
    "crash": ["agent 2 at 3 until 4"], "byzantine": ["agent 0 flips"],
}  # fmt: skip


@pytest.fixture(scope="module")
def plain() -> offbeat.Run:
    return offbeat.simulate("adsgd", **SMALL)


def with_world(run: offbeat.Run, **values: Any) -> offbeat.Run:
    return replace(run, world=WorldValues(**values))


def named(figure: Any) -> dict[str, Any]:
    return {trace.name: trace for trace in figure.data if trace.name}


def test_a_plain_world_is_its_graph_alone(plain: offbeat.Run) -> None:
    made = Comparison([plain])
    assert in_words(made) == []
    (((figure, caption),),) = pictures(made)
    assert caption == (
        "The communication graph, grid, of 9 agents: an edge between those that exchange models."
    )
    assert figure.data[0].x.count(None) == 12 and [*named(figure)["agent"].text] == [*map(str, range(9))]
    assert not figure.layout.showlegend
    alone = offbeat.simulate("adsgd", **SMALL | {"agents": 1, "topology": "complete"})
    assert pictures(Comparison([alone])) == [] and "The world</h2>" not in page(Comparison([alone]))


def test_the_slow_are_dark_and_their_numbers_white(plain: offbeat.Run) -> None:
    run = with_world(plain, computing=[1.0] * 4 + [10.0] + [1.0] * 4)
    marks = named(graph(run))["agent"]
    assert len({*marks.marker.color}) == 2 and marks.textfont.color[4] == "white" != marks.textfont.color[0]
    lightness = [sum(map(int, colour[4:-1].split(","))) for colour in marks.marker.color]
    assert lightness[4] < lightness[0] / 5
    assert len({*marks.marker.size}) == 1
    both = with_world(plain, computing=[1.0] * 8 + [2.0], sending=[1.0] * 7 + [4.0, 1.0])
    assert named(graph(both))["agent"].marker.size[7] > named(graph(both))["agent"].marker.size[0]


def test_edges_are_in_classes_of_what_differs(plain: offbeat.Run) -> None:
    links = plain.topology.links
    ends = {"from": [i for i, _ in links], "to": [j for _, j in links]}
    two = with_world(plain, links={**ends, "loss": [0.5 if 4 in link else 0.1 for link in links]})
    drawn = named(graph(two))
    assert drawn["0.1"].x.count(None) == 8 and drawn["0.5"].x.count(None) == 4
    assert drawn["0.5"].line.width > drawn["0.1"].line.width
    assert graph(two).layout.legend.title.text == "lost messages: "
    assert (
        "the larger its share of lost messages. Where its directions differ"
        in pictures(Comparison([two]))[0][0][1]
    )
    many = with_world(plain, links={**ends, "latency": [i + j / 100 for i, j in links]})
    names = [name for name in named(graph(many)) if " to " in name]
    assert len(names) == 4 and sum(named(graph(many))[name].x.count(None) for name in names) == 24
    said = graph(many).data[4].hovertext
    assert "0 to 1: latency 0.01<br>1 to 0: latency 1" in said


def test_each_half_of_an_edge_is_that_of_its_sender(plain: offbeat.Run) -> None:
    links = plain.topology.links
    ends = {"from": [i for i, _ in links], "to": [j for _, j in links]}
    run = with_world(plain, links={**ends, "loss": [0.9 * (link == (0, 1)) for link in links]})
    drawn, at = named(graph(run)), run.topology.positions()
    assert drawn["0"].x.count(None) == 12 and drawn["0.9"].x.count(None) == 1
    middle = ((at[0][0] + at[1][0]) / 2, (at[0][1] + at[1][1]) / 2)
    assert [*zip(drawn["0.9"].x[:2], drawn["0.9"].y[:2], strict=True)] == [at[0], middle]
    assert str(run.world) == "The share of lost messages is 0 to 0.9 (median 0) by link."


def test_a_torus_is_told_from_a_grid(plain: offbeat.Run) -> None:
    """The edges around it are bent, so that no edge lies on another."""
    torus = replace(plain, graph=build("torus", 9))
    drawn = graph(torus).data[0]
    parts = [part.split() for part in " ".join(map(str, drawn.x)).split("None")]
    assert sorted({len(part) for part in parts if part}) == [2, 17]
    assert graph(torus).to_json() == graph(replace(torus, graph=build("torus", 9))).to_json()


def test_a_directed_graph_has_arrows(plain: offbeat.Run) -> None:
    circle = replace(plain, graph=build(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), 3))
    arrows = graph(circle).layout.annotations
    assert len(arrows) == 3 and all(arrow.showarrow for arrow in arrows)


def test_what_happens_has_a_bar_from_when_until_when() -> None:
    figure = happenings(offbeat.simulate("adsgd", **SMALL, **EVENTS))
    assert figure is not None
    bars = named(figure)
    rows = [*figure.layout.yaxis.ticktext]
    assert rows == ["agent 0", "agent 1", "agent 2", "cut {0,1}"]
    found = {kind: (rows[bar.y[0]], bar.base[0], bar.base[0] + bar.x[0]) for kind, bar in bars.items()}
    assert found == {
        "down": ("agent 2", 3, 4), "slower": ("agent 1", 2, 4), "cut off": ("cut {0,1}", 5, 8),
        "Byzantine": ("agent 0", 0, 8),
    }  # fmt: skip
    assert bars["slower"].text == ("5× sending",)


def test_nothing_that_happens_is_no_figure_and_of_many_agents_some_are_shown(plain: offbeat.Run) -> None:
    assert happenings(plain) is None
    many = with_world(plain, crashes=[f"agent {agent} at 1" for agent in range(40)])
    figure = happenings(many)
    assert figure is not None and len(figure.layout.yaxis.ticktext) == ROWS
    assert not_shown(many) == 40 - ROWS
    assert "16 more agents are not shown" in pictures(Comparison([many]))[0][1][1]


def test_hundreds_of_agents_and_thousands_of_links_stay_quick(plain: offbeat.Run) -> None:
    def large(n: int, name: str) -> offbeat.Run:
        settings = plain.settings | {"agents": n, "topology": name}
        run = replace(plain, settings=settings, graph=build(name, n))
        return with_world(run, computing=[1.0 + agent / n for agent in range(n)])

    began = time.process_time()
    for run in (large(300, "torus"), large(AGENTS, "exponential")):
        ((drawn, caption), (sorted_times, _)), *_ = pictures(Comparison([run]))
        assert len(drawn.to_json()) < 200_000 and len(sorted_times.data[0].y) == run.settings["agents"]
        assert ("edges are not drawn" in caption) == (run.settings["topology"] == "exponential")
    (((only, _),),) = pictures(Comparison([large(1000, "ring")]))
    assert [*only.data[0].y] == sorted(only.data[0].y, reverse=True)
    assert time.process_time() - began < 10


def test_worlds_that_look_different_have_a_picture_each_and_those_alike_one() -> None:
    result = offbeat.compare(
        "adsgd", **SMALL, seeds=2, over={"topology": ["torus", "exponential"], "judge": ["average", "worst"]}
    )
    assert [each.label for each in seen(result)] == ["topology torus", "topology exponential"]
    ((one, other),) = pictures(result)
    assert one[1].startswith("<b>topology torus:</b> ") and other[1].startswith("<b>topology exp")
    slow = offbeat.compare("adsgd", **SMALL, seeds=2, case="combined", over={"slowdown": [2, 10]})
    assert in_words(slow) == [
        f"slowdown {k}, seed 0: Agent 4 needs {k} times as long for a gradient and to send a model."
        for k in (2, 10)
    ]
    many = offbeat.compare("adsgd", **SMALL, case="combined", over={"slowdown": [*range(2, 10)]})
    assert len([each for row in pictures(many) for each in row]) == SHOWN == len(in_words(many)) - 1
    assert pictures(many)[-1][-1][1].endswith("2 more worlds are not shown.")


def test_loaded_runs_show_the_same_and_the_terminal_says_it(tmp_path: Path) -> None:
    result = offbeat.compare("adsgd", **SMALL, **EVENTS, speeds="lognormal:0.5")
    result.save_json(tmp_path / "a.json")
    again = offbeat.load(tmp_path / "a.json")
    both = [
        [(figure.to_json(), caption) for figure, caption in pictures(each)[0]] for each in (result, again)
    ]
    assert both[0] == both[1] and len(both[0]) == 2
    text = page(again)
    (line,) = in_words(result)
    assert "<h2>The world</h2>" in text and f"<p>{line}</p>" in text
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "a.json")])
    assert line in " ".join(shown.output.split())


def test_a_graph_that_is_lost_leaves_what_happens() -> None:
    mine = nx.cycle_graph(4)
    run = offbeat.simulate(
        "adsgd", task="quadratic", topology=mine, until=4, world=World(slow_compute={1: 3.0})
    )
    (((figure, _),),) = pictures(Comparison([replace(run, graph=None)]))
    assert [*figure.data[0].y] == [3.0, 1.0, 1.0, 1.0]
