"""Whether an algorithm can be read, found out before there is a run: on four agents in a ring."""

from collections.abc import Callable

import torch

from offbeat.core.agent import Agent
from offbeat.core.errors import OffbeatError
from offbeat.core.rules import Rule
from offbeat.engines.sim.ahead.placeholders import NotLinear
from offbeat.engines.sim.ahead.rhythm import readings
from offbeat.world.topology import build

MODEL = torch.zeros(8)


def why_not_read(new_agent: Callable[[], Agent], new_rule: Callable[[], Rule]) -> str:
    """Why agents of this class with this local rule do not run through states known beforehand; empty if, as
    far as this tells, they do.
    """
    try:
        (_, reading, *_), _ = readings(new_agent, new_rule, build("ring", 4).views(), MODEL)
        state = reading.start
        for _ in range(reading.every + 1):
            for which in range(len(reading.inputs)):
                state = reading.hear(state, (which,)).then
            state = reading.gradient(state).then
    except NotLinear as why:
        return str(why)
    except (OffbeatError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError) as error:
        return f"its handlers do not bear to be looked into ({type(error).__name__}: {error})"
    return ""
