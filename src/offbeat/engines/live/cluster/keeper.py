"""The process that the agents of a machine hang on: it starts them, sees them end, and owns their run folder.

It is nobody's child, so neither the gateway's end nor Ray's takes the agents with it. Who runs the machine's
gateway talks to it by files in the run folder, which outlive both:

    do.TIME         what is asked, JSON; taken in order. "start" an agent's next life, "signal" agents,
                    "heard" of endings up to a number, "end" it all (with "keep", what was written stays)
    keeper.json     what there is to know, replaced whole: which lives run, which have ended
    gateway         touched by the gateway at every beat

When no gateway has touched it for `grace` seconds, nobody will come: the agents are told to save and end, and
so ends the keeper; what they have written stays where it is. Where it belongs to a process of this machine
(`owner`), it ends with that.
"""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system import files
from offbeat.core.system.signals import handled, readable
from offbeat.engines.live.launcher.children import Child, Children, pidfd
from offbeat.engines.live.node import log
from offbeat.engines.live.node.ending import take
from offbeat.engines.live.places import CHECKPOINTS, log_path
from offbeat.engines.live.shm.board import Bell, Board, Order, Row, State
from offbeat.engines.live.shm.run_folder import PLAN, PREFIX, SHARED, Shared, make_run_folder, sweep

KEEPER = -2  # whose bell is the keeper's
STATE, TOUCHED = "keeper.json", "gateway"
MARK = "cluster.json"  # in the launcher's folder: the name of the run
LEFT = ".left"  # in the folder of a run for whose results nobody has come
RESULTS = f"offbeat-{os.getuid()}-"  # how such folders begin
RAYS = ("PYTHONBREAKPOINT", "SPT_NOENV", "PYTHONPATH")  # which Ray sets for its workers
TICK, PATIENCE = 0.25, 30.0  # seconds between looks; that agents have to save when no gateway comes any more


@dataclass(frozen=True)
class Plan:
    """What a machine is told when it joins a run.

    Attributes:
        run: the name of the run
        machine: which machine this is, from 0
        agents: how many there are
        settings: the run's, as `RunSettings.record` has them
        out: the launcher's folder; where this machine sees it too, checkpoints go there
        folder: the working folder of the agents; empty: where the gateway is
        needs: files without which no agent can begin
        command: what Python runs for an agent
        node: what Ray calls the machine
        grace: seconds without a gateway after which the agents are told to end
        owner: a process of this machine with which all ends; 0: none
        environment: what the agents' environment has besides
        hosts: the machine of each agent when the run began
    """

    run: str
    machine: int
    agents: int
    settings: Mapping[str, Any]
    out: str
    folder: str = ""
    needs: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    node: str = ""
    grace: float = 60.0
    owner: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    hosts: tuple[int, ...] = ()

    @property
    def results(self) -> Path:
        """Where this machine's agents write their logs and checkpoints; called as the launcher's folder."""
        return self.own / Path(self.out).name

    @property
    def own(self) -> Path:
        """The folder of this run and machine, on its disk."""
        return Path(gettempdir()) / f"{RESULTS}{self.run}-{self.machine}"

    @property
    def shared(self) -> bool:
        """Whether this machine sees the launcher's folder, as where it is on a file server."""
        with suppress(OSError, ValueError, LookupError, TypeError):
            return bool(json.loads((Path(self.out) / MARK).read_text())["run"] == self.run)
        return False


@dataclass(frozen=True)
class Ended:
    """The end of a life, as the launcher is told of it.

    Attributes:
        row: the agent's row of the board, at the end
        failure: what its process said, as JSON has it
        silent: the place in its output that holds that, and is not to be shown
        logged: bytes of its log, without what was not written whole
    """

    number: int
    agent: int
    incarnation: int
    code: int
    row: list[int]
    failure: dict[str, Any] | None
    silent: tuple[int, int]
    logged: int


