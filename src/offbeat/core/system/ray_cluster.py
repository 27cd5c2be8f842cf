"""A Ray cluster to work on: one that runs, or one that is started on this machine and ends with the work.

    with cluster("10.0.0.1:6379", Path("folder/that/travels")) as ray:
        ray.nodes()

What would have Ray wait for ever, or end in pages of its own words, is looked at before and said in a
sentence: an address at which nobody is, a token or a certificate that is missing, versions that differ.
"""

import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from offbeat.core.errors import SettingError, failed
from offbeat.core.system import files, ray_tls, there
from offbeat.core.system.ray_nodes import in_a_line, started, whole
from offbeat.core.system.signals import terminable

LOCAL = re.compile(r"local:(\d+)")
KNOWN = "'auto', HOST:PORT of a cluster that runs, or 'local:2': so many nodes on this machine"
NAMESPACE = "offbeat"
TOKEN = "Expected RAY_AUTH_MODE=token, and its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
MOST = 32  # nodes on this machine, of some hundred megabytes each
PORTS = range(1, 1 << 16)
ANSWERS = 120.0  # seconds that a machine has to begin to answer
SAME = "Expected the same versions on every machine: pip install 'offbeat[ray]'"
FITS = "Expected less in the folder that travels, or in .gitignore what is to stay; or --no-ship"
INSTEAD = {"Version mismatch": SAME, "maximum size": FITS}
"""Words of Ray's -> what to do."""


@dataclass(frozen=True)
class Node:
    """A node of a cluster: a machine, but on trial."""

    node: str
    name: str
    address: str
    port: int
    cpus: float
    gpus: float


def local(address: str) -> int | None:
    """How many nodes are to be started on this machine; None: there is a cluster. Raises SettingError."""
    match = LOCAL.fullmatch(address)
    if match is not None and not 1 <= int(match[1]) <= MOST:
        raise SettingError(f"Got --ray {address}; expected 1 to {MOST} nodes, which are all on this machine.")
    return None if match is None else int(match[1])


@contextmanager
def cluster(address: str, ship: Path | None = None, least: int = 1) -> Iterator[Any]:
    """Ray, connected with the cluster at this address.

    Args:
        ship: a folder that travels to all machines, but for the results in it; what runs there begins in it
        least: cores that a cluster shall count that is started here

    Raises SettingError where there is no Ray, or no such cluster, or it lets nobody in.
    """
    nodes = local(address)
    with ExitStack() as stack:
        stack.enter_context(terminable())
        here = _checked(address) if nodes is None else stack.enter_context(started(_import, nodes, least))
        yield stack.enter_context(_connected(here, ship if nodes is None else None))


def nodes_of(ray: Any) -> list[Node]:
    """The nodes of the cluster that are alive, its head first."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    nodes.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
    return [
        Node(
            node["NodeID"], node["NodeManagerHostname"], node["NodeManagerAddress"],
            node["NodeManagerPort"], *(node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU")),
        )
        for node in nodes
    ]  # fmt: skip


def answering(ray: Any, nodes: Sequence[Node]) -> list[Any]:
    """An actor of `there.Answering` on each of them: needs no offbeat there, and ends with this process."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    ray.cloudpickle.register_pickle_by_value(there)
    actor = ray.remote(there.Answering)
    where = [On(at.node, soft=False) for at in nodes]
    return [actor.options(num_cpus=0, scheduling_strategy=at).remote() for at in where]


def refuse_differences(ray: Any, nodes: Sequence[Node], first: int = 0) -> None:
    """Raise SettingError where what has to be the same on every machine is not, on these, from number `first`
    on, and here.
    """
    here, wrong = there.versions(), list[str]()
    actors = answering(ray, nodes)
    asked = [actor.versions.remote() for actor in actors]
    for k, (node, answer) in enumerate(zip(nodes, asked, strict=True), start=first):
        try:
            other = differences(ray.get(answer, timeout=ANSWERS), here)
        except Exception as error:
            other = f"gives no answer: {in_a_line(error)}"
        wrong += [f"machine {k} ({node.name}) {other}"] if other else []
    if wrong:
        raise SettingError(f"Machines differ: {'; '.join(wrong)}. {SAME}.")


def differences(versions: Mapping[str, str], here: Mapping[str, str]) -> str:
    """What of another machine's versions is not as it is here, in words; empty: nothing."""
    other = {name: found for name, found in versions.items() if found != here[name]}
    told = [
        f"no {name}" if found == there.MISSING else f"{name} {found} (here {here[name]})"
        for name, found in other.items()
    ]
    return f"has {', '.join(told)}" if told else ""


