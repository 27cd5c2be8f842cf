"""What another process of this user asks of a run that goes on: small files in the run's shared folder, or in
that of a machine of a run over several, whose gateway hands them to the launcher's.

    ask.TOKEN        the request, as JSON, put there in one piece; the launcher's bell is rung
    answer.TOKEN     whether it was done, and what became of it

Nobody else can enter the folder. What is no request is answered, or taken away, and does nothing; each is
taken out before it is worked on, and one after another.
"""

import json
import os
import pwd
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.engines.live.shm.board import LAUNCHER, Bell
from offbeat.engines.live.shm.run_folder import PLAN, living

ASK, ANSWER = "ask.", "answer."
LARGEST = 1 << 16  # bytes of a request
LOOK = 0.02  # seconds between looks for the answer


@dataclass(frozen=True)
class Request:
    """What is asked for: "join", so many agents, with these neighbours (None: by the graph's own rule); or
    "leave", one agent.
    """

    what: str
    agents: int = 1
    neighbours: tuple[int, ...] | None = None
    agent: int = -1

    @staticmethod
    def of(said: Any) -> "Request":
        """Of JSON. Raises ValueError for anything else."""
        match said:
            case {"what": "join" | "leave" as what, "agents": int(agents), "agent": int(agent), **more}:
                neighbours = more.pop("neighbours", None)
                whom = neighbours if isinstance(neighbours, list) else []
                if not more and (neighbours is None or all(type(j) is int for j in whom)):
                    return Request(what, agents, None if neighbours is None else tuple(whom), agent)
        raise ValueError(f"{said!r:.100} is no request")


# -- who asks --------------------------------------------------------------------------------------


def ask(run: Path, request: Request) -> str:
    """Have the launcher of this run do it; returns what became of it, which may take a while.

    Raises SettingError for a run that is not there, or is another user's, or where the launcher refuses;
    OffbeatError if the run ends meanwhile.
    """
    shared = shared_of(run)
    token = f"{os.getpid()}-{time.monotonic_ns()}"
    try:
        put(shared, token, request)
        with closing(Bell(shared, LAUNCHER)) as bell:
            bell.ring()
        while (said := take_answer(shared, token)) is None:
            if not any(path == shared for path, _ in living()):
                raise FileNotFoundError
            time.sleep(LOOK)
    except (FileNotFoundError, NotADirectoryError):
        raise OffbeatError(f"The run in {run} ended before it had answered.") from None
    done, text = said
    if not done:
        raise SettingError(text)
    return text


def shared_of(run: Path) -> Path:
    """The shared folder of the run whose results are in this one, and which goes on; or of this machine's
    part of a run of this name, or whose results are there on another one. Raises SettingError.
    """
    expected = "expected the results folder (--out) of an 'offbeat launch' that goes on"
    folder, there = run.resolve(), [*living()]
    for path, settings in there:
        if settings.get("folder") == str(folder):
            return path
    for path, _ in there:
        with suppress(OSError, ValueError, LookupError, TypeError):
            plan = json.loads((path / PLAN).read_text())
            if plan["run"] == str(run) or plan["out"] == str(folder):
                return path
    if not run.is_dir():
        name = "or, on any machine of a run on a cluster, the name that its launcher said"
        raise SettingError(f"There is no folder {run}; {expected}, {name}.")
    owner = run.stat().st_uid
    if owner != os.getuid():
        with suppress(KeyError):
            who = pwd.getpwuid(owner).pw_name
            raise SettingError(f"{run} belongs to the user {who}, whose run this is: only {who} can do that.")
        raise SettingError(f"{run} belongs to another user (number {owner}), and so does its run.")
    if (folder / "trace.npz").exists():
        raise SettingError(
            f"The run in {run} has ended: nobody can join or leave it. 'offbeat launch --resume --out {run}' "
            "goes on with it."
        )
    raise SettingError(f"No run goes on in {run}; {expected}.")


def put(shared: Path, token: str, request: Request) -> None:
    temporary = shared / f".{ASK}{token}"
    temporary.write_text(json.dumps(asdict(request)))
    temporary.replace(shared / f"{ASK}{token}")


def take_answer(shared: Path, token: str) -> tuple[bool, str] | None:
    """Whether what was asked for was done, and what became of it; None: there is no answer yet."""
    path = shared / f"{ANSWER}{token}"
    with suppress(FileNotFoundError):
        said = json.loads(path.read_text())
        path.unlink(missing_ok=True)
        return bool(said["done"]), str(said["said"])
    return None


# -- who is asked ----------------------------------------------------------------------------------


def requests(shared: Path, keep: bool = False) -> Iterator[tuple[str, Request]]:
    """The requests that have come, which are taken out (unless they are to be kept until they are answered),
    by their tokens; what is none is answered so.
    """
    try:
        names = sorted(path.name for path in shared.glob(f"{ASK}*"))
    except OSError:  # the folder was taken away, which the launcher notices
        return
    for name in names:
        token = name.removeprefix(ASK)
        try:
            said = json.loads(_content(shared / name))
            request = Request.of(said)
        except (OSError, ValueError, RecursionError) as error:
            _take_out(shared / name)
            answer(shared, token, False, f"The launcher could not read the request: {error}.")
        else:
            if not keep:
                _take_out(shared / name)
            yield token, request


def _take_out(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def _content(path: Path) -> bytes:
    """Of a regular file of this user's, no link. Raises OSError, ValueError."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(handle, "rb") as file:
        about = os.fstat(handle)
        if not stat.S_ISREG(about.st_mode) or about.st_uid != os.getuid() or about.st_size > LARGEST:
            raise ValueError("it is no small file of this user's")
        return file.read(LARGEST)


def answer(shared: Path, token: str, done: bool, said: str) -> None:
    """Say what became of a request. Who asked may be gone."""
    content: Mapping[str, object] = {"done": done, "said": said}
    temporary = shared / f".{ANSWER}{token}"
    with suppress(OSError):
        temporary.write_text(json.dumps(content))
        temporary.replace(shared / f"{ANSWER}{token}")
