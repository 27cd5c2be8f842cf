"""Links with latency and bandwidth each, unicast, slowdowns, cuts, Byzantine agents: times by hand, what must
be conserved, and what must come to the same.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ALL, models, quadratic, started
from scripted import CONSTANT, Scripted, logs, tables, when
from under_way import Nothing, array, on_their_way, tracked_mass
from worlds import GRAPHS, LINKS, WORLDS

from offbeat import Crash, Delay, Vector, World
from offbeat.core.pairs import Moved
from offbeat.core.system.streams import Purpose, stream
from offbeat.engines.events import GradientDone, MailReceived, RegisterRead, rows_of
from offbeat.world.changes import Byzantine, Cut, Slowdown, finish
from offbeat.world.per_link import PerLink

# -- times by hand ---------------------------------------------------------------------------------


def test_each_link_has_a_latency_and_a_bandwidth_and_the_server_waits_for_the_slowest() -> None:
    """t + d s / bandwidth_ij + latency_ij; free at t + d s / min bandwidth."""
    bandwidth, latency = PerLink(1.0, {(0, 1): 0.5, (0, 2): 2.0}), PerLink(0.0, {(0, 1): 0.25, (0, 2): 7.0})
    _, one, two = logs(replace(CONSTANT, bandwidth=bandwidth, latency=latency), 13.0)
    assert when(one) == [(1 + 2 + 0.25, 1), (3 + 2 + 0.25, 2), (5 + 2.25, 3), (7 + 2.25, 4), (9 + 2.25, 5)]
    assert when(two) == [(1 + 0.5 + 7, 1), (3 + 7.5, 2), (5 + 7.5, 3)]


def test_unicast_takes_one_transmission_for_each_receiver_in_their_order() -> None:
    _, one, two = logs(replace(CONSTANT, sending="unicast", communication=Delay("constant", 0.5)), 4.2)
    assert when(one) == [(1.5, 1), (2.5, 2), (3.5, 3)]
    assert when(two) == [(2.0, 1), (3.0, 2), (4.0, 3)]


def test_a_waiting_copy_of_a_register_is_replaced_for_each_receiver_and_keeps_its_place() -> None:
    """The link is busy for 1.6 of every gradient: a copy for each leaves as the newest that there is."""
    world = replace(CONSTANT, sending="unicast", communication=Delay("constant", 0.8))
    sim = started(Scripted("publish"), quadratic(3), world, "complete")
    sim.run(7.9)
    sent = [round(time, 9) for time in sim.recorder.trace().transmissions["start"]]
    assert sent == [1.0, 1.8, 2.6, 3.4, 4.2, 5.0, 5.8, 6.6, 7.4]
    agents: Sequence[Any] = sim.agents
    assert when(agents[1].log) == [(2.0, 1), (4.0, 2), (6.0, 4), (7.0, 5)]
    assert when(agents[2].log) == [(3.0, 1), (5.0, 3), (6.0, 5)]
    assert sim.counts()[1:] == (9, 9 * 24)


def test_what_is_accumulated_arrives_once_at_each_receiver_by_unicast() -> None:
    world = replace(CONSTANT, sending="unicast", communication=Delay("constant", 0.8))
    sim = started(Scripted("accumulate"), quadratic(3), world, "complete")
    sim.run(40.5)
    agents: Sequence[Any] = sim.agents
    for agent in agents[1:]:
        waiting = [item for item in on_their_way(sim) if agent.me in item.to]
        values = [value for _, _, value in agent.log] + [array(item.message.x)[0] for item in waiting]
        assert sum(values) == 40


@pytest.mark.parametrize(
    ("slowdowns", "start", "work", "end"),
    [
        ([(5.0, 2.0, 4.0)], 0.0, 1.0, 1.0),
        ([(5.0, 2.0, 4.0)], 1.0, 1.2, 3.0),
        ([(5.0, 2.0, 4.0)], 1.0, 2.0, 1 + 3 + 0.6),
        ([(5.0, 2.0, 4.0)], 3.0, 0.1, 3.5),
        ([(5.0, 2.0, None)], 1.0, 2.0, 7.0),
        ([(5.0, 2.0, None), (0.2, 3.0, 4.0)], 1.0, 2.0, 3.0 + 0.8),
        ([(2.0, 2.0, 4.0), (3.0, 3.0, 5.0)], 0.0, 3.0, 5 + (3 - 2 - 0.5 - 1 / 6 - 1 / 3)),
        ([(4.0, 1.0, 2.0)], 2.0, 1.0, 3.0),
    ],
)
def test_something_ends_when_the_integral_of_the_speed_is_its_length(
    slowdowns: list[tuple[float, float, float | None]], start: float, work: float, end: float
) -> None:
    assert finish(start, work, [Slowdown(0, *each) for each in slowdowns]) == pytest.approx(end, abs=1e-12)


def test_slowdowns_hold_for_what_is_going_on_when_they_begin() -> None:
    changes = (Slowdown(0, 4.0, 2.5, 6.5, sends=False), Slowdown(0, 2.0, 1.5, 2.5, computes=False))
    sim = started(Scripted(), quadratic(3), replace(CONSTANT, changes=changes), "complete")
    sim.run(8.6)
    done = rows_of(sim.recorder.trace().events, GradientDone)
    assert done["end"][done["agent"] == 0].tolist() == [1.0, 2.0, 2.5 + 4 * 0.5, 6.5 + 0.5, 8.0]
    sent = sim.recorder.trace().transmissions
    assert sent["end"].tolist() == [1.5 + 2 * 0.5, 3.5, 5.5, 8.0, 9.0]


@pytest.mark.parametrize("medium", ["send", "accumulate", "publish"])
def test_over_a_link_that_is_cut_mail_arrives_later_in_order_and_registers_do_not(medium: str) -> None:
    """Agents 0 and 1 are together, 2 is not; then 2 is alone again, before the first cut has ended."""
    cuts = (Cut(frozenset({0, 1}), 2.5, 5.5), Cut(frozenset({2}), 5.0, 6.25))
    _, one, two = logs(replace(CONSTANT, changes=cuts, compute=Delay("constant", 0.9)), 9.0, medium)
    everything = when(logs(replace(CONSTANT, compute=Delay("constant", 0.9)), 9.0, medium)[1])
    assert when(one) == everything
    if medium == "publish":
        read = [(round(time, 9), n) for time, n in when(two)]
        assert read == [(2.7, 1), (7.2, 6), (8.1, 7)], "it arrives at 1.9, 6.9, 7.9"
    else:
        assert when(two) == [(time if not 2.5 <= time < 6.25 else 6.25, n) for time, n in everything]


def test_mail_in_a_cut_for_good_never_arrives_and_a_barrier_stands_still() -> None:
    cut = replace(CONSTANT, changes=(Cut(frozenset({0}), 3.0),))
    sim = started("dsgd", quadratic(3), cut, "complete")
    sim.run(50)
    assert max(sim.steps) <= 4
    assert "no agent computes or will be woken" in (sim.stalled() or "")


def test_mail_that_a_cut_held_up_is_before_what_was_sent_later() -> None:
    """With a latency of 4 the second letter would arrive at the very end of the cut."""
    world = replace(CONSTANT, latency=4.0, changes=(Cut(frozenset({1}), 5.5, 7.0),))
    log = when(logs(world, 9.0)[1])
    assert log == [(7.0, 1), (7.0, 2), (8.0, 3), (9.0, 4)]


def test_messages_of_numbers_alone_take_a_latency_and_nothing_else() -> None:
    sim = started("allreduce", quadratic(9), replace(CONSTANT, latency=0.5), "ring")
    sim.run(30)
    letters = rows_of(sim.recorder.trace().events, MailReceived)
    assert {round(v, 9) for v in letters["end"] - letters["start"]} == {0.5, round(0.5 + 1 / 3, 9)}


# -- Byzantine agents --------------------------------------------------------------------------------


def test_a_byzantine_agent_sends_another_vector_and_keeps_its_own() -> None:
    _, one, two = logs(replace(CONSTANT, byzantine=(Byzantine(0, scale=3.0),)), 5.0)
    assert [value for _, _, value in one] == [value for _, _, value in two] == [-3.0] * 4
    sim = started("adsgd", quadratic(2), replace(CONSTANT, byzantine=(Byzantine(0, scale=1.0),)), "chain")
    honest = started("adsgd", quadratic(2), CONSTANT, "chain")
    for each in (sim, honest):
        each.run(1.5)
    assert models(sim).tolist() == models(honest).tolist(), "nobody has heard anything yet"
    assert sim.recorder.trace().digest() == honest.recorder.trace().digest()
    for each in (sim, honest):
        each.run(9.5)
    assert sim.recorder.trace().digest() == honest.recorder.trace().digest(), "the times, and the versions"
    assert not np.allclose(models(sim), models(honest))


@pytest.mark.parametrize("sending", ["multicast", "unicast"])
def test_noise_is_drawn_for_each_transmission_from_a_stream_of_its_own(sending: str) -> None:
    world = replace(CONSTANT, byzantine=(Byzantine(0, noise=0.5),), sending=sending, seed=4)
    _, one, two = logs(replace(world, communication=Delay("constant", 0.1)), 5.0)
    drawn = 1 + 0.5 * stream(4, Purpose.BYZANTINE, 0).standard_normal((10, 3))[:, 0]
    values = [[value for _, _, value in log] for log in (one, two)]
    if sending == "multicast":
        assert values == [drawn[:4].tolist()] * 2
    else:
        assert values == [drawn[0:8:2].tolist(), drawn[1:8:2].tolist()]


# -- what must come to the same ----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALL)
def test_numbers_by_link_that_are_all_usual_change_nothing(algorithm: str) -> None:
    """Also with changes that never happen; bit for bit."""
    n, until = 6, 12.0
    usual = World(seed=3, loss=0.2)
    same: list[dict[str, Any]] = [
        {"latency": PerLink(0.0), "bandwidth": PerLink(1.0), "loss": PerLink(0.2)},
        {"bandwidth": PerLink(1.0, {(0, 1): 1.0}), "latency": PerLink(0.0, {(1, 2): 0.0})},
        {"changes": (Cut(frozenset({0}), 1e6), Slowdown(1, 3.0, 1e6))},
        {"bandwidth": PerLink(9.0, {(i, j): 1.0 for i in range(n) for j in range(n)})},
    ]
    found = []
    for changed in ({}, *same):
        sim = started(algorithm, quadratic(n), replace(usual, **changed), "ring")
        sim.run(until)
        found.append((tables(sim), models(sim).tobytes()))
    assert all(each == found[0] for each in found[1:])


@pytest.mark.parametrize("algorithm", ALL)
def test_with_one_neighbour_each_unicast_is_multicast(algorithm: str) -> None:
    found = []
    for sending in ("multicast", "unicast"):
        world = World(seed=2, loss=0.2, latency=0.3, crashes=(Crash(1, 9.0, 14.0),), sending=sending)
        sim = started(algorithm, quadratic(2), world, "chain")
        sim.run(18.0)
        found.append((tables(sim), models(sim).tobytes(), sim.counts()))
    assert found[0] == found[1]


# -- what is conserved -------------------------------------------------------------------------------


@settings(max_examples=8)
@given(WORLDS, GRAPHS)
def test_rfast_keeps_its_mass(world: World, graph: str) -> None:
    sim = started("rfast", quadratic(6, noise=0.5), world, graph, lr=0.02)
    for time in (3.0, 9.0, 14.0, 25.0):
        sim.run(time)
        mass, gradients = tracked_mass(sim)
        assert mass == pytest.approx(gradients, abs=1e-10)


@settings(max_examples=8)
@given(WORLDS, GRAPHS, st.sampled_from(["adpsgd", "adpsgd:wait"]))
def test_no_letter_is_lost(world: World, graph: str, algorithm: str) -> None:
    """The models' sum, and what is on its way, stays: of gradients that count as nothing."""
    sim = started(algorithm, quadratic(6, noise=0.5), world, graph, rule=Nothing)
    for k, actor in enumerate(sim.actors):
        actor.agent.x = actor.model = Vector((actor.agent.x.parts[0] + k,))
    for time in (3.0, 9.0, 14.0, 25.0):
        sim.run(time)
        moved = [item.message.d for item in on_their_way(sim) if isinstance(item.message, Moved)]
        total = models(sim).sum(0) - sum(map(array, moved), np.zeros(3))
        assert total == pytest.approx([15.0] * 3, abs=1e-10)


@settings(max_examples=8)
@given(WORLDS, GRAPHS, st.sampled_from(["adsgd", "dsgd", "rfast", "dsgd:after"]))
def test_what_comes_over_a_link_never_goes_back(world: World, graph: str, algorithm: str) -> None:
    """Registers: newest wins. Mail: every letter, in the order in which it was sent."""
    sim = started(algorithm, quadratic(6, noise=0.5), world, graph)
    sim.run(25.0)
    events = sim.recorder.trace().events
    for kind in (RegisterRead, MailReceived):
        rows = rows_of(events, kind)
        for i, j in LINKS:
            for what in set(rows["kind"].tolist()):
                over = rows[(rows["source"] == i) & (rows["agent"] == j) & (rows["kind"] == what)]
                assert (np.diff(over["version"]) > 0).all()
                assert (np.diff(over["start"]) >= 0).all()
                assert (over["end"] <= over["time"]).all() and (over["start"] <= over["end"]).all()
                if kind is MailReceived:
                    assert over["version"].tolist() == [*range(len(over))]
    assert math.isfinite(models(sim).sum())
