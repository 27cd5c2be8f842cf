"""The processes of a run as its launcher sees them, where they are on other machines.

`RemoteChildren` is to a `Launcher` what `Children` is on one machine. A thread of its own talks to the
gateways (`Talk`). What the launcher wants is compared with what was said last, and said again whole if it
differs.
"""

import json
import math
import queue
import signal
import time
from collections.abc import Mapping, MutableMapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

from offbeat.engines.live.cluster.attaching import adopt, newest
from offbeat.engines.live.cluster.keeper import Ended
from offbeat.engines.live.cluster.lives import Fleet, RemoteLife
from offbeat.engines.live.cluster.results import Grown
from offbeat.engines.live.cluster.talking import ENDS, Talk
from offbeat.engines.live.launcher.children import MachineSeen, OnOutput
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.launcher.requests import Request, put, take_answer
from offbeat.engines.live.node.checkpoint import agent_folder, latest
from offbeat.engines.live.node.ending import Failure
from offbeat.engines.live.node.saving import donor_of
from offbeat.engines.live.places import MEMBERS
from offbeat.engines.live.shm.board import Row

MODELS = 5.0  # seconds that copies of all models may take
UNSEEN = 2.0  # seconds of an agent's life that may not have been seen here, at most
REPLACED = (
    "The launcher of this run died before it had answered; another one goes on with it. Look who takes part "
    "(metrics.jsonl in the run's folder), and ask again if need be."
)


