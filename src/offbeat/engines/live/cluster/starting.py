"""A cluster for a run: one that runs, or one that is started on this machine for the run.

Ray starts the gateways, starts them again when they die, keeps strangers out, and carries what they say.
"""

import json
import os
import re
import secrets
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx

from offbeat.core.errors import SettingError
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading
from offbeat.engines.live.cluster import placement
from offbeat.engines.live.cluster.attaching import newest
from offbeat.engines.live.cluster.fleet import ENDS, NAMESPACE, Machine, Named, RayFleet, name_of, why
from offbeat.engines.live.cluster.keeper import MARK, Plan
from offbeat.engines.live.cluster.remote import RemoteChildren
from offbeat.engines.live.cluster.wanted import KNOWN, Wanted
from offbeat.engines.live.launcher.children import OnOutput
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.faults import check_machine
from offbeat.engines.live.settings import RunSettings

QUIET = 2.0  # seconds since a launcher was heard of, after which it counts as dead


@contextmanager
def cluster(wanted: Wanted, agents: int) -> Iterator["Cluster"]:
    """The cluster that is wanted, for so many agents, connected; one that is started here ends with it.

    Raises SettingError where there is no Ray, or no such cluster, or it lets nobody in.
    """
    if wanted.local is not None:
        with _started(wanted.local, agents) as address, _connected(address, None) as ray:
            yield Cluster(ray, wanted, owner=os.getpid())
    else:
        with _connected(_checked(wanted.address), wanted.folder if wanted.ships else None) as ray:
            yield Cluster(ray, wanted)


@dataclass
class Cluster:
    """A Ray cluster with which this process is connected."""

    ray: Any
    wanted: Wanted
    owner: int = 0

    def __post_init__(self) -> None:
        nodes = [node for node in self.ray.nodes() if node["Alive"]]
        nodes.sort(key=lambda node: ("node:__internal_head__" not in node["Resources"], node["NodeID"]))
        self.machines = [
            Machine(
                node["NodeID"], node["NodeManagerHostname"], node["NodeManagerAddress"],
                node["NodeManagerPort"], *(node["Resources"].get(kind, 0.0) for kind in ("CPU", "GPU")),
            )
            for node in nodes
        ]  # fmt: skip

    def hosts(self, graph: nx.Graph) -> list[int]:
        """The machine of every agent. Raises SettingError where there is too little room."""
        rooms = [machine.room(self.wanted) for machine in self.machines]
        try:
            return placement.place(self.wanted.place, graph, rooms, self.wanted.strict)
        except SettingError as error:
            has = ", ".join(
                f"{m.name} {m.cpus:g} cores and {m.gpus:g} GPUs: {room}"
                for m, room in zip(self.machines, rooms, strict=True)
            )
            do = "Expected fewer agents, less for each (--cpus, --gpus, --per-machine), or more machines."
            raise SettingError(f"{error} {has}. {do}") from None

    def run(self, launcher: Launcher, hosts: Sequence[int], on_output: OnOutput) -> RemoteChildren:
        """The processes of a run on these machines, none of which has started yet."""
        for fault in launcher.settings.fault:
            check_machine(fault, len(self.machines))
        run = f"{launcher.settings.folder.name}-{secrets.token_hex(4)}"
        fleet = RayFleet(self.ray, self.wanted, self.machines, launcher, [*hosts], run, self.owner)
        write_atomically(launcher.settings.folder / MARK, json.dumps({"run": run}).encode())
        fleet.begin()
        on_output(0, f"this is run {run}: should this launcher die, --attach {run} goes on with it")
        return RemoteChildren(fleet, launcher, on_output)

    def find(self, run: str) -> "Found":
        """A run that goes on, whose launcher has died, by its name or folder. Raises SettingError if there is
        none.
        """
        if (mark := Path(run) / MARK).exists():
            with reading(mark, "the name of a run"):
                run = str(json_in(mark)["run"])
        actors = [each["name"] for each in self.ray.util.list_named_actors(all_namespaces=True)]
        runs = {name.rpartition(".")[0] for name in actors}
        if run not in runs:
            some = f"these go on: {', '.join(sorted(runs))}" if runs else "none goes on"
            raise SettingError(f"There is no run {run} on this cluster; {some}.")
        states = {}
        for name in [name for name in actors if name.rpartition(".")[0] == run]:
            try:
                answer = self.ray.get(Named(name).state.remote(), timeout=ENDS)
                states[int(name.rpartition(".")[2])] = answer
            except Exception as error:
                raise SettingError(f"The gateway {name} does not answer: {why(error)}") from None
        if min(state["looked"] for state in states.values()) < QUIET:
            raise SettingError(f"Run {run} has a launcher, which was heard of just now: expected a dead one.")
        return Found(self, run, states)


