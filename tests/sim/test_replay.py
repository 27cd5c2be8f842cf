"""Replays of what is rare in runs."""

from random import Random

import torch

from offbeat import SGD, Vector
from offbeat.algorithms import find
from offbeat.engines import events
from offbeat.engines.recorder import Recorder
from offbeat.engines.sim.replay import Replay
from offbeat.engines.trace import Trace
from offbeat.world.topology import build

BOTH = build("complete", 2)


def recorded() -> Trace:
    """Agent 1 returns with agent 0's fifth model, which it gives away in its first step; its own second model
    is heard after that.
    """
    recorder = Recorder(2)
    recorder.kind(find("swift").prototype.sends_models[0](Vector(())))

    def gradient(time: float, agent: int, step: int) -> events.Event:
        return events.GradientDone(time, agent, step, time - 0.5, time)

    def read(time: float, version: int) -> events.Event:
        return events.RegisterRead(time, 0, 1, 0, version, time - 0.5, time - 0.2)

    for event in (
        events.Started(0.0, 0), events.Started(0.0, 1), *(gradient(k + 1.0, 0, k) for k in range(5)),
        events.ViewChanged(6.0, 0, 1, False, 1), events.ViewChanged(7.0, 0, 1, True, 2),
        events.Rejoined(8.0, 1, 0, 5, 1, 2), *(gradient(9.0 + k, 1, k) for k in range(3)),
        read(12.0, 5), gradient(12.1, 0, 5), read(13.0, 2), gradient(13.1, 0, 6),
    ):  # fmt: skip
        recorder.event(event)
    trace = recorder.traced()
    assert isinstance(trace, Trace)
    return trace


def test_a_donors_model_that_is_given_away_is_older_than_ones_own_though_its_number_is_higher() -> None:
    def gradient(i: int, k: int, x: Vector) -> Vector:
        return Vector((torch.full((1,), 1.0 + i, dtype=torch.float64),))

    start = (torch.zeros(1, dtype=torch.float64),)
    replay = Replay(
        recorded(), BOTH, find("swift").new, lambda: SGD(1.0), lambda i, k: Random(i), start, gradient
    )
    replay.run()
    # agent 0: five steps of 1, then the mean of its model and of what it hears, -5 and then -9, less 1
    (model,) = replay.agents[0].actor.model.parts
    assert model.item() == ((-5.0 - 5.0) / 2 - 1.0 - 9.0) / 2 - 1.0
