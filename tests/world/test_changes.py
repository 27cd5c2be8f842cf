"""What changes while a run goes on, and who misbehaves: said in words, and checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offbeat import Crash, SettingError, World
from offbeat.world.changes import Byzantine, Change, Cut, Slowdown, parse_byzantine, parse_change
from offbeat.world.per_link import PerLink
from offbeat.world.world import parse_crash

AGENT = st.integers(0, 10**6)
SPANS = st.tuples(st.floats(0, 1e9), st.none() | st.floats(1e-3, 1e9)).map(
    lambda span: (span[0], None if span[1] is None else span[0] + span[1])
)
FACTORS = st.floats(1e-3, 1e9)
SLOWDOWNS = st.builds(
    lambda agent, factor, span, does: Slowdown(agent, factor, *span, *does),
    AGENT, FACTORS, SPANS, st.sampled_from([(True, True), (True, False), (False, True)]),
)  # fmt: skip
CUTS = st.builds(lambda group, span: Cut(group, *span), st.frozensets(AGENT, min_size=1), SPANS)
POSITIVE = st.floats(0, 1e300, exclude_min=True)
BYZANTINES = st.builds(Byzantine, AGENT, scale=POSITIVE) | st.builds(Byzantine, AGENT, noise=POSITIVE)


@given(SLOWDOWNS | CUTS)
def test_a_change_is_read_as_it_says_itself(change: Change) -> None:
    assert parse_change(str(change)) == change


@given(BYZANTINES)
def test_a_byzantine_agent_is_read_as_it_says_itself(byzantine: Byzantine) -> None:
    assert parse_byzantine(str(byzantine)) == byzantine


@given(AGENT, SPANS)
def test_a_crash_is_read_as_it_says_itself(agent: int, span: tuple[float, float | None]) -> None:
    assert parse_crash(str(Crash(agent, *span))) == Crash(agent, *span)


def test_words_that_are_meant() -> None:
    assert parse_change("agent 3 slows by 5 at 100 until 200") == Slowdown(3, 5.0, 100.0, 200.0)
    assert parse_change("3 computes slower by 5 at 1e2") == Slowdown(3, 5.0, 100.0, sends=False)
    assert parse_change("Agent 3 Sends slower by .5 at 0") == Slowdown(3, 0.5, 0.0, computes=False)
    assert parse_change("cut {0, 1,2} from the rest at 1") == Cut(frozenset({0, 1, 2}), 1.0)
    assert parse_change("cut 4 from the rest at 1 until 2") == Cut(frozenset({4}), 1.0, 2.0)
    assert parse_byzantine("agent 3 flips") == Byzantine(3, scale=1.0)
    assert parse_byzantine("3 adds noise 0.5") == Byzantine(3, noise=0.5)


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("agent 3 slows at 100", "expected 'agent 3 slows by 5 at 100 until 200'"),
        ("agent 3 slows by x at 100", "Cannot read the event"),
        ("agent x slows by 5 at 100", "Cannot read the event"),
        ("agent 3 slows by 0 at 100", "between 0.001 and 10^9; got 0.0"),
        ("agent 3 slows by nan at 100", "got nan"),
        ("agent 3 slows by 5 at -1", "begins at -1.0; expected a finite time >= 0"),
        ("agent 3 slows by 5 at 200 until 100", "begins at 200.0 and ends at 100.0; expected a later end"),
        ("cut {} from the rest at 1", "Cannot read the event"),
        ("cut {1,,2} from the rest at 1", "Cannot read the event"),
        ("cut {1} from the rest at inf", "expected a finite time"),
        ("", "Cannot read the event ''"),
        ("agent 3 crashes at 5 until 10", "Agents crash by --crash 'agent 3 at 5 until 10'"),
    ],
)
def test_other_words_are_refused(text: str, fragment: str) -> None:
    with pytest.raises(SettingError) as refused:
        parse_change(text)
    assert fragment in str(refused.value)


@pytest.mark.parametrize("text", ["agent 3", "agent 3 flips x", "agent 3 adds noise nan", "flips", "3 lies"])
def test_other_misbehaviour_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match="Byzantine agent"):
        parse_byzantine(text)


@pytest.mark.parametrize(
    ("world", "fragment"),
    [
        (World(changes=(Slowdown(3, 2.0, 0.0),)), "'agent 3 slows by 2 at 0': There is no agent 3"),
        (World(changes=(Cut(frozenset({0, 5}), 1.0),)), "There is no agent 5: with 3 agents they are 0 to 2"),
        (World(changes=(Cut(frozenset({0, 1, 2}), 1.0),)), "leaves no rest: there are 3 agents"),
        (World(byzantine=(Byzantine(7, scale=1.0),)), "'agent 7 flips': There is no agent 7"),
        (World(byzantine=(Byzantine(1, scale=1.0), Byzantine(1, noise=1.0))), "is named twice"),
        (World(latency=PerLink(0.0, {(0, 3): 1.0}, "lat.csv")), "lat.csv: There is no agent 3"),
    ],
)
def test_a_world_speaks_of_agents_that_exist(world: World, fragment: str) -> None:
    with pytest.raises(SettingError) as refused:
        world.check(3)
    assert fragment in str(refused.value)


@pytest.mark.parametrize(
    ("given", "fragment"),
    [
        ({"latency": -1.0}, "The latency is -1.0; expected a number from 0 to 1e+09"),
        ({"latency": PerLink(0.0, {(0, 1): float("nan")})}, "The latency from agent 0 to 1 is nan"),
        ({"bandwidth": 0.0}, "The bandwidth is 0.0"),
        ({"loss": PerLink(0.0, {(2, 1): 1.5})}, "agent 2 to 1 is 1.5; expected a number from 0 to 1"),
        ({"sending": "unicst"}, "Did you mean 'unicast'"),
        ({"network": "fare"}, "Unknown network 'fare'"),
    ],
)
def test_numbers_and_words_of_a_world_are_checked(given: dict[str, object], fragment: str) -> None:
    with pytest.raises(SettingError) as refused:
        World(**given)  # type: ignore[arg-type]
    assert fragment in str(refused.value)


def test_a_slowdown_slows_something() -> None:
    with pytest.raises(SettingError, match="got neither"):
        Slowdown(0, 2.0, 0.0, computes=False, sends=False)
