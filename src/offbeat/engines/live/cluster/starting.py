"""A run's machines: nodes of a Ray cluster that runs, or one that is started on this machine for the run.

Ray starts the gateways, starts them again when they die, keeps strangers out, and carries what they say.
"""

import json
import os
import re
import secrets
import shutil
import socket
import tempfile
from collections.abc import Awaitable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import networkx as nx

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.engines.live.cluster import placement
from offbeat.engines.live.cluster.gateway import Gateway
from offbeat.engines.live.cluster.keeper import Plan
from offbeat.engines.live.cluster.peer import Handle, Peer
from offbeat.engines.live.cluster.remote import RemoteChildren
from offbeat.engines.live.cluster.wanted import KNOWN, Wanted
from offbeat.engines.live.launcher.children import OnOutput
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.faults import check_machine

NAMESPACE = "offbeat"
BEGINS, ENDS = 120.0, 10.0  # seconds that gateways have to be there, and to end what they began
GONE = ("ActorDiedError", "ActorUnschedulableError", "ValueError")  # of a gateway that Ray will not restart


@dataclass(frozen=True)
class Machine:
    """A node of the cluster."""

    node: str
    name: str
    address: str
    port: int
    cpus: float
    gpus: float

    def room(self, wanted: Wanted) -> int:
        """For how many agents."""
        by = [each for each in (wanted.per_machine,) if each is not None]
        by += [int(self.cpus / wanted.cpus)] if wanted.cpus else []
        by += [int(self.gpus / wanted.gpus)] if wanted.gpus else []
        return min(by, default=max(1, int(self.cpus)))


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
        fleet = RayFleet(self, launcher, [*hosts])
        fleet.begin()
        return RemoteChildren(fleet, launcher, on_output)


class _Actor(Gateway):
    """A gateway as a Ray actor."""

    def __init__(self, plan: str, hosts: list[int]) -> None:
        super().__init__(Plan(**json.loads(plan)), hosts, _by_name)


class _Named:
    """The actor of this name, looked up when it is asked: it may not be there yet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        import ray

        return getattr(ray.get_actor(self._name, NAMESPACE), method)


def _by_name(name: str) -> Peer:
    return Handle(_Named(name))


@dataclass
class RayFleet:
    """The machines of a run: see `remote.Fleet`."""

    cluster: Cluster
    launcher: Launcher
    hosts: list[int]
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.run = f"{self.launcher.settings.folder.name}-{secrets.token_hex(4)}"
        self.machines = self.cluster.machines
        self.names = [f"{self.run}.{machine}" for machine in range(len(self.machines))]
        self.handles: list[Any] = []

    def begin(self) -> None:
        """Start the gateways. Raises OffbeatError for a machine that cannot take part."""
        ray = self.cluster.ray
        try:
            self.handles = [self._gateway(machine) for machine in range(len(self.machines))]
            for machine, handle in enumerate(self.handles):
                try:
                    ray.get(handle.clock.remote(), timeout=BEGINS)
                except Exception as error:
                    raise SettingError(f"{self.called(machine)}: {_why(error)}") from None
        except BaseException:
            with suppress(Exception):
                ray.get([handle.end.remote() for handle in self.handles], timeout=ENDS)
            self.end()
            raise

    def end(self) -> None:
        for handle in self.handles:
            with suppress(Exception):
                self.cluster.ray.kill(handle)

    def _gateway(self, machine: int) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        wanted, mine = self.cluster.wanted, self.hosts.count(machine)
        s, owner = self.launcher.settings, self.cluster.owner
        folder, grace = "" if wanted.ships else str(Path.cwd()), wanted.partition_grace
        plan = Plan(self.run, machine, s.record(), str(s.folder), folder, grace=grace, owner=owner)
        options = {
            "name": self.names[machine], "namespace": NAMESPACE, "lifetime": "detached",
            "max_restarts": -1, "max_concurrency": 10_000,
            "num_cpus": (wanted.cpus or 0) * mine, "num_gpus": (wanted.gpus or 0) * mine,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(self.machines[machine].node, soft=False),
        }  # fmt: skip
        actor = self.cluster.ray.remote(_Actor).options(**options)
        return actor.remote(json.dumps(asdict(plan)), self.hosts)

    def peer(self, machine: int) -> Peer:
        return Handle(self.handles[machine])

    def ask(self, machine: int, what: str, *args: Any) -> Awaitable[Any]:
        answer: Awaitable[Any] = getattr(self.handles[machine], what).remote(*args)
        return answer

    def lost(self, machine: int, error: Exception, silent: float) -> str:
        at = self.machines[machine]
        if type(error).__name__ in GONE:
            return "of which Ray says that it is gone"
        try:
            socket.create_connection((at.address, at.port), timeout=0.5).close()
        except ConnectionRefusedError:
            return "on which no Ray runs any more"
        except OSError:
            pass
        return (
            f"which has not answered for {silent:.0f} s"
            if silent > self.cluster.wanted.partition_grace
            else ""
        )

    def elsewhere(self, agent: int, lost: Sequence[int]) -> int:
        left = [machine for machine in range(len(self.machines)) if machine not in lost]
        wanted = self.cluster.wanted
        free = {m: self.machines[m].room(wanted) - self.hosts.count(m) for m in left}
        best = max(left, key=lambda m: (free[m], -m), default=None)
        if best is None or (wanted.strict and free[best] <= 0):
            raise OffbeatError(
                f"Agent {agent} lived on a machine that is lost, and no other has room for it."
            )
        return best

    def called(self, machine: int) -> str:
        return f"machine {machine} ({self.machines[machine].name})"


def _why(error: Exception) -> str:
    """What went wrong on a machine, in a sentence."""
    text = str(error).strip()
    if "No module named 'offbeat" in text:
        return "there is no offbeat. Expected the same version on every machine: pip install 'offbeat[ray]'."
    ours = re.findall(r"(?:Error|Refused): (.+)", text)
    return ours[-1] if ours else text.splitlines()[-1] if text else type(error).__name__


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


@contextmanager
def _connected(address: str, ship: Path | None) -> Iterator[Any]:
    ray = _import()
    environment = {} if ship is None else {"runtime_env": {"working_dir": str(ship)}}
    try:
        ray.init(
            address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="error", **environment
        )
    except Exception as error:
        raise SettingError(f"Cannot use Ray at '{address}': {error} Expected {KNOWN}.") from None
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

    if nodes < 1:
        raise SettingError(f"Got --ray local:{nodes}; expected 1 node or more.")
    folder = tempfile.mkdtemp(prefix="offbeat-ray-")
    cores = max(os.cpu_count() or 1, -(-agents // nodes))
    made = None
    try:
        made = Nodes(True, head_node_args={"num_cpus": cores, "include_dashboard": False, "temp_dir": folder})
        for _ in range(nodes - 1):
            made.add_node(num_cpus=cores)
        yield made.address
    finally:
        if made is not None:
            made.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
