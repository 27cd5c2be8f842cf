"""How batches get from one machine to another, where they go to whichever agent comes for one.

Every machine has its part of an epoch in a file that its agents append to (`shm.part`), and none of these
waits for another machine. The gateways look at these files. Where few numbers are left, the gateway asks the
others for some: who has more than its agents will have done by then lends from the far end, so that all end
together. What is lent stands in both files before anybody begins it, and is asked for until that is known.

While a link is cut each machine goes on with its own part, and nothing is done twice but what was lent and
not confirmed. A machine that is lost leaves its part to the next one that has agents, but for what had been
heard to be done.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from offbeat.engines.live.cluster.arrival import arriving
from offbeat.engines.live.cluster.asking import CUT, Link
from offbeat.engines.live.shm.ledger import Ledger
from offbeat.engines.live.shm.part import Part, Places
from offbeat.engines.live.shm.said import Said

AHEAD, KEPT = 0.5, 0.25  # seconds of work: with less a machine asks for more, so much it does not lend
NEWS = 1.0  # seconds between questions to a machine that is asked for nothing
EACH = 2  # batches an agent that a machine has in any case, before it lends
NAME = re.compile(r"data\.[0-9a-f]{8}\.\d{1,4}")
LARGEST, EPOCHS = 1 << 28, 1 << 31  # batches of an epoch; epochs

Key = tuple[str, int]  # loader and epoch


@dataclass
class Known:
    """What another machine has last said of an epoch: what it has not done lies within, and when it said so.

    Attributes:
        over: whether it has nothing to lend any more
    """

    first: int
    last: int
    at: float
    over: bool = False


class Dealing:
    """A machine's gateway's part of it.

    Attributes:
        parts: the epochs that are going on here
        doubled: how many batches were begun on two machines, as far as is known here
    """

    def __init__(
        self,
        folder: Path,
        places: Places,
        alive: Callable[[], Mapping[int, int]],
        now: Callable[[], float],
        on_notice: Callable[[str], None],
    ) -> None:
        """`alive`: the agents that are in the run, and the machines where they work; -1: they are done."""
        self.folder, self.places, self.alive, self.now, self.on_notice = folder, places, alive, now, on_notice
        self.parts: dict[Key, Part] = {}
        self.known: dict[tuple[Key, int], Known] = {}
        self.doubled = 0
        self._unanswered = dict.fromkeys(places.hosts, 0)  # attempts to ask in a row, by machine
        self._ledgers: dict[str, Ledger[Part]] = {}
        self._since: dict[Key, tuple[float, int]] = {}  # when numbers were first seen begun, and how many
        self._rates: dict[str, float] = {}  # numbers a second, of the newest epoch

    # -- what is here ----------------------------------------------------------------------------------

    def look(self) -> None:
        """See what agents here have said; of machines that are lost take over what nobody has done."""
        lost = self._inherited()
        for path in self.folder.glob("data.*.*.*"):
            of, _, last = path.name.rpartition(".")
            if NAME.fullmatch(of) and last.isdigit():
                self._part(of, int(last), None)
        living = {*self.alive()}
        for (name, epoch), part in [*self.parts.items()]:
            if part.opened:
                part.free([i for i in part.agents if i >= 0 and i not in living])
                self._count((name, epoch), part)
                for machine in lost:
                    self._inherit((name, epoch), part, machine)
            self._ledgers[name].settle(epoch, part)
            if part.over:
                self._forget((name, epoch))

    def _part(self, name: str, epoch: int, size: int | None) -> Part | None:
        """An epoch here; None: it is over."""
        if (name, epoch) not in self.parts:
            me = -1 - self.places.machine
            if name not in self._ledgers:
                self._ledgers[name] = Ledger(self.folder, name, me, partial(Part, places=self.places))
            if (made := self._ledgers[name].epoch(epoch, size)) is None:
                return None
            self.parts[name, epoch] = made
        part = self.parts[name, epoch]
        if size is not None and not part.opened:
            part.say(Said.OPEN, [size])
        return part if part.opened else None

    def _forget(self, key: Key) -> None:
        del self.parts[key]
        self._since.pop(key, None)
        self.known = {at: known for at, known in self.known.items() if at[0] != key}

    def _count(self, key: Key, part: Part) -> None:
        began, before = self._since.setdefault(key, (self.now(), part.begun))
        if (took := self.now() - began) > 0 and part.begun - before > EACH:
            self._rates[key[0]] = (part.begun - before) / took

    def _inherit(self, key: Key, part: Part, machine: int) -> None:
        """A machine is lost: what it had not done, as far as is known here, is to be done here."""
        known = self.known.get((key, machine))
        whole = self.places.part(part.size or 0, machine)
        mine = [b for b in whole if known is None or known.first <= b <= known.last]
        if new := [b for b in mine if b not in part.granted and b not in part.refused]:
            part.say(Said.GRANT, new, -1)
            self.on_notice(
                f"Machine {machine} is lost: the {len(new)} batches of epoch {key[1]} that it is not known "
                f"to have done are for machine {self.places.machine}; some may be done twice."
            )

    def _inherited(self) -> list[int]:
        """Machines that are lost, and whose part this one is to deal out."""
        working = sorted({*self.alive().values()} - {-1})
        lost = [k for k, count in self._unanswered.items() if count >= CUT and k not in working]
        heirs = {k: [*(m for m in working if m > k), *working] for k in lost}
        return [k for k, heir in heirs.items() if heir and heir[0] == self.places.machine]

    def _agents(self) -> int:
        return sum(machine == self.places.machine for machine in self.alive().values())

    # -- what others ask -------------------------------------------------------------------------------

    def answer(self, question: bytes) -> bytes:
        """Of a question as `questions` makes them. Raises Refused for any other."""
        with arriving("A question for batches"):
            asked = json.loads(question)
            name, epoch, size, machine = (asked[k] for k in ("name", "epoch", "size", "machine"))
            had, late = asked["had"], asked["late"]
            left, rate, agents = int(asked["left"]), float(asked["rate"]), int(asked["agents"])
            if not (NAME.fullmatch(name) and 0 <= epoch < EPOCHS and 0 < size <= LARGEST):
                raise ValueError(f"it is for {size} batches of epoch {epoch} of {name!r:.80}")
            if machine == self.places.machine or not all(type(b) is int for b in [machine, *had, *late]):
                raise ValueError(f"it is of machine {machine}, which has {had!r:.80}, {late!r:.80}")
        if (part := self._part(name, epoch, size)) is None:
            return json.dumps({"size": size, "over": True}).encode()
        if part.size != size:
            return json.dumps({"size": part.size, "over": True}).encode()
        part.say(Said.RETURN, [b for b in late if part.lent.get(b) == machine], machine)
        part.say(Said.CONFIRM, [b for b in had if part.lent.get(b) == machine], machine)
        if asked["wants"]:
            part.say(Said.LEND, self._spared(part, name, left, rate, agents), machine)
        undone = part.undone()
        return json.dumps({
            "size": size, "over": not part.spare(0), "lent": part.lent_to(machine),
            "taken": [b for b in had if part.lent.get(b) != machine],
            "first": min(undone, default=0), "last": max(undone, default=-1),
        }).encode()  # fmt: skip

    def _spared(self, part: Part, name: str, left: int, rate: float, agents: int) -> list[int]:
        """What is lent to a machine that has so many left, and begins so many a second: as many as make both
        end at the same time.
        """
        here, mine = self._agents(), self._rates.get(name, 0.0)
        keep = max(EACH * here, round(mine * KEPT)) if here and not part.left_by else 0
        total = len(part.free_ones()) + left
        fair = total * (rate / (rate + mine) if rate + mine else agents / max(1, agents + here))
        return sorted(part.spare(keep)[: max(agents, round(fair) - left)])

    # -- what is asked ---------------------------------------------------------------------------------

    async def ask(self, machine: int, link: Link) -> None:
        """Ask another machine for batches; once some have come, tell it. Raises NoAnswer, Refused."""
        again = True
        while again:
            again = False
            for key, question in [*self.questions(machine)]:
                self._unanswered[machine] = self._unanswered.get(machine, 0) + 1
                answer = await link.ask(link.peer.deal(question))
                self._unanswered[machine] = 0
                again |= self.take(machine, key, question, answer)

    def questions(self, machine: int) -> Iterator[tuple[Key, bytes]]:
        """What is to be asked of another machine now."""
        for key, part in [*self.parts.items()]:
            if not part.opened or part.size is None:
                continue
            known, rate = self.known.get((key, machine)), self._rates.get(key[0], 0.0)
            agents = self._agents()
            low = agents > 0 and not part.left_by and part.unclaimed < max(EACH * agents, rate * AHEAD)
            wants = low and not (known is not None and known.over)
            had = [b for b, m in part.granted.items() if m == machine and b not in part.settled]
            late = [b for b, m in part.refused.items() if m == machine and b not in part.settled]
            if wants or had or late or known is None or self.now() - known.at >= NEWS:
                yield key, json.dumps({
                    "name": key[0], "epoch": key[1], "size": part.size, "machine": self.places.machine,
                    "had": had, "late": late, "wants": wants, "left": max(0, part.unclaimed), "rate": rate,
                    "agents": agents,
                }).encode()  # fmt: skip

    def take(self, machine: int, key: Key, question: bytes, answer: bytes) -> bool:
        """What a machine has answered. Returns whether it has lent anything: it is to hear that that has
        come. Raises Refused for what it cannot have meant.
        """
        asked: dict[str, Any] = json.loads(question)
        part = self.parts.get(key)
        with arriving(f"What machine {machine} says of epoch {key[1]} of the data"):
            said = json.loads(answer)
            if said["size"] != asked["size"]:
                raise ValueError(
                    f"it shares out {said['size']} batches an epoch, machine {self.places.machine} "
                    f"{asked['size']}; expected the same loaders on all machines"
                )
            whole = self.places.part(asked["size"], machine)
            lent, taken = said.get("lent", []), said.get("taken", [])
            if not all(type(b) is int and b in whole for b in lent) or not {*taken} <= {*asked["had"]}:
                raise ValueError(f"it lends {lent!r:.80}, and has taken back {taken!r:.80}")
            over = bool(said["over"])
            known = Known(int(said.get("first", 0)), int(said.get("last", -1)), self.now(), over)
        if part is None:
            return False
        self.known[key, machine] = known
        if twice := part.drop(taken):
            self.doubled += len(twice)
            self.on_notice(
                f"{len(twice)} batches of epoch {key[1]} were dealt twice, on machines {machine} and "
                f"{self.places.machine}, since word between them took too long; {self.doubled} in all."
            )
        part.say(Said.SETTLED, [*asked["had"], *asked["late"]])
        new = [b for b in lent if b not in part.granted and b not in part.refused]
        part.say(Said.GRANT, new, machine)
        return bool(new)
