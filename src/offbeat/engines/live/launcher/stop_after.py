"""When a run has done enough: `--stop-after`, counted over all of its agents and all of their lives."""

import math
import re
import time
from collections.abc import Collection
from dataclasses import dataclass

from offbeat.core.errors import SettingError
from offbeat.engines.live.shm.board import Board, Row

FORMS = "'20000' (steps of all agents together), '90s', '30min', '2h', '3epochs', or 'loss:0.2'"
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0}
UNITS = {"": "steps", "epoch": "epochs", "epochs": "epochs"} | dict.fromkeys(SECONDS, "seconds")
_NUMBER = re.compile(r"(?P<loss>loss:)?(?P<number>\d+\.?\d*|\.\d+)(?P<unit>[a-z]*)")
LATE, MARGIN = 0.25, 2  # seconds and steps until every agent can have heard of the end


@dataclass(frozen=True)
class StopAfter:
    """The end of a run.

    Attributes:
        what: of which there is enough: "steps", "seconds", "epochs", or "loss"
        amount: how much that is
        text: as the user said it
    """

    what: str
    amount: float
    text: str

    @staticmethod
    def parse(text: str) -> "StopAfter":
        """Of what the command line says. Raises SettingError."""
        match = _NUMBER.fullmatch(text.strip())
        what = None if match is None else "loss" if match["loss"] else UNITS.get(match["unit"])
        if match is None or what is None or (what == "loss" and match["unit"]):
            raise SettingError(f"Cannot read --stop-after {text}; expected {FORMS}.")
        amount = float(match["number"]) * SECONDS.get(match["unit"], 1.0)
        if what == "steps" and not amount.is_integer():
            raise SettingError(f"--stop-after {text}: steps are whole numbers; expected {FORMS}.")
        if not (0 < amount < math.inf or what == "loss"):
            raise SettingError(f"--stop-after {text}: expected more than 0, and less than for ever.")
        return StopAfter(what, amount, text.strip())

    def reached(self, board: Board, missing: Collection[int], left: Collection[int] = ()) -> bool:
        """Whether that is so now; `missing` are no longer there, `left` have gone as they were asked to. A
        launcher that attaches itself to a run has to hear first when that began.
        """
        if not board.zero:
            return False
        if self.what == "steps":
            return int(board.rows[:, Row.STEPS].sum()) >= self.amount
        if self.what == "seconds":
            return (time.monotonic_ns() - board.zero) / 1e9 >= self.amount
        if self.what == "epochs":
            dealt = [share for share in map(float, board.numbers[:, Row.DEALT]) if not math.isnan(share)]
            if dealt:  # what all have taken, also who has left
                return math.fsum(dealt) >= self.amount
            epochs = [float(board.numbers[i, Row.EPOCHS]) for i in range(board.n) if i not in left]
            return math.fsum(epochs) / len(epochs) >= self.amount
        gone = {*missing, *left}
        losses = [float(board.numbers[i, Row.LOSS]) for i in range(board.n) if i not in gone]
        return math.fsum(losses) <= self.amount * len(losses)  # NaN, where one has logged none, is no less

    def lacking(self, board: Board) -> str:
        """What nobody has said so far, and this waits for; empty if there is nothing."""
        row, what, how = {
            "loss": (Row.LOSS, "logged a loss", "agent.log(loss=...)"),
            "epochs": (Row.EPOCHS, "shared out a loader", "agent.shard(loader)"),
        }.get(self.what, (Row.STEPS, "", ""))
        unknown = bool(what) and all(map(math.isnan, board.numbers[:, row]))
        return f"no agent has {what} yet ({how}), which --stop-after {self.text} goes by" if unknown else ""


def last_step(board: Board) -> int:
    """A step that none has made yet, nor will have made before all can have heard of it: where agents that go
    in step end together.
    """
    most, seconds = int(board.rows[:, Row.STEPS].max()), (time.monotonic_ns() - board.zero) / 1e9
    return most + MARGIN + math.ceil(LATE * most / max(seconds, LATE))
