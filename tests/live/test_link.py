"""The emulated link: what arrives when is what the simulator says, given the same times of sending."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import quadratic, started
from scripted import CONSTANT, Note, Scripted
from worlds import WORLDS

from offbeat import Delay, Vector, World
from offbeat.core.agent import Publish, Send
from offbeat.engines.events import MailReceived, RegisterRead, rows_of
from offbeat.engines.live.node.link import Link
from offbeat.engines.outbox import Medium, Transmission
from offbeat.world.changes import Slowdown

UNTIL = 20
Came = list[tuple[int, float, float]]  # receiver, start of the transmission, when it was there


def emulated(world: World, medium: Medium) -> tuple[Came, list[tuple[float, float]]]:
    """What came, in order, and the transmissions, of notes to 1, 2, ..., 5 at 1, 2, 3, ..."""
    link, came, sent = Link(world, 0, 24), Came(), list[tuple[float, float]]()

    def advance(now: float) -> None:
        for item, to, ended in link.advance(now):
            came.extend((j, item.start, item.end) for j in to)
            sent.extend([(item.start, item.end)] * ended)

    for now in range(1, UNTIL + 1):
        while link.due <= now:
            advance(link.due)
        note, to = Note(Vector((torch.zeros(3, dtype=torch.float64),)), now), (1, 2, 3, 4, 5)
        link.put(Transmission(0, medium, to, note, tuple((j, 1) for j in to)))
        advance(float(now))
    return came, sent


@settings(max_examples=40, deadline=None)
@given(WORLDS, st.booleans())
def test_it_comes_when_it_comes_in_the_simulator(world: World, mail: bool) -> None:
    changes = [replace(c, computes=False) if isinstance(c, Slowdown) else c for c in world.changes]
    world = replace(world, network="serial", compute=Delay("constant"), changes=tuple(changes))
    sim = started(Scripted("send" if mail else "publish"), quadratic(6), world, "complete", check=False)
    sim.run(float(UNTIL))
    events, sent = sim.recorder.trace().events, sim.recorder.trace().transmissions
    came, ended = emulated(world, Send if mail else Publish)
    both = [*zip(sent["start"].tolist(), sent["end"].tolist(), strict=True)]
    assert [each for each in both if each[1] <= UNTIL] == [each for each in ended if each[1] <= UNTIL]
    rows = rows_of(events, MailReceived if mail else RegisterRead)
    for j in range(1, 6):
        mine: list[Any] = rows[rows["agent"] == j][["time", "start", "end"]].tolist()
        arrived = [(start, end) for receiver, start, end in came if receiver == j and end <= UNTIL]
        if mail:
            assert [(start, end) for _, start, end in mine] == arrived
        else:  # it is read at 1, 2, 3, ..., the newest
            read = [[each for each in arrived if each[1] <= now][-1:] for now in range(UNTIL + 1)]
            fresh = [new[0] for new, old in zip(read[1:], read, strict=False) if new != old]
            assert [(start, end) for _, start, end in mine] == fresh


@pytest.mark.parametrize("medium", [Send, Publish])
def test_plain_links_need_no_copy_for_each(medium: Medium) -> None:
    assert not Link(CONSTANT, 0, 24).apart
    assert Link(replace(CONSTANT, latency=1.0), 0, 24).apart
    came, sent = emulated(CONSTANT, medium)
    assert came[:5] == [(j, 1.0, 2.0) for j in (1, 2, 3, 4, 5)]
    assert sent == [(float(k), k + 1.0) for k in range(1, UNTIL)]
