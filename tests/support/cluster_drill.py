"""Kills in runs over two nodes of a Ray cluster on this machine: twenty from one seed, and what came of each.

    python tests/support/cluster_drill.py [--seed 0] [--kill 7]

Five runs of four agents meet four kills each, one after another: an agent, a gateway and the launcher in some
order, then a machine (all of its processes, or its keeper) or the cluster's head. After each all agents make
steps again, and what is made on one machine comes to the other. At the end the trace replays to the bit
(unless it says that it is damaged, which only the death of a machine may do), and nothing is left: no
process, shared memory, folder or actor. `--kill 7` repeats the run that this one is of, up to it.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from random import Random
from typing import Any, Protocol

from raylets import Raylets, raylets

from offbeat.core.errors import OffbeatError
from offbeat.engines.live.cluster.gateway import HOSTS
from offbeat.engines.live.cluster.keeper import RESULTS, STATE, TOUCHED, gone
from offbeat.engines.live.node.log import damage
from offbeat.engines.live.shm.board import Board, Row
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.run_folder import PLAN, PREFIX, SHARED
from offbeat.engines.trace import Trace
from offbeat.experiments.replaying import replayed

_SCRIPT = """
import sys, time, torch, offbeat
from pathlib import Path

agent = offbeat.join()
x = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
model = torch.nn.Module()
model.x = x
optimizer = agent.wrap(model, torch.optim.SGD(model.parameters(), lr=0.05))
while {goes_on}:
    optimizer.zero_grad()
    (x - agent.rank).square().sum().backward()
    optimizer.step()
    time.sleep({pause})
