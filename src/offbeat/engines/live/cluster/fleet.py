"""The machines of a run as nodes of a Ray cluster: a gateway on each, an actor that Ray starts again."""

import json
import re
import socket
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.ray_cluster import NAMESPACE, Node
from offbeat.engines.live.cluster.gateway import Gateway
from offbeat.engines.live.cluster.keeper import Plan
from offbeat.engines.live.cluster.peer import Handle, Peer
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher.launch import Launcher

SCRIPTS = "offbeat.training.child"  # the module whose first argument is a script
BEGINS, ENDS = 120.0, 10.0  # seconds that gateways have to be there, and to end what they began
GONE = ("ActorDiedError", "ActorUnschedulableError", "ValueError")  # of a gateway that Ray will not restart


def name_of(run: str, machine: int) -> str:
    """Of the actor that is this machine's gateway."""
    return f"{run}.{machine}"


class Machine(Node):
    """A node of the cluster, for agents."""

    def room(self, wanted: Wanted) -> int:
        """For how many agents."""
        by = [each for each in (wanted.per_machine,) if each is not None]
        by += [int(self.cpus / wanted.cpus)] if wanted.cpus else []
        by += [int(self.gpus / wanted.gpus)] if wanted.gpus else []
        return min(by, default=max(1, int(self.cpus)))


class _Actor(Gateway):
    """A gateway as a Ray actor."""

    def __init__(self, plan: str, hosts: list[int]) -> None:
        import ray

        again = ray.get_runtime_context().was_current_actor_reconstructed
        super().__init__(Plan(**json.loads(plan)), hosts, by_name, again)


class Named:
    """The actor of this name, looked up when it is asked: it may not be there yet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        import ray

        return getattr(ray.get_actor(self._name, NAMESPACE), method)


def by_name(name: str) -> Peer:
    return Handle(Named(name))


@dataclass
class RayFleet:
    """The machines of a run: see `remote.Fleet`."""

    ray: Any
    wanted: Wanted
    machines: list[Machine]
    launcher: Launcher
    hosts: list[int]
    run: str
    owner: int = 0
    handles: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [name_of(self.run, machine) for machine in range(len(self.machines))]

    def begin(self) -> None:
        """Start the gateways. Raises OffbeatError for a machine that cannot take part."""
        ray = self.ray
        try:
            self.handles = [self._gateway(machine) for machine in range(len(self.machines))]
            for machine, handle in enumerate(self.handles):
                try:
                    ray.get(handle.clock.remote(), timeout=BEGINS)
                except Exception as error:
                    raise SettingError(f"{self.called(machine)}: {why(error)}") from None
        except BaseException:
            with suppress(Exception):
                ray.get([handle.end.remote() for handle in self.handles], timeout=ENDS)
            self.end()
            raise

    def needs(self) -> tuple[str, ...]:
        """The script, where it is no module."""
        *_, before, name = ["", *(part for part in self.launcher.command[:3])]
        return (name,) if before == SCRIPTS else ()

    def end(self) -> None:
        for handle in self.handles:
            with suppress(Exception):
                self.ray.kill(handle)

    def _gateway(self, machine: int) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        wanted, mine = self.wanted, self.hosts.count(machine)
        s, command = self.launcher.settings, tuple(self.launcher.command)
        folder, node = "" if wanted.ships else str(Path.cwd()), self.machines[machine].node
        plan = Plan(
            self.run, machine, s.count, s.record(), str(s.folder), folder, self.needs(), command, node,
            wanted.partition_grace, self.owner,
        )  # fmt: skip
        options = {
            "name": self.names[machine], "namespace": NAMESPACE, "lifetime": "detached",
            "max_restarts": -1, "max_concurrency": 10_000,
            "num_cpus": (wanted.cpus or 0) * mine, "num_gpus": (wanted.gpus or 0) * mine,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False),
        }  # fmt: skip
        actor = self.ray.remote(_Actor).options(**options)
        return actor.remote(json.dumps(asdict(plan)), self.hosts)

    def peer(self, machine: int) -> Peer:
        return Handle(self.handles[machine])

    def ask(self, machine: int, what: str, *args: Any) -> Awaitable[Any]:
        answer: Awaitable[Any] = getattr(self.handles[machine], what).remote(*args)
        return answer

    def lost(self, machine: int, error: Exception, silent: float) -> str:
        at = self.machines[machine]
        if "GatewayError" in type(error).__name__:
            return f"where {why(error)}"
        if type(error).__name__ in GONE:
            return "of which Ray says that it is gone"
        try:
            socket.create_connection((at.address, at.port), timeout=0.5).close()
        except ConnectionRefusedError:
            return "on which no Ray runs any more"
        except OSError:
            pass
        return f"which has not answered for {silent:.0f} s" if silent > self.wanted.partition_grace else ""

    def elsewhere(self, agent: int, lost: Sequence[int]) -> int:
        left = [machine for machine in range(len(self.machines)) if machine not in lost]
        wanted = self.wanted
        free = {m: self.machines[m].room(wanted) - self.hosts.count(m) for m in left}
        best = max(left, key=lambda m: (free[m], -m), default=None)
        if best is None or (wanted.strict and free[best] <= 0):
            raise OffbeatError(
                f"Agent {agent} lived on a machine that is lost, and no other has room for it."
            )
        return best

    def called(self, machine: int) -> str:
        return f"machine {machine} ({self.machines[machine].name})"


def why(error: Exception) -> str:
    """What went wrong on a machine, in a sentence."""
    text = str(error).strip()
    ours = re.findall(r"(?:Error|Refused): (.+)", text)
    return ours[-1] if ours else text.splitlines()[-1] if text else type(error).__name__