def lets_strangers_in(address: str) -> bool:
    """Whether the cluster at this address answers a process without a token."""
    open_to = {name: value for name, value in os.environ.items() if not name.startswith("RAY_AUTH")}
    with tempfile.TemporaryDirectory() as home:  # where there is no token either
        code = f"from {__name__} import _refuse_stranger; _refuse_stranger({address!r})"
        command, environment = [sys.executable, "-P", "-c", code], {**open_to, "HOME": home}
        return not subprocess.run(command, env=environment, capture_output=True).returncode


def _import() -> Any:
    try:
        import ray
    except ImportError:
        raise SettingError("--ray needs Ray: pip install 'offbeat[ray]' installs it.") from None
    return ray


def _checked(address: str) -> str:
    """An address at which somebody answers. Raises SettingError."""
    match = re.fullmatch(r"(?:ray:)?([\w.\-]+|\[[0-9a-f:]+\]):(\d+)", address)
    if address == "auto":
        return address
    if match is None or address.startswith(("local", "ray:")):
        raise SettingError(f"Got --ray {address}; expected {KNOWN}.")
    if int(match[2]) not in PORTS:
        raise SettingError(f"Got --ray {address}; expected a port from {PORTS[0]} to {PORTS[-1]}.")
    _knock(address, match[1].strip("[]"), int(match[2]))
    return address


def _knock(address: str, host: str, port: int) -> None:
    """Raise SettingError where nobody answers. address: what the user calls it."""
    try:
        socket.create_connection((host, port), timeout=5.0).close()
    except OSError as error:
        what = f"--ray {address}, for Ray {host}:{port}" if host not in address else f"--ray {address}"
        raise SettingError(f"Nobody answers at {what} ({error}); expected {KNOWN}.") from None


def refuse_tokenless() -> None:
    """Raise SettingError where Ray is to show a token, and there is none: it would end this process."""
    if os.environ.get("RAY_AUTH_MODE", "").lower() != "token" or os.environ.get("RAY_AUTH_TOKEN"):
        return
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    why = f"{path} is empty"
    try:
        if path.read_text().strip():
            return
    except (OSError, ValueError) as error:
        why = failed(error) if isinstance(error, OSError) else f"{path} is no text"
    raise SettingError(f"RAY_AUTH_MODE is token, RAY_AUTH_TOKEN is not set, and {why}. {TOKEN}.")


def _refuse_stranger(address: str) -> None:
    """Raise SettingError where the cluster wants another token, or link; Ray would go on asking."""
    refuse_tokenless()
    try:
        from ray import _raylet
        from ray._private.services import canonicalize_bootstrap_address
        from ray.exceptions import AuthenticationError

        ask: Any = vars(_raylet)["GcsClient"]
        at = canonicalize_bootstrap_address(address)
    except (ImportError, LookupError):
        return  # another Ray, which says so later
    except ConnectionError:
        return  # `init` says what it is
    if at is not None and (parts := at.rpartition(":"))[2].isdecimal():
        host, port = parts[0].strip("[]"), int(parts[2])
        if at != address:  # 127.0.0.1 is another one to Ray
            _knock(address, host, port)
        ray_tls.refuse_other(address, host, port)
    try:
        with _silenced():
            ask(address=at)
    except AuthenticationError:
        who = "lets in only who has its token"
        raise SettingError(f"The cluster at --ray {address} {who}. {TOKEN}.") from None
    except Exception:
        return  # likewise


@contextmanager
def _silenced() -> Iterator[None]:
    """What Ray's C++ writes to standard error is not shown."""
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)


@contextmanager
def _connected(address: str, ship: Path | None) -> Iterator[Any]:
    ray = _import()
    travels = None if ship is None else {"working_dir": str(ship), "excludes": [files.RUNS]}
    about = {"address": address, "namespace": NAMESPACE, "log_to_driver": False, "logging_level": "error"}
    _refuse_stranger(address)
    try:
        try:
            whole(lambda: ray.init(**about, runtime_env=travels))
        except Exception as error:
            text = in_a_line(error)
            do = next((do for words, do in INSTEAD.items() if words in text), f"Expected {KNOWN}")
            raise SettingError(f"Cannot use Ray at '{address}': {text.rstrip('.')}. {do}.") from None
        with suppress(ImportError):  # what Ray says of workers and nodes is in its own files
            from ray._private import worker

            worker.print_to_stdstream = lambda *_, **__: None
        yield ray
    finally:
        ray.shutdown()
