"""On and off times from a file."""

from pathlib import Path
from typing import Any

import pytest

import offbeat
from offbeat import Crash
from offbeat.core.errors import DataError
from offbeat.world.availability import read_availability

TEXT = """agent,on,off
0,0,10      # there from the start
0,15,30
2,5         # late, and stays
1,0,99
"""


def test_who_is_not_there_is_down(tmp_path: Path) -> None:
    path = tmp_path / "on.csv"
    path.write_text(TEXT)
    found = read_availability(path, 4, 50.0)
    assert found == (Crash(0, 10.0, 15.0), Crash(0, 30.0), Crash(2, 0.0, 5.0))
    assert read_availability(path, 4, 20.0) == (Crash(0, 10.0, 15.0), Crash(2, 0.0, 5.0))
    path.write_text("0,0,10\n0,10,20\n1,0,\n")
    assert read_availability(path, 2, 50.0) == (Crash(0, 20.0),), "spans that touch are one"


def test_a_run_heeds_it(tmp_path: Path) -> None:
    path = tmp_path / "on.csv"
    path.write_text(TEXT)
    common: dict[str, Any] = {"task": "quadratic", "agents": 4, "topology": "ring", "until": 40.0}
    run = offbeat.simulate("adsgd", availability=path, **common)
    assert run.trace is not None
    writes = run.trace.writes
    steps = {i: writes[(writes["agent"] == i)]["time"] for i in range(4)}
    assert not ((steps[0] > 10) & (steps[0] < 15)).any()
    assert not (steps[0] > 30).any()
    assert ((steps[0] > 15) & (steps[0] < 30)).any()
    assert steps[2].min() >= 5
    assert run.settings["availability"] == str(path)
    assert run.settings["crash"] == []
    again = offbeat.simulate(
        "adsgd", crash=["agent 0 at 10 until 15", "agent 0 at 30", "agent 2 at 0 until 5"], **common
    )
    assert again.digest == run.digest


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("", "it names no agent"),
        ("agent,on,off\n", "it names no agent"),
        ("0,1,2\n4,0,1\n", "line 2 has the agent '4'; expected 0 to 3"),
        ("0,5,5\n", "line 1 is on at 5 and off at 5; expected 0 <= on < off"),
        ("0,x,5\n", "line 1 has 'x', which is no number"),
        ("0,-1,5\n", "line 1 is on at -1"),
        ("0,nan,5\n", "line 1 is on at nan"),
        ("0,1,5\n0,4,6\n", "line 2 has agent 0 on at 4, and it is on until 5 already"),
        ("0\n", "line 1 has 1 values; expected agent,on,off"),
    ],
)
def test_other_files_are_refused_by_line(text: str, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "on.csv"
    path.write_text(text)
    with pytest.raises(DataError) as refused:
        read_availability(path, 4, 100.0)
    assert fragment in str(refused.value)
    assert str(path) in str(refused.value)
