"""Graphs that are named by their file."""

from pathlib import Path

import networkx as nx
import numpy as np
import pytest

from offbeat.core.errors import DataError, OffbeatError, SettingError
from offbeat.world.graph_files import file_of, read
from offbeat.world.topology import build


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_names_of_the_table_are_no_files() -> None:
    assert file_of("random-regular:4") is None and file_of("grid") is None
    assert [file_of(name) for name in ("a/b.GML", "g.py:f(k=2)")] == ["a/b.GML", "g.py"]


@pytest.mark.parametrize("suffix", ["graphml", "gml", "csv", "edgelist"])
def test_a_graph_is_the_one_that_was_written_and_keeps_its_numbers(suffix: str) -> None:
    graph = nx.relabel_nodes(nx.grid_2d_graph(3, 4), lambda node: 11 - 4 * node[0] - node[1])
    name = f"graph.{suffix}"
    if suffix == "csv":
        Path(name).write_text("From, To\n" + "".join(f"{i}, {j}\n" for i, j in graph.edges))
    else:
        getattr(nx, f"write_{suffix}")(graph, name)
    found, expected = build(name, 12), build(graph, 12)
    assert found.name == name
    assert {frozenset(edge) for edge in found.graph.edges} == {frozenset(edge) for edge in graph.edges}
    assert np.array_equal(found.dense_w(), expected.dense_w())


def test_graphml_and_gml_say_whether_they_are_directed_and_gml_needs_no_labels() -> None:
    ring = nx.relabel_nodes(nx.cycle_graph(4, create_using=nx.DiGraph), {0: "d", 1: "c", 2: "b", 3: "a"})
    nx.write_graphml(ring, "ring.graphml")
    assert build("ring.graphml", 4).graph.is_directed()
    edges = "".join(f"edge [ source {i} target {(i + 1) % 4} ]\n" for i in range(4))
    nodes = "".join(f"node [ id {i} ]\n" for i in range(4))
    Path("ring.gml").write_text(f"graph [ directed 1\n{nodes}{edges}]\n")
    assert sorted(build("ring.gml", 4).graph.edges) == [(0, 1), (1, 2), (2, 3), (3, 0)]


def test_weights_of_a_table_are_the_mixing_matrix() -> None:
    Path("g.csv").write_text("from,to,weight\n0,1,0.25\n1,2,0.5\n")
    w = build("g.csv", 3).dense_w()
    assert np.array_equal(w, [[0.75, 0.25, 0], [0.25, 0.25, 0.5], [0, 0.5, 0.5]])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "its first line is ''"),
        ("a,b\n0,1\n", "line 1 names the columns a,b; expected from,to,weight"),
        ("from,to\n0,1,2\n", "line 2 has 3 values; expected from,to"),
        ("from,to\n0,1\n1,0\n", "row 3 names the edge between 1 and 0 again; it is undirected"),
        ("from,to,weight\n0,1,x\n", "could not convert string to float"),
        ("from,to,weight\n0,1,-1\n", "row 2 has the weight -1, which is not 0 or more"),
        ("from,to,weight\n0,1,nan\n", "row 2 has the weight nan"),
        ("from,to,weight\n0,1,1\n", "the weights of node 0 sum to 1, not to less than 1"),
    ],
)
def test_a_table_that_is_no_graph_is_refused_with_its_row(text: str, said: str) -> None:
    Path("g.csv").write_text(text)
    with pytest.raises(DataError, match=said):
        build("g.csv", 2)


@pytest.mark.parametrize("name", ["g.gml", "g.graphml", "g.edgelist"])
def test_what_is_no_graph_is_an_error_of_ours(name: str) -> None:
    Path(name).write_bytes(b"\xff<x>0 1 2\n[")
    with pytest.raises(OffbeatError):
        build(name, 2)
    Path(name).unlink()
    with pytest.raises(SettingError, match="No such file"):
        build(name, 2)


def test_other_faults_are_as_of_any_graph() -> None:
    Path("g.edgelist").write_text("# two parts\n0 1\n\n2 3 {'weight': 1}\n")
    with pytest.raises(SettingError, match="The graph is not connected"):
        build("g.edgelist", 4)
    Path("g.edgelist").write_text("0 1\n")
    with pytest.raises(SettingError, match="has 2 nodes; expected 4"):
        build("g.edgelist", 4)


def test_code_of_ones_own_gives_a_graph_of_n_and_seed_or_has_one() -> None:
    Path("g.py").write_text(
        "import networkx as nx\nimport offbeat\n\n\ndef f(n, seed, k=2):\n"
        "    return nx.connected_watts_strogatz_graph(n, k, 0.5, seed=seed)\n\n\n"
        "def weighted(n):\n    return offbeat.with_weights(nx.path_graph(n), [[0.9, 0.1], [0.1, 0.9]])\n\n\n"
        "def unseeded(n):\n    return nx.connected_watts_strogatz_graph(n, 4, 0.9)\n\n\n"
        "def wrong():\n    return 3\n\n\npetersen = nx.petersen_graph()\n"
    )
    ours = nx.connected_watts_strogatz_graph(8, 4, 0.5, seed=7)
    assert sorted(build("g.py:f(k=4)", 8, seed=7).graph.edges) == sorted(ours.edges)
    assert build("g.py:weighted", 2).dense_w().tolist() == [[0.9, 0.1], [0.1, 0.9]]
    assert build("g.py:petersen", 10).name == "g.py:petersen"
    assert sorted(build("g.py:unseeded", 9, 1).graph.edges) == sorted(
        build("g.py:unseeded", 9, 2).graph.edges
    )
    for text, said in [
        ("wrong", "gives a int; expected a networkx graph"),
        ("petersen(k=1)", "takes no options"),
    ]:
        with pytest.raises(SettingError, match=said):
            build(f"g.py:{text}", 9)


def test_where_nodes_are_numbers_no_head_is_needed(tmp_path: Path) -> None:
    """As in files of links."""
    bare, headed = tmp_path / "bare.csv", tmp_path / "headed.csv"
    for lines, head in (("0,1\n1,2\n", "from,to\n"), ("0,1,0.25\n1,2,0.5\n", "from,to,weight\n")):
        bare.write_text(lines)
        headed.write_text(head + lines)
        (graph, w), (same, v) = read(str(bare)), read(str(headed))
        assert [*graph.edges] == [*same.edges] == [(0, 1), (1, 2)]
        assert repr(w) == repr(v)
