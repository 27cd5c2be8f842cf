"""Columns go by their names, in any order."""

from itertools import permutations
from pathlib import Path

import pytest

from offbeat import Crash
from offbeat.core.errors import DataError, SettingError
from offbeat.core.system.streams import Purpose
from offbeat.world.availability import read_availability
from offbeat.world.graph_files import read
from offbeat.world.matrices import from_file
from offbeat.world.speeds import speeds
from offbeat.world.topology import build


def written(path: Path, head: tuple[str, ...], rows: list[dict[str, object]]) -> Path:
    lines = [",".join(head), *(",".join(str(row[name]) for name in head) for row in rows)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("value", ["value", "latency"])
def test_links(tmp_path: Path, value: str) -> None:
    rows: list[dict[str, object]] = [{"from": 1, "to": 0, value: 0.9}, {"from": 1, "to": 2, value: 0.1}]
    for head in permutations(("from", "to", value)):
        found = from_file(str(written(tmp_path / "l.csv", head, rows)), 3)
        assert (found(1, 0), found(1, 2)) == (0.9, 0.1), head
    written(
        tmp_path / "l.csv",
        ("To", "FROM", value),
        [{"To": 0, "FROM": 1, value: 1}, {"To": "*", "FROM": "*", value: 2}],
    )
    assert [from_file(str(tmp_path / "l.csv"), 4)(*link) for link in ((1, 0), (0, 1))] == [1, 2]


def test_availability(tmp_path: Path) -> None:
    for head in permutations(("agent", "on", "off")):
        path = written(
            tmp_path / "a.csv", head, [{"agent": 1, "on": 0, "off": 2}, {"agent": 3, "on": 0, "off": ""}]
        )
        assert read_availability(path, 4, 9.0) == (Crash(1, 2.0),), head
    (tmp_path / "a.csv").write_text("on,agent\n1,2\n")
    assert read_availability(tmp_path / "a.csv", 4, 9.0) == (Crash(2, 0.0, 1.0),)


def test_speeds_are_those_of_the_column_agent(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("agent,speed\n2,0.5\n0,1\n1,2\n")
    assert speeds("speeds", f"file:{path}:speed", 3, 0, Purpose.SPEED) == [1, 2, 0.5]
    path.write_text("agent,speed\n2,0.5\n0,1\n0,2\n")
    with pytest.raises(DataError, match=r"has the agents 2,0,0; expected 0 to 2, each in one line"):
        speeds("speeds", f"file:{path}:speed", 3, 0, Purpose.SPEED)


def test_graphs(tmp_path: Path) -> None:
    path = tmp_path / "g.csv"
    path.write_text("weight,to,from\n0.25,0,1\n0.5,1,2\n")
    graph, w = read(str(path))
    assert w is not None and (w[0, 1], w[2, 1]) == (0.25, 0.5)
    assert sorted(map(sorted, graph.edges)) == [[0, 1], [1, 2]]


@pytest.mark.parametrize("head", ["sender,receiver,value", "from,from,value", "from,to,value,unit"])
def test_other_names_are_refused(tmp_path: Path, head: str) -> None:
    path = tmp_path / "l.csv"
    path.write_text(f"{head}\n1,0,0.9{',1' * (head.count(',') - 2)}\n")
    with pytest.raises(
        DataError, match=f"line 1 (names the columns {head}; expected from,to,value|has 'from')"
    ):
        from_file(str(path), 3)
    path.write_text("node,on,off\n1,0,2\n")
    with pytest.raises(DataError, match="names the columns node,on,off; expected agent,on,off, in any order"):
        read_availability(path, 4, 9.0)
    path.write_text("from,to,value\n1,0\n")
    with pytest.raises(DataError, match="line 2 has 2 values; expected from,to,value"):
        from_file(str(path), 4)


@pytest.mark.parametrize("name", ["e.txt", "./e.txt", "e.edges", "e.tsv", "folder/e"])
def test_a_graph_whose_format_its_ending_does_not_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for said in ("no file", "a file"):
        with pytest.raises(
            SettingError, match=rf"^There is {said} {name}, but .* Expected \.edgelist .*\.gml"
        ):
            build(name, 3)
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("0 1\n1 2\n")


@pytest.mark.parametrize("name", ["rings", "random:0.3"])
def test_a_name_is_no_file(name: str) -> None:
    with pytest.raises(SettingError, match=r"^Unknown topology"):
        build(name, 3)