def find(run: str, machine: int) -> Path | None:
    """The run folder of this machine's keeper, if there is one."""
    for path in sorted(SHARED.glob(f"{PREFIX}*")):
        with suppress(OSError, ValueError, LookupError):
            plan = json.loads((path / PLAN).read_text())
            if (plan["run"], plan["machine"]) == (run, machine) and path.stat().st_uid == os.getuid():
                return path
    return None


def gone(folder: Path) -> bool:
    """Whether the keeper whose run folder this is has ended, however: it holds the folder's lock."""
    try:
        lock = files.take(folder)
    except OSError:
        return True
    if lock is not None:
        lock.release()
    return lock is not None


def replace(path: Path, content: bytes) -> None:
    """Write a file of the run folder so that whoever reads it finds all of it or nothing."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(path)


def ask(folder: Path, **what: Any) -> None:
    """Ask something of the keeper whose run folder this is; what is asked twice is done once."""
    replace(folder / f"do.{time.monotonic_ns():020d}", json.dumps(what).encode())
    with closing(Bell(folder, KEEPER)) as bell:
        bell.ring()


def touch(folder: Path) -> None:
    """Say that this machine has a gateway: the file's time is one of the monotonic clock."""
    (folder / TOUCHED).touch()
    os.utime(folder / TOUCHED, ns=(time.monotonic_ns(), time.monotonic_ns()))


class Keeper:
    """The agents of this machine; `run` returns when all is over."""

    def __init__(self, plan: Plan, room: Shared) -> None:
        self.plan, self.folder = plan, room.path
        self.board = Board.create(self.folder / "board", plan.agents)
        self.bell = Bell(self.folder, KEEPER)
        self.children = Children(self.bell.handle, lambda agent, line: None)
        self.starts: dict[int, int] = {}  # agent -> the number of its newest start
        self.ended: list[Ended] = []
        self.numbers, self.over, self.kept, self.deadline = 0, False, False, 0.0
        touch(self.folder)
        self._tell()
        replace(self.folder / PLAN, json.dumps(asdict(plan)).encode())  # last: who finds it finds all

    def run(self) -> None:
        owner = pidfd(self.plan.owner) if self.plan.owner else None
        with closing(self.children), handled(lambda number: self._give_up()):
            while not self.over:
                for child in self.children.wait(TICK):
                    self._ended(child)
                for path in sorted(self.folder.glob("do.*")):
                    self._do(json.loads(path.read_bytes()))
                    path.unlink()
                self._look(owner)

    def _do(self, asked: Mapping[str, Any]) -> None:
        match asked["what"]:
            case "start" if asked["number"] > self.starts.get(asked["agent"], 0):
                self._start(asked, asked["agent"])
            case "signal":
                self.children.signal(signal.Signals(asked["number"]), asked["agents"])
            case "heard":
                self.ended = [each for each in self.ended if each.number > asked["number"]]
            case "end":
                self.over, self.kept = True, asked["keep"]
        self._tell()

    def _start(self, asked: Mapping[str, Any], agent: int) -> None:
        self.starts[agent], mine = asked["number"], self.board.row(agent)
        leaves = mine[Row.LEAVES]  # which comes by another way
        self.board.all_rows[agent], mine[Row.LEAVES] = asked["row"], leaves
        environment = {**asked["more"], **self.plan.environment, "OFFBEAT_RUN": str(self.folder)}
        output = self.plan.results / f"agent-{agent}.log"
        child = self.children.start(agent, asked["incarnation"], asked["command"], environment, output)
        mine[Row.PID] = child.pid

    def _ended(self, child: Child) -> None:
        i, row, printed = (
            child.agent,
            self.board.all_rows[child.agent],
            self.plan.results / f"agent-{child.agent}.log",
        )
        failure, path, size = take(self.folder, i), log_path(self.plan.results, i), _size(printed)
        silent = 0 if failure is None else len(failure.text.encode(errors="replace")) + 1
        logged = log.read(path).end if path.exists() and child.code else _size(path)
        self.numbers += 1
        self.ended.append(
            Ended(
                self.numbers, i, child.incarnation, child.code, row.tolist(),
                None if failure is None else asdict(failure), (size, size + silent), logged,
            )
        )  # fmt: skip
        if row[Row.STATE] != State.LEFT:
            row[Row.STATE] = State.ABSENT
        self._tell()
        if failure is not None:
            child.output.keep(failure.text)  # after that is told: nobody takes it for what it printed

    def _look(self, owner: int | None) -> None:
        """End where nobody will come any more."""
        if owner is not None and readable([owner], 0.0):
            self.over = True
        elif self.deadline:
            self.over = not self.children.running or time.monotonic() > self.deadline
        else:
            with suppress(OSError):
                touched = (self.folder / TOUCHED).stat().st_mtime_ns
                if time.monotonic_ns() - touched > 1e9 * self.plan.grace:
                    self._give_up()

    def _give_up(self) -> None:
        """Have the agents save and end: after that there is nobody to answer."""
        self.deadline = time.monotonic() + PATIENCE
        self.board.order = Order.END
        for i in range(self.board.n):
            with closing(Bell(self.folder, i)) as bell:
                bell.ring()

    def _tell(self) -> None:
        running = {i: [c.incarnation, c.pid, c.started] for i, c in self.children.running.items()}
        said = {
            "pid": os.getpid(),
            "starts": self.starts,
            "running": running,
            "ended": [asdict(each) for each in self.ended],
        }
        replace(self.folder / STATE, json.dumps(said).encode())
        with closing(Bell(self.folder, -1)) as bell:
            bell.ring()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def make_results(plan: Plan) -> files.Lock | None:
    """Make the folder of this run and machine, whose lock is held before the folder has its name: whoever
    tidies up never finds it without.
    """
    coming = plan.own.with_name(f".{plan.own.name}")
    coming.mkdir(mode=0o700)
    held = files.take(coming)
    (coming / plan.results.name).mkdir()
    coming.rename(plan.own)
    return held