class RemoteChildren:
    """See the module. Made when the machines' gateways are there."""

    def __init__(
        self,
        fleet: Fleet,
        launcher: Launcher,
        on_output: OnOutput,
        states: Mapping[int, Mapping[str, Any]] = MappingProxyType({}),
    ) -> None:
        """With the `states` of the gateways of a run that goes on already: be its launcher's."""
        self.fleet, self.launcher, self.on_output = fleet, launcher, on_output
        lives = adopt(launcher, states) if states else {}
        self.talk = talk = Talk(fleet, launcher, newest(states) if states else None)
        self._asked: dict[tuple[int, str], bool] = {}  # by machine and token: whether it is answered
        starts = [start for state in states.values() for start in state["starts"].values()]
        self._count = max(starts, default=0)
        for i, (machine, incarnation) in lives.items():
            talk.running[i] = RemoteLife(i, incarnation, machine, talk.grown[i])
            talk.written[i] = machine
        for machine, state in states.items():
            strays = [int(agent) for agent in state["running"] if int(agent) >= len(fleet.hosts)]
            talk.do(talk.ask(machine, "signal", int(signal.SIGKILL), strays))
            for token in state["asked"]:
                self._asked[machine, token] = True
                talk.do(talk.answer(machine, token, False, REPLACED))
        talk.start()

    @property
    def running(self) -> MutableMapping[int, RemoteLife]:
        return self.talk.running

    # -- what a launcher asks --------------------------------------------------------------------------

    def start(
        self, agent: int, incarnation: int, command: Sequence[str], more: Mapping[str, str], output: Path
    ) -> RemoteLife:
        """Have an agent's process started where it lives, or elsewhere if that machine is lost."""
        hosts = self.fleet.hosts
        if agent >= self.launcher.board.n:  # it is to be let in; of one who was not, nothing counts
            del hosts[agent:]
        if agent >= len(hosts) or hosts[agent] in self.talk.lost:
            machine = self.fleet.place(agent, [*self.talk.lost])
            hosts[agent : agent + 1] = [machine]
            how = "begins" if incarnation == 1 else "goes on"
            self.on_output(agent, f"{how} on {self.fleet.called(machine)}")
        grown = self.talk.grown.setdefault(agent, Grown(agent, self.launcher.settings.folder))
        life = self.running[agent] = RemoteLife(agent, incarnation, hosts[agent], grown)
        self._count += 1
        start = {"agent": agent, "incarnation": incarnation, "number": self._count, "command": [*command]}
        start |= {"more": {**more}, "row": self.launcher.board.all_rows[agent].tolist()}
        self.talk.do(self.talk.begin(life, start, self._donor(agent, incarnation)))
        return life

    def wait(self, timeout: float) -> list[RemoteLife]:
        """The processes that have ended meanwhile."""
        self._say()
        for each in self._answers():
            self.talk.do(self.talk.answer(*each))
        ended: list[RemoteLife] = []
        with suppress(queue.Empty):
            news = self.talk.news.get(timeout=timeout)
            while True:
                ended += self._take(*news)
                news = self.talk.news.get_nowait()
        return ended

    def signal(self, number: signal.Signals, agents: Sequence[int] | None = None) -> None:
        whom = None if agents is None else [*agents]
        for machine in self._machines():
            self.talk.do(self.talk.ask(machine, "signal", int(number), whom))

    @property
    def links(self) -> Mapping[int, MachineSeen]:
        """What is seen of each machine, but for those that are lost and those that never answered."""
        now, links = time.monotonic(), self.talk.exchange.links
        known = {m: links[m] for m in self._machines() if m in links and links[m].heard}
        return {m: MachineSeen(self.fleet.called(m), now - at.heard, at.received) for m, at in known.items()}

    def machine(self, agent: int) -> int:
        return self.fleet.hosts[agent]

    def see_models(self, most: float = math.inf) -> None:
        self.talk.wait(self.talk.models(most), MODELS)

    def close(self) -> None:
        """Bring what the machines have of the run, and leave nothing there."""
        talk = self.talk
        talk.wait(talk.no_more(), math.inf)
        self._say()
        for each in self._answers():
            talk.wait(talk.answer(*each), ENDS)
        for machine in self._machines():
            talk.wait(talk.finish(machine), math.inf)
        talk.end()
        self.fleet.end()
        with suppress(queue.Empty):
            while True:
                what, news = talk.news.get_nowait()
                if what == "line":
                    self.on_output(*news)

    # -- in the launcher's thread ----------------------------------------------------------------------

    def _machines(self) -> list[int]:
        return [machine for machine in range(len(self.fleet.names)) if machine not in self.talk.lost]

    def _say(self) -> None:
        """Have said what has changed."""
        board, members = self.launcher.board, self.launcher.shared / MEMBERS
        leaves = enumerate(board.rows[:, Row.LEAVES].tolist())
        said = {
            "hosts": [*self.fleet.hosts], "names": [*self.fleet.names], "agents": board.n,
            "order": int(board.order), "zero": board.zero, "last_step": board.last_step,
            "changes": board.since(0), "starts": [*self.talk.starts.values()],
            "members": members.read_text() if members.exists() else "",
            "leaves": {i: what for i, what in leaves if what},
        }  # fmt: skip
        self.talk.say(said)

    def _take(self, what: str, news: Any) -> list[RemoteLife]:
        match what:
            case "line":
                self.on_output(*news)
            case "ended":
                machine, ended = news
                return [] if (life := self._ended(machine, ended)) is None else [life]
            case "lost":
                return self._lose(*news)
            case "asked":
                machine, token, request = news
                if (machine, token) not in self._asked:
                    self._asked[machine, token] = False
                    put(self.launcher.shared, f"{machine}-{token}", Request.of(request))
            case "failed":
                raise news
        return []

    def _donor(self, agent: int, incarnation: int) -> int:
        """From whose checkpoint an agent starts that had none when the run went on; -1: from nobody's."""
        settings = self.launcher.settings
        new = settings.resume and incarnation == 1 and agent < self.launcher.board.n
        if not new or latest(agent_folder(settings.folder, agent)):
            return -1
        return donor_of(settings.folder, agent, settings.growing().after(settings.grown))

    def _ended(self, machine: int, ended: Ended) -> RemoteLife | None:
        life = self.running.get(ended.agent)
        if life is None or (life.machine, life.incarnation) != (machine, ended.incarnation):
            return None
        life.code = ended.code
        self.launcher.board.all_rows[ended.agent] = ended.row
        return self._gone(life, ended.failure)

    def _gone(self, life: RemoteLife, failure: Mapping[str, Any] | None) -> RemoteLife:
        if failure is not None:
            (self.launcher.shared / f"failure.{life.agent}").write_text(json.dumps(failure))
        self.talk.starts.pop(life.agent, None)
        del self.running[life.agent]
        return life

    def _lose(self, machine: int, why: str, silent: float) -> list[RemoteLife]:
        """All agents of a machine are lost at once; of their logs there is left what has come."""
        self.talk.lost[machine] = why
        board = self.launcher.board
        elapsed = max(1.0, (time.monotonic_ns() - board.zero) / 1e9)
        gone = [life for life in self.running.values() if life.machine == machine]
        for life in gone:
            life.code = -signal.SIGKILL
            what = f"its machine is lost: {self.fleet.called(machine)}, {why}"
            failure = Failure(what, ("machine", str(machine), str(time.monotonic())), what)
            self._gone(life, vars(failure))
            row = board.row(life.agent)  # versions that others may have seen are not used again
            row[Row.WRITES] += math.ceil(row[Row.WRITES] / elapsed * (silent + UNSEEN)) + 1
        return gone

    def _answers(self) -> list[tuple[int, str, bool, str]]:
        """What has become of the requests that were made on machines, each once: where, which, what."""
        open_ = [asked for asked, answered in self._asked.items() if not answered]
        found = {at: take_answer(self.launcher.shared, f"{at[0]}-{at[1]}") for at in open_}
        self._asked |= {at: True for at, said in found.items() if said is not None}
        return [(*at, *said) for at, said in found.items() if said is not None]
