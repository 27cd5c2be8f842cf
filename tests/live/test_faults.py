"""Faults on purpose: how they are read."""

import pytest

from offbeat.core.errors import SettingError
from offbeat.engines.live.node.faults import FORMS, Fault, Faults, parse_fault


def test_the_forms_that_errors_name_can_be_read() -> None:
    assert [parse_fault(form, 4) for form in FORMS] == [
        Fault("kill", 2, 100),
        Fault("stop", 1, 50, 5.0),
        Fault("slow", 3, 0, 10.0),
        Fault("kill", -1, 100, machine=1),
        Fault("cut", -1, 0, machine=1, between=(10.0, 20.0)),
    ]
    assert parse_fault("Slow agent 0 by 2.5 from step 7", 1) == Fault("slow", 0, 7, 2.5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kill agent", "Cannot read"),
        ("kill agent 2 by 3", "Cannot read"),
        ("slow agent 1 by 1.2.3", "Cannot read"),
        ("slow agent 1 by 0.5", "expected 1 or more"),
        ("kill agent 4 at step 1", "there is no agent 4"),
        ("stop agent 1 for 0 s", "expected more than 0"),
        ("stop agent 1 for " + "9" * 400 + " s", "at most 1,000,000"),
        ("slow agent 1 by " + "9" * 400, "at most 1,000,000"),
        ("kill agent 1 at step " + "9" * 5000, "Cannot read"),
        ("", "Cannot read"),
        ("cut machine 1 from 20 s to 10 s", "the first one before the other"),
        ("cut machine 1 from 1.2.3 s to 10 s", "the first one before the other"),
        ("cut machine 1", "Cannot read"),
        ("kill machine 2 at step 5", "no machine 2; they are 0 to 1"),
    ],
)
def test_anything_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingError, match=said):
        parse_fault(text, 4, machines=2)


def test_where_all_agents_are_on_this_machine_no_other_can_fail() -> None:
    with pytest.raises(SettingError, match="no machine 0; --ray runs agents on several"):
        parse_fault("kill machine 0", 4, machines=0)


def test_slowness_pads_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    monkeypatch.setattr("time.sleep", slept.append)
    faults = Faults([Fault("slow", 0, 2, 10.0)], first_life=False, since=100.0)
    for step in range(4):
        clock[0] += 0.5
        faults.before_step(step)
        faults.after_step()
    assert slept == [4.5, 4.5]


def test_a_later_life_is_killed_by_what_was_still_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Fault] = []
    monkeypatch.setattr("offbeat.engines.live.node.faults._happen", killed.append)
    faults = [Fault("kill", 0, 3), Fault("kill", 0, 5), Fault("kill", 0, 0)]
    first, again = Faults(faults), Faults(faults, first_life=False)
    for step in range(4):
        first.before_step(step)
    assert killed == [faults[2], faults[0]], "each once"
    for step in range(3, 9):
        again.before_step(step)
    assert killed[2:] == [faults[1]], "in its second life, that began after three steps"
