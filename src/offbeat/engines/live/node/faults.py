"""Faults on purpose, for tests and drills: `--fault "kill agent 2 at step 100"`."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from offbeat.core.errors import SettingError

FORMS = (
    "kill agent 2 at step 100", "stop agent 1 for 5 s at step 50", "slow agent 3 by 10",
    "kill machine 1 at step 100", "cut machine 1 from 10 s to 20 s",
)  # fmt: skip
_OF_MACHINES = re.compile(
    r"\s*(?:kill machine (?P<a>\d+)(?: at step (?P<step>\d+))?"
    r"|cut machine (?P<b>\d+) from (?P<start>[\d.]+) ?s to (?P<end>[\d.]+) ?s)\s*",
    re.IGNORECASE,
)
_PATTERN = re.compile(
    r"\s*(?:(?P<kill>kill) agent (?P<a>\d+)|(?P<stop>stop) agent (?P<b>\d+) for (?P<seconds>[\d.]+) ?s"
    r"|(?P<slow>slow) agent (?P<c>\d+) by (?P<factor>[\d.]+))(?: (?:at|from) step (?P<step>\d+))?\s*",
    re.IGNORECASE,
)
LARGEST = 1e6  # seconds, or times slower, that a fault may be


@dataclass(frozen=True)
class Fault:
    """What happens to an agent, once it has made `step` steps: "kill" (SIGKILL), "stop" (SIGSTOP, and SIGCONT
    after `amount` seconds), "slow" (its computation takes `amount` times as long, from then on).

    Or to a machine of several, and then agent is -1: "kill" (all its processes, once one of its agents has
    made so many steps), "cut" (it and the others hear nothing of each other, between two seconds of the run).
    """

    kind: str
    agent: int
    step: int
    amount: float = 0.0
    text: str = field(default="", compare=False)
    machine: int = -1
    between: tuple[float, float] = (0.0, 0.0)

    def cuts(self, machine: int, now: float) -> bool:
        """Whether a machine hears nothing of others at that second of the run."""
        start, end = self.between
        return self.kind == "cut" and self.machine == machine and start <= now < end


def parse_fault(text: str, agents: int, machines: int | None = None) -> Fault:
    """A fault from text, as in `FORMS`; without a step, at the beginning. Raises SettingError.

    Args:
        machines: how many there are; 0: this one, without a name; None: nobody knows yet
    """
    if (of_machine := _OF_MACHINES.fullmatch(text)) is not None:
        fault = _fault_of_machine(text, of_machine)
        if machines is not None:
            check_machine(fault, machines)
        return fault
    match = _PATTERN.fullmatch(text)
    try:
        if match is None:
            raise ValueError
        agent = int(match["a"] or match["b"] or match["c"])
        step, amount = int(match["step"] or 0), float(match["seconds"] or match["factor"] or 0)
    except ValueError:
        expected = ", or ".join(f"'{form}'" for form in FORMS)
        raise SettingError(f"Cannot read the fault '{text}'; expected {expected}.") from None
    if agent >= agents:
        raise SettingError(f"The fault '{text}': there is no agent {agent}; they are 0 to {agents - 1}.")
    kind = str(match["kill"] or match["stop"] or match["slow"]).lower()
    if kind == "slow" and amount < 1:
        raise SettingError(f"The fault '{text}' slows by {amount:g}; expected 1 or more.")
    if amount > LARGEST or (kind == "stop" and not amount):
        most = f"expected more than 0, and at most {LARGEST:,.0f}"
        raise SettingError(f"The fault '{text}' says {amount:g}; {most}.")
    return Fault(kind, agent, step, amount, text)


def _fault_of_machine(text: str, match: "re.Match[str]") -> Fault:
    if match["a"] is not None:
        return Fault("kill", -1, int(match["step"] or 0), text=text, machine=int(match["a"]))
    try:
        start, end = float(match["start"]), float(match["end"])
    except ValueError:
        start = end = 0.0
    if not start < end <= LARGEST:
        said = "expected two times in seconds, the first one before the other"
        raise SettingError(f"The fault '{text}': {said}.")
    return Fault("cut", -1, 0, text=text, machine=int(match["b"]), between=(start, end))


def check_machine(fault: Fault, machines: int) -> None:
    """Raise SettingError for a fault of a machine that is none of so many."""
    if fault.machine >= machines:
        known = f"they are 0 to {machines - 1}" if machines else "--ray runs agents on several"
        raise SettingError(f"The fault '{fault.text}': there is no machine {fault.machine}; {known}.")


@dataclass
class Faults:
    """The faults of one agent. In a later life, what was due before its first step has happened."""

    faults: Sequence[Fault]
    first_life: bool = True
    done: set[int] = field(default_factory=set)
    since: float = field(default_factory=time.monotonic)

    def before_step(self, steps: int) -> None:
        """What is due after that many steps happens; a slow one sleeps, in proportion to its computation."""
        if not self.first_life:
            self.first_life = True
            self.done = {k for k, fault in enumerate(self.faults) if fault.step <= steps}
        for k, fault in enumerate(self.faults):
            if steps >= fault.step and fault.kind == "slow":
                time.sleep((time.monotonic() - self.since) * (fault.amount - 1))
            elif steps >= fault.step and k not in self.done:
                self.done.add(k)
                _happen(fault)

    def after_step(self) -> None:
        self.since = time.monotonic()


def _happen(fault: Fault) -> None:
    me = os.getpid()
    if fault.kind == "kill":
        os.kill(me, signal.SIGKILL)
    else:  # somebody else has to wake this process
        subprocess.Popen(["/bin/sh", "-c", f"sleep {fault.amount}; kill -CONT {me}"], start_new_session=True)
        os.kill(me, signal.SIGSTOP)
