"""How a user's script gets into its run: from the start, from a checkpoint, or back after a crash."""

from offbeat.core.errors import SettingError
from offbeat.core.vector import Vector
from offbeat.engines.live.node.checkpoint import newest, set_aside
from offbeat.engines.live.node.enter import AgentContext, agree, begin, propose, resume
from offbeat.engines.live.node.guard import not_finite
from offbeat.training.flat import some
from offbeat.training.saver import Saver


def enter(here: AgentContext, saver: Saver, initial: Vector, returns: bool) -> Vector:
    """Restore what there is to restore, join, and return where the first gradient is to be taken.

    Args:
        initial: the model of this script, from which all start if this is agent 0
        returns: whether the algorithm takes an agent back that died
    """
    driver, returned = saver.driver, here.incarnation > 1
    saver.restore(_step(here, saver, returns))
    saver.mend()
    saver.check()
    if driver.guard.on and (wrong := not_finite(saver.flat.named(saver.flat.parts))):
        raise SettingError(
            f"The model is not finite to begin with: {some(wrong)}. --on-nan ignore lets it through."
        )
    propose(here, saver.checkpoints.about, initial, returns)
    driver.join()
    initial = agree(here, saver.checkpoints.about)
    if saver.restored and not returned:
        return resume(driver, here, saver.restored)
    return begin(driver, here, initial)


def _step(here: AgentContext, saver: Saver, returns: bool) -> int | None:
    """The step of the checkpoint to go on from, if there is one. Raises SettingError if there has to be."""
    folder, agents = here.checkpoints, here.settings.agents
    if here.incarnation > 1:
        set_aside(folder, print)  # of a run that is resumed, the launcher has done so for all
        return newest(folder, agents, together=False)
    if not here.settings.resume:
        return None
    step = newest(folder, agents, together=not returns)
    if step is None:
        raise SettingError(
            f"The run in {here.settings.folder} cannot go on: agent {here.me} has no checkpoint"
            f"{' of a step that all have' * (not returns)}. Start a new one, with another --out."
        )
    return step