print("at", x.tolist())
"""


def script(goes_on: str, pause: float) -> str:
    """Of an agent that is drawn to its rank, as long as that is so; seconds between its steps."""
    return _SCRIPT.format(goes_on=goes_on, pause=pause)


SCRIPT = script("not Path(sys.argv[1]).exists()", 0.02)

ALGORITHMS = "adsgd", "dsgd", "adpsgd", "rfast"
FIRST, LAST = ("agent", "gateway", "launcher"), ("machine", "head", "keeper")
ON = 10  # steps that every agent is to make after a kill
DIES = 60.0  # seconds that a process may take to be gone that was killed
FATAL = "machine", "keeper"  # of which the end of logs may be lost


@dataclass(frozen=True)
class Kill:
    """`victim`: the agent, or the machine; `wait`: after so many steps of agent 0."""

    number: int
    what: str
    victim: int
    wait: int

    def __str__(self) -> str:
        whom = {
            "agent": f" {self.victim}",
            "gateway": f" of machine {self.victim}",
            "launcher": "",
            "head": "",
        }
        return f"{self.what}{whom.get(self.what, f' {self.victim}')}"


def schedule(seed: int, runs: int = 5, agents: int = 4) -> list[tuple[str, list[Kill]]]:
    """Of each run, its algorithm and kills. The same seed, the same kills."""
    random, numbers = Random(seed), count()
    found = []
    for run in range(runs):
        kinds = [*random.sample(FIRST, len(FIRST)), LAST[run % len(LAST)]]
        kills = []
        for what in kinds:
            victim = random.randrange(agents) if what == "agent" else random.randrange(2)
            victim = 1 if what == "machine" else victim  # the head's node is machine 0
            kills.append(Kill(next(numbers), what, victim, random.randrange(1, 60)))
        found.append((ALGORITHMS[run % len(ALGORITHMS)], kills))
    return found


def until(what: Callable[[], Any], seconds: float = 200.0) -> Any:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


class Launching(Protocol):
    """A launcher that has been started. `said`: what it has printed."""

    def poll(self) -> int | None: ...
    def wait(self, seconds: float) -> int: ...
    def kill(self) -> None: ...
    @property
    def said(self) -> str: ...


@dataclass
class Cold:
    """One in an interpreter of its own, as a user has it."""

    process: "subprocess.Popen[str]"
    path: Path

    def poll(self) -> int | None:
        return self.process.poll()

    def wait(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def kill(self) -> None:
        self.process.kill()

    @property
    def said(self) -> str:
        return self.path.read_text()


def cold(nodes: Raylets, folder: Path, *words: str) -> Launching:
    """Start one there: `offbeat` with these words."""
    path = folder / f"said-{len([*folder.glob('said-*')])}"
    about: dict[str, Any] = {"cwd": folder, "env": nodes.env, "stderr": subprocess.STDOUT, "text": True}
    with path.open("w") as out:
        return Cold(subprocess.Popen([sys.executable, "-m", "offbeat", *words], stdout=out, **about), path)


@dataclass
class Drilled:
    """A run over the nodes, and its launchers."""

    nodes: Raylets
    folder: Path
    agents: int
    algorithm: str
    name: str = ""
    start: Callable[..., Launching] = cold
    launchers: list[Launching] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)  # of its folders in shared memory

    def begin(self) -> None:
        (self.folder / "train.py").write_text(SCRIPT)
        self._launch(
            "-n",
            str(self.agents),
            "--algorithm",
            self.algorithm,
            "--place",
            "spread",
            "train.py",
            str(self.done),
        )
        self.name = until(lambda: re.search(r"this is run (\S+):", self.said) or self._ended())[1]
        until(lambda: len(self.steps) == self.agents and min(self.steps.values()) > 5)

    @property
    def done(self) -> Path:
        return self.folder / "done"

    @property
    def said(self) -> str:
        """What the newest launcher has printed."""
        return self.launchers[-1].said

    def _launch(self, *arguments: str) -> None:
        words = "launch", "--ray", self.nodes.address, *arguments
        self.launchers.append(self.start(self.nodes, self.folder, *words))

    def _ended(self) -> bool:
        assert self.launchers[-1].poll() is None, self.said
        return False

    @property
    def shared(self) -> dict[int, Path]:
        """The run folders of its machines."""
        found: dict[int, Path] = {}
        for path in SHARED.glob(f"{PREFIX}*/{PLAN}"):
            with suppress(OSError, ValueError):
                plan = json.loads(path.read_text())
                found |= {plan["machine"]: path.parent} if plan["run"] == self.name else {}
        self.seen |= {path.name for path in found.values()}
        return found

    def _boards(self) -> Iterator[tuple[int, Path, list[int], Board]]:
        """Of each machine that has a keeper: its folder, where it thinks that agents live, its board."""
        for machine, folder in self.shared.items():
            with suppress(OSError, OffbeatError, ValueError):
                if gone(folder):
                    continue  # what is left of a machine that was killed
                hosts = json.loads((folder / HOSTS).read_text())["hosts"]
                yield machine, folder, hosts, Board.attach(folder / "board")

    @property
    def steps(self) -> dict[int, int]:
        """Of each agent whose process lives, on the board of its own machine."""
        found: dict[int, int] = {}
        for machine, _, hosts, board in self._boards():
            found |= {
                i: int(board.rows[i, Row.STEPS])
                for i, host in enumerate(hosts)
                if host == machine and _lives(int(board.rows[i, Row.PID]))
            }
        return found

    @property
    def mirrored(self) -> dict[tuple[int, str], int]:
        """The newest version of each register that a machine mirrors of another that lives."""
        found = {}
        there = {machine for machine, *_ in self._boards()}
        for machine, folder, hosts, board in self._boards():
            for i, host in enumerate(hosts):
                life = int(board.rows[i, Row.INCARNATION])
                for path in folder.glob(f"register.{i}.{life}.*") if host in there - {machine} else ():
                    with suppress(OffbeatError):
                        found[machine, path.name] = Register.attach(path).newest
        return found

    def go_on(self) -> float:
        """Until all agents have made steps from now on, and machines see what others have made; seconds."""
        began = time.monotonic()
        before = until(lambda: self._all() or self._ended())
        until(lambda: (now := self._all()) and all(now.get(i, 0) >= before[i] + ON for i in before))
        seen = self.mirrored
        until(lambda: all(now > seen.get(name, 0) for name, now in self.mirrored.items()))
        return time.monotonic() - began

    def _all(self) -> dict[int, int]:
        return found if len(found := self.steps) == self.agents else {}

    # -- kills -----------------------------------------------------------------------------------------

    def kill(self, kill: Kill) -> None:
        """Have it happen; what has to be done about it, by hand, too."""
        begin = until(lambda: self.steps.get(0))
        until(lambda: self.steps.get(0, 0) >= begin + kill.wait)
        getattr(self, f"_{kill.what}")(kill.victim)

    def _agent(self, victim: int) -> None:
        for machine, folder, hosts, board in self._boards():
            if hosts[victim] == machine:
                old = int(board.rows[victim, Row.INCARNATION])
                os.kill(int(board.rows[victim, Row.PID]), signal.SIGKILL)
                until(lambda: Board.attach(folder / "board").rows[victim, Row.INCARNATION] > old)  # noqa: B023

    def _gateway(self, victim: int) -> None:
        touched = self.shared[victim] / TOUCHED
        pid = int(touched.read_text())
        os.kill(pid, signal.SIGKILL)
        until(lambda: int(touched.read_text() or pid) != pid)

    def _launcher(self, _: int = 0) -> None:
        self.launchers[-1].kill()
        self.launchers[-1].wait(DIES)
        self.go_on()
        before = len(self._seen)
        self._launch("--attach", self.name)
        until(lambda: self._seen[before:].count("running") >= self.agents or self._ended())

    @property
    def _seen(self) -> list[str]:
        """In what state launchers have seen each agent, one look after the other."""
        lines = (self.folder / "offbeat-runs" / "train-0" / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line)["state"] for line in lines]

    def _keeper(self, victim: int) -> None:
        kept = json.loads((self.shared[victim] / STATE).read_text())
        for pid in (kept["pid"], *(pid for _, pid, _ in kept["running"].values())):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _machine(self, victim: int) -> None:
        gateway = int((self.shared[victim] / TOUCHED).read_text())
        self._keeper(victim)
        os.kill(gateway, signal.SIGKILL)
        self.nodes.do(f"kill {victim}")

    def _head(self, _: int) -> None:
        self.nodes.do("kill-head")
        self.go_on()
        self.nodes.do("start-head")
        self.go_on()
        self._launcher()

    # -- the end ---------------------------------------------------------------------------------------

    def end(self, kills: Sequence[Kill]) -> str:
        """Have it end in order; what there is to say of it."""
        self.done.touch()
        code = self.launchers[-1].wait(200.0)
        assert code == 0, self.said
        with suppress(AssertionError):
            until(lambda: not self.left, 20.0)
        assert not self.left, self.left
        folder = self.folder / "offbeat-runs" / "train-0"
        trace = Trace.load(folder / "trace.npz")
        if damage(trace):
            assert any(each.what in FATAL for each in kills), damage(trace)
            return "the end of logs is lost, as the trace says"
        assert replayed(trace, folder).same
        return f"{len(trace.writes)} writes replay to the bit"

    @property
    def left(self) -> list[str]:
        """What there is of the run."""
        names = [
            self.name.encode(),
            *(name.encode() for name in self.seen | {p.name for p in self.shared.values()}),
        ]
        found = [str(path) for path in self.shared.values()]
        found += map(str, Path(tempfile.gettempdir()).glob(f"{RESULTS}{self.name}-*"))
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                about = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
                if int(path.name) != os.getpid() and any(name in about for name in names):
                    found.append(path.name)
        actors = self.nodes.ask(f"actors {self.name}")
        return found + ([] if actors == "none" else [actors])

    def stop(self) -> None:
        """After something went wrong: nothing is to go on."""
        self.done.touch()
        for launcher in self.launchers:
            if launcher.poll() is None:
                launcher.kill()
                launcher.wait(DIES)
        for victim in self.shared:
            with suppress(OSError, ValueError):
                self._keeper(victim)


def _lives(pid: int) -> bool:
    return pid > 0 and Path(f"/proc/{pid}").exists()


def drill(
    nodes: Raylets, folder: Path, algorithm: str, kills: Sequence[Kill], agents: int = 4,
    say: Callable[[str], None] = print, start: Callable[..., Launching] = cold,
) -> None:  # fmt: skip
    """A run that meets these kills. Raises AssertionError if it does not go on as it should.

    Args:
        start: starts a launcher, as `cold` does
    """
    run = Drilled(nodes, folder, agents, algorithm, start=start)
    try:
        run.begin()
        for each in kills:
            began = time.monotonic()
            run.kill(each)
            run.go_on()
            say(f"kill {each.number} ({algorithm}): {each}; all go on {time.monotonic() - began:.1f} s later")
        say(f"{algorithm}: {run.end(kills)}; nothing is left")
    except BaseException:
        run.stop()
        raise


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kill", type=int, help="only the run that this one is of, up to it")
    options = parser.parse_args()
    chosen = schedule(options.seed)
    if options.kill is not None:
        chosen = [
            (algorithm, [each for each in kills if each.number <= options.kill])
            for algorithm, kills in chosen
            if options.kill in [each.number for each in kills]
        ]
    failed = []
    for algorithm, kills in chosen:
        with raylets(2) as nodes, tempfile.TemporaryDirectory() as folder:
            try:
                drill(nodes, Path(folder), algorithm, kills, say=lambda line: print(line, flush=True))
            except AssertionError as error:
                said = [path.read_text() for path in sorted(Path(folder).glob("said-*"))]
                print(*said, f"{algorithm}, kills {[str(each) for each in kills]}: {error!r}", sep="\n")
                failed.append(kills[-1].number)
    if failed:
        again = ", ".join(f"--seed {options.seed} --kill {number}" for number in failed)
        sys.exit(f"These did not go as they should: {again}")


if __name__ == "__main__":
    main()