def tidy() -> None:
    """Remove what keepers left that were killed."""
    sweep()
    for path in Path(gettempdir()).glob(f"{RESULTS}*"):
        with suppress(OSError):
            ours = path.is_dir() and path.lstat().st_uid == os.getuid() and not (path / LEFT).exists()
            if ours and (lock := files.take(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                lock.release()


def _enter(plan: Plan) -> None:
    """Be where the agents are to be, in an environment without what Ray keeps there for its own workers."""
    for name in [name for name in os.environ if name.startswith("RAY_") or name in RAYS]:
        del os.environ[name]
    if plan.folder and not Path(plan.folder).is_dir():
        raise SettingError(f"there is no folder {plan.folder}")
    os.chdir(plan.folder or ".")
    for name in plan.needs:
        if not Path(name).exists():
            raise SettingError(f"there is no {name} (in {Path.cwd()})")


def main() -> None:
    """`python -P -m offbeat.engines.live.cluster.keeper PLAN`: become nobody's child, and keep.

    Whoever starts this waits until the keeper is there; if there can be none, the exit code is 1, and why is
    on standard error.
    """
    plan = Plan(**json.loads(sys.argv[1]))
    ready, told = os.pipe()
    if os.fork():
        os.close(told)
        with os.fdopen(ready) as file:
            why = file.read()
        sys.stderr.write(why)
        os._exit(bool(why))
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(null, handle)
    try:
        _enter(plan)
        tidy()
        held = make_results(plan)
        if plan.shared:
            (Path(plan.out) / CHECKPOINTS).mkdir(exist_ok=True)
            (plan.results / CHECKPOINTS).symlink_to(Path(plan.out) / CHECKPOINTS)
        room = make_run_folder({**plan.settings, "folder": str(plan.results)})
        keeper = Keeper(plan, room)
    except (OffbeatError, OSError) as error:
        os.write(told, f"{error}".encode())
        return
    os.close(told)
    try:
        keeper.run()
    finally:
        if keeper.kept or (keeper.deadline and keeper.starts):
            (plan.own / LEFT).touch()
        else:
            shutil.rmtree(plan.own, ignore_errors=True)
        tidy()  # of other nodes of this machine
        room.remove()  # last: without it, there is nothing left of the run here
        if held is not None:
            held.release()


if __name__ == "__main__":
    main()
