"""What is accumulated in every way that the contract allows arrives, and is replayed to the bit."""

import numpy as np
import pytest
from accumulating import Accumulating, all_arrived
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import minibatches, models, quadratic, started
from worlds import WORLDS

from offbeat import SGD, Vector, World
from offbeat.core.codecs import codec_of
from offbeat.core.system.devices import one_thread
from offbeat.core.system.streams import Purpose, python_stream
from offbeat.engines.sim.executors import evaluate
from offbeat.engines.sim.replay import Replay
from offbeat.engines.sim.simulator import Simulator
from offbeat.engines.trace import in_order

N, SLOW = 6, World(seed=3, slow_communication={0: 5.0, 2: 3.0})


def run(world: World, codec: str = "none", how: str = "event-by-event") -> Simulator:
    task = quadratic(N, d=8, noise=0.5)
    sim = started(Accumulating(25), task, world, "ring", 0.02, how, check=False, codec=codec_of(codec))
    sim.run(20.0)
    return sim


def replayed(sim: Simulator, seed: int, codec: str = "none") -> None:
    """Fresh agents that meet the same events do the same, to the bit."""
    trace, task = sim.recorder.trace(), sim.task
    draws, seen = [minibatches(task, seed, i) for i in range(N)], [list[np.ndarray]() for _ in range(N)]

    def gradient(i: int, k: int, x: Vector) -> Vector:
        while len(seen[i]) <= k:
            seen[i].append(draws[i]())
        return evaluate(task, i, x, seen[i][k])

    chance = [python_stream(seed, Purpose.ALGORITHM, i) for i in range(N)]
    replay = Replay(
        trace, sim.topology, lambda: Accumulating(25), lambda: SGD(0.02), lambda i, _: chance[i],
        task.initial(), gradient, codec=codec_of(codec),
    )  # fmt: skip
    with one_thread():
        again = replay.run()
    for name, table in in_order(trace).tables.items():
        assert again.tables[name].tobytes() == table.tobytes(), name
    assert np.array_equal(replay.stacked()[0].numpy(), models(sim))


@settings(max_examples=6)
@given(WORLDS, st.sampled_from(["none", "bf16", "int8", "top-k:0.3"]))
def test_a_replay_of_it_is_exact(world: World, codec: str) -> None:
    replayed(run(world, codec), world.seed, codec)


@pytest.mark.parametrize("sending", ["multicast", "unicast"])
def test_all_of_it_arrives_once(sending: str) -> None:
    sim = run(World(seed=3, slow_communication={0: 5.0, 2: 3.0}, sending=sending))
    replayed(sim, 3)
    sim.run(10_000.0)
    assert len(sim.recorder.trace().writes) == 25 * N
    all_arrived(sim.agents, 1e-9)


def test_executors_agree_on_it() -> None:
    one, other = (run(SLOW, how=how) for how in ("event-by-event", "batched"))
    assert one.recorder.trace().digest() == other.recorder.trace().digest()
    assert np.array_equal(models(one), models(other))
