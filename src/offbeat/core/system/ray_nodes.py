"""Nodes of a Ray cluster on this machine, started for some work: they end with it, and leave nothing.

Ray has SIGTERM end a process in ways of its own: where a node was started without a word, after half a
minute; where it is connected with a stack of C++, and with nothing tidied up. So what Ray does in starting is
done to its end (`whole`), and signals stay this process's. What a launcher left that was killed, the next
removes.
"""

import logging
import os
import re
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from textwrap import shorten
from threading import Event, Thread
from typing import Any, TypeVar

from offbeat.core.errors import SettingError
from offbeat.core.system import files, ray_tls

PREFIX = f"offbeat-ray-{os.getuid()}-"  # how the folders of such nodes begin
SAID = 300  # characters of what Ray says of a node that does not start
OURS = 0.01  # seconds between looks at whether Ray has taken a signal
SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP

Result = TypeVar("Result")


@contextmanager
def started(ray: Callable[[], Any], nodes: int, least: int) -> Iterator[str]:
    """A cluster of so many nodes on this machine, which wants a token that nobody else has; its address.

    Args:
        ray: imports Ray; raises SettingError where there is none
        least: cores that it shall count

    Raises SettingError where Ray cannot start one.
    """
    os.environ["RAY_AUTH_MODE"] = "token"  # before Ray is imported, which then knows one token for ever
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_worker_niceness", "0")  # else gateways, and agents, give way to all others
    os.environ.pop(ray_tls.USE, None)  # nothing of it leaves this machine
    ray()
    logging.getLogger("ray").setLevel(logging.ERROR)  # each look at a node that has not come yet is a line
    from ray.cluster_utils import Cluster as Nodes

    cores = max(os.cpu_count() or 1, -(-least // nodes))
    with _folder() as folder:
        temporary = folder / "ray"  # there Ray notes which cluster is this machine's: that is another one's
        temporary.mkdir()
        before, os.environ["RAY_TMPDIR"] = os.environ.get("RAY_TMPDIR"), str(folder)
        made, over = Nodes(), Event()
        try:
            head = {"include_dashboard": False, "temp_dir": str(temporary)}
            with _instead("set_kill_on_parent_death_linux", _apart):
                for number in range(nodes):
                    _start(made, over, number, nodes, num_cpus=cores, **({} if number else head))
            yield made.address
        finally:
            made.shutdown()
            over.set()
            del os.environ["RAY_TMPDIR"]
            os.environ |= {} if before is None else {"RAY_TMPDIR": before}


def _start(made: Any, over: Event, number: int, nodes: int, **about: Any) -> None:
    try:
        whole(lambda: made.add_node(**about), over)
    except Exception as error:
        said = shorten(in_a_line(error), SAID, placeholder=" (...)")  # it may hold a traceback
        what = f"Ray could not start node {number + 1} of {nodes} on this machine: {said}"
        do = "Is it busy, or short of memory? Try again when it is less so, or with fewer nodes"
        raise SettingError(f"{what.rstrip('.')}. {do}.") from None


def in_a_line(error: BaseException) -> str:
    """What Ray says, without its line breaks and its colours."""
    text = " ".join(re.sub("\x1b\\[[0-9;]*m", "", str(error)).split())
    return text or type(error).__name__


def whole(work: Callable[[], Result], until: Event | None = None) -> Result:
    """Have Ray do this in another thread, to its end: what has half begun nobody could end. An interrupt is
    raised after that; one more is, at once. Signals call meanwhile, and afterwards, whom they called before.

    Args:
        until: when the thread may end. Ray has its processes end with who started them, and the kernel
            counts as that the thread, not the process (`man 2const PR_SET_PDEATHSIG`)
    """
    made, errors, over = list[Result](), list[BaseException](), Event()

    def do() -> None:
        try:
            made.append(work())
        except BaseException as error:
            errors.append(error)
        over.set()
        if until is not None:
            until.wait()

    thread = Thread(target=do, name="offbeat begins", daemon=True)
    # Ray sets no handler of SIGTERM: in a thread that cannot be, and is an error
    with _instead("set_sigterm_handler", lambda _: lambda handler: None):
        try:
            thread.start()
            while not over.wait(OURS):
                _take_back()
        except KeyboardInterrupt:
            while thread.ident is not None and not over.wait(OURS):  # it has begun
                _take_back()  # or nobody would hear of one more
            raise
        finally:
            _take_back()
    for error in errors:
        raise error
    return made[0]


def _take_back() -> None:
    """Have signals call whom they called: of a thread Ray sets no handler in Python, but one in C++."""
    for number in SIGNALS:
        signal.signal(number, signal.getsignal(number) or signal.SIG_DFL)


def _apart(share_fate: Callable[[], None]) -> Callable[[], None]:
    """In place of what Ray calls in each process that it starts, before that is what it will be: it has a
    group of its own, too. A signal to this one's, as of Ctrl-C or `timeout`, is then for this process, which
    ends them in order; Ray looks for them a minute long where they end before.
    """

    def apart() -> None:
        os.setpgid(0, 0)
        share_fate()

    return apart


@contextmanager
def _instead(name: str, other: Callable[[Any], Any]) -> Iterator[None]:
    """Ray calls `other` of a function of its own, in place of that."""
    from ray._private import utils

    own = getattr(utils, name)
    setattr(utils, name, other(own))
    try:
        yield
    finally:
        setattr(utils, name, own)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder for Ray's files, whose lock this process holds; those of dead ones are removed before."""
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if path.lstat().st_uid == os.getuid() and (lock := files.take(path)) is not None:
                shutil.rmtree(path, ignore_errors=True)
                lock.release()
    coming = Path(tempfile.mkdtemp(prefix=f".{PREFIX}"))
    try:
        held = files.take(coming)
        folder = coming.rename(coming.with_name(coming.name[1:]))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if held is not None:
                held.release()
    finally:
        shutil.rmtree(coming, ignore_errors=True)
