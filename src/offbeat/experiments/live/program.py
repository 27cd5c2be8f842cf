"""What one agent's process does in a live run of an experiment; `offbeat live` starts it for each agent."""

import sys
import time
from collections.abc import Callable
from functools import partial

from offbeat.algorithms import find
from offbeat.core.errors import SettingError
from offbeat.core.system import devices
from offbeat.core.system.own import pinned
from offbeat.core.system.streams import BufferedStream, Purpose, python_stream, stream
from offbeat.core.vector import Vector
from offbeat.engines.live.node.checkpoint import newest
from offbeat.engines.live.node.driver import Driver, Stopped
from offbeat.engines.live.node.ending import tell
from offbeat.engines.live.node.enter import AgentContext, agent_context, arrive, begin
from offbeat.engines.live.node.saving import Checkpoints
from offbeat.engines.live.settings import ExperimentProgram
from offbeat.engines.sim.executors import evaluate
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import Setup, prepare
from offbeat.world.changes import finish
from offbeat.world.sending import slowdowns


def agent_program() -> None:
    """Gradients of the agent's task, one after another, until the time is over."""
    context = agent_context()
    program = None if context is None else context.settings.program
    if context is None or not isinstance(program, ExperimentProgram):
        raise SettingError(f"{__spec__.name} is started by offbeat live, not by hand.")
    with pinned(context.settings.code, context.settings.code):
        _run(context, program)


def _run(context: AgentContext, program: ExperimentProgram) -> None:
    s = context.settings
    setup = prepare(Experiment(**program.experiment), s.seed)
    agent, initial, n = find(s.algorithm).new(), Vector(setup.task.initial()), setup.topology.n
    rng = python_stream(setup.seed, Purpose.ALGORITHM, context.me)
    view = setup.topology.view(context.me, frozenset(range(n)))
    agent.join(context.me, n, initial, view, setup.steps.rule(program.lr), rng)
    agent.check()
    driver = context.driver(agent, setup.topology, initial.nbytes, setup.world, setup.codec)
    driver.deadline = setup.until
    about = {"experiment": program.experiment, "seed": s.seed, "algorithm": s.algorithm, "lr": program.lr}
    about |= {"code": {**s.code}} if s.code else {}
    checkpoints = Checkpoints(context.checkpoints, about, s.checkpoint_every)
    with devices.one_thread():
        _train(context, setup, driver, checkpoints, initial)
        driver.leave()
        driver.close()


def _train(
    context: AgentContext, setup: Setup, driver: Driver, checkpoints: Checkpoints, initial: Vector
) -> None:
    s, task, me, state = context.settings, setup.task, context.me, None
    if s.resume and context.incarnation == 1:
        step = newest(context.checkpoints, s.agents, together="return" not in find(s.algorithm).tolerates)
        state = None if step is None else checkpoints.load(step)
    asked = context.asked() if state is None else state["asked"] - 1
    minibatch = BufferedStream(partial(task.draw, me), setup.seed, Purpose.DATA, me)
    compute_time = BufferedStream(setup.world.compute_delay(me).draw, setup.seed, Purpose.COMPUTE, me)
    slower = slowdowns(setup.world, me, sends=False)
    for _ in range(asked):
        minibatch(), compute_time()
    faults = context.faults()
    # What is used for the first time takes longer, no part of the emulated world: before the clock begins.
    evaluate(task, me, initial, task.draw(me, stream(setup.seed, Purpose.DATA, me), 1)[0])
    try:
        driver.join()
        first = partial(begin, driver, context, initial) if state is None else partial(driver.resume, state)
        x = copied(driver, first)
        driver.attend()
        while True:
            asked += 1
            done = finish(driver.clock.now(), compute_time(), slower)
            g = evaluate(task, me, x, minibatch())
            time.sleep(max(0.0, min(done, setup.until) - driver.clock.now()) * driver.clock.unit)
            faults.before_step(driver.actor.steps)
            x = copied(driver, partial(driver.step, driver.guard.gradient(g, driver.actor.steps + 1)))
            faults.after_step()
            if checkpoints.due(driver):
                checkpoints.save(driver, {"asked": asked + 1})
    except Stopped:
        if checkpoints.due(driver, final=True):
            checkpoints.save(driver, {"asked": asked})


def copied(driver: Driver, next_model: Callable[[], Vector]) -> Vector:
    """Where the next gradient is to be taken, in memory of its own: mail may move the agent's model on while
    the gradient is evaluated, and the memory in which this one lies is recycled after a few versions.
    """
    with driver.lock:
        return Vector(tuple(part.clone() for part in next_model().parts))


def main() -> None:
    arrive()
    try:
        agent_program()
    except Exception as error:
        sys.exit(tell(error, __file__))


if __name__ == "__main__":
    main()