@dataclass
class Found:
    """A run that goes on, and what its gateways know of it."""

    cluster: Cluster
    run: str
    states: dict[int, Any]

    def __post_init__(self) -> None:
        self.known = newest(self.states)
        self.plan = Plan(**self.known["plan"])

    @property
    def settings(self) -> RunSettings:
        with reading(Path(self.plan.out), "the settings of a run"):
            return RunSettings.of(self.plan.settings, self.plan.out)

    def children(self, launcher: Launcher, bell: int, on_output: OnOutput) -> RemoteChildren:
        """The processes of the run."""
        nodes = {machine.node: machine for machine in self.cluster.machines}
        count = len(self.known["names"]) or len(self.states)
        machines = []
        for k in range(count):
            node = Plan(**self.states[k]["plan"]).node if k in self.states else ""
            machines.append(nodes.get(node, Machine("", "lost", "", 0, 0.0, 0.0)))
        handles = [Named(name_of(self.run, k)) for k in range(count)]
        hosts, wanted = [*self.known["hosts"]], replace(self.cluster.wanted, partition_grace=self.plan.grace)
        fleet = RayFleet(
            self.cluster.ray, wanted, machines, launcher, hosts, self.run, self.plan.owner, handles
        )
        return RemoteChildren(fleet, launcher, on_output, self.states)


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
    try:
        socket.create_connection((match[1].strip("[]"), int(match[2])), timeout=5.0).close()
    except (OSError, OverflowError) as error:
        raise SettingError(f"Nobody answers at --ray {address} ({error}); expected {KNOWN}.") from None
    return address


def _refuse_stranger(address: str) -> None:
    """Raise SettingError where the cluster wants another token; Ray would go on asking for 20 s."""
    try:
        from ray import _raylet
        from ray._private.services import canonicalize_bootstrap_address
        from ray.exceptions import AuthenticationError

        ask: Any = vars(_raylet)["GcsClient"]
    except (ImportError, LookupError):
        return  # another Ray, which says so later
    try:
        with _silenced():
            ask(address=canonicalize_bootstrap_address(address))
    except AuthenticationError:
        do = "Expected RAY_AUTH_MODE=token, and its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        raise SettingError(f"The cluster at --ray {address} lets in only who has its token. {do}.") from None
    except Exception:
        return  # `init` says what it is


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
    environment = {} if ship is None else {"runtime_env": {"working_dir": str(ship)}}
    _refuse_stranger(address)
    try:
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="error", **environment
        )
    except Exception as error:
        raise SettingError(f"Cannot use Ray at '{address}': {error} Expected {KNOWN}.") from None
    with suppress(ImportError):  # what Ray reports of workers and nodes, with their logs, is in its own files
        from ray._private import worker

        worker.print_to_stdstream = lambda *_, **__: None
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _started(nodes: int, agents: int) -> Iterator[str]:
    """A cluster of so many nodes on this machine, which wants a token that nobody else has; its address."""
    os.environ["RAY_AUTH_MODE"] = "token"  # before Ray is imported, which then knows one token for ever
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_worker_niceness", "0")  # else gateways, and agents, give way to all others
    _import()
    from ray.cluster_utils import Cluster as Nodes

    folder = tempfile.mkdtemp(prefix="offbeat-ray-")
    temporary = Path(folder, "ray")  # there Ray notes which cluster is this machine's: that is another one's
    temporary.mkdir()
    before, os.environ["RAY_TMPDIR"] = os.environ.get("RAY_TMPDIR"), folder
    cores = max(os.cpu_count() or 1, -(-agents // nodes))
    made = None
    try:
        about = {"num_cpus": cores, "include_dashboard": False, "temp_dir": str(temporary)}
        made = Nodes(True, head_node_args=about)
        for _ in range(nodes - 1):
            made.add_node(num_cpus=cores)
        yield made.address
    finally:
        if made is not None:
            made.shutdown()
        del os.environ["RAY_TMPDIR"]
        os.environ |= {} if before is None else {"RAY_TMPDIR": before}
        shutil.rmtree(folder, ignore_errors=True)
