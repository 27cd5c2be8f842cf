"""What agent 0 has joined with: every machine keeps it, and any that has it tells one that has not.

So a machine that comes late learns it though agent 0, and the machine where it lived, may be gone. Of an
experiment the settings say all, and nobody waits for more.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from offbeat.core.system.files import write_atomically
from offbeat.engines.live.cluster.arrival import Arrivals, arriving
from offbeat.engines.live.cluster.peer import Proposal
from offbeat.engines.live.places import INITIAL, MODEL
from offbeat.engines.live.shm.slots import Slots


@dataclass(frozen=True)
class Agreement:
    """That of a run, in this machine's run folder."""

    folder: Path

    @property
    def known(self) -> bool:
        return (self.folder / MODEL).exists()

    @cached_property
    def needed(self) -> bool:
        """Whether the agents run a script, which says there what it trains."""
        return "experiment" not in json.loads((self.folder / "run.json").read_text())

    @property
    def missing(self) -> bool:
        """Whether it is still to come."""
        return self.needed and not self.known

    def shown(self) -> Proposal | None:
        """For other machines; None as long as it is not known here."""
        if not self.known:
            return None
        register = Slots.attach(self.folder / INITIAL)
        raw = register.raw()
        return None if raw is None else ((self.folder / MODEL).read_bytes(), register.text, *raw[1:])

    def keep(self, found: Proposal | None, arrivals: Arrivals) -> None:
        """What another machine has shown, if it has and it is not known already. Raises Refused."""
        if found is None or self.known:
            return
        with arriving("What agent 0 has joined with"):
            said, text, words, vectors = found
            to, layout = arrivals.text(text)
            raw, about = arrivals.version(layout, words, vectors), json.loads(said)
            if not isinstance(about["about"]["algorithm"], str) or not isinstance(about["needed"], list):
                raise ValueError("it does not say which algorithm")
            (self.folder / INITIAL).unlink(missing_ok=True)  # a gateway before this one was killed here
            Slots.create(self.folder / INITIAL, layout, to).put(words, raw)
            write_atomically(self.folder / MODEL, said)
