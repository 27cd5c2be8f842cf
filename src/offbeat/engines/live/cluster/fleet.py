"""The machines of a run as nodes of a Ray cluster: a gateway on each, an actor that Ray starts again."""

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Collection
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.ray_cluster import NAMESPACE, Node, nodes_of, refuse_differences
from offbeat.engines.live.cluster.actor import Actor, name_of
from offbeat.engines.live.cluster.keeper import Plan
from offbeat.engines.live.cluster.peer import Handle, Peer
from offbeat.engines.live.cluster.placement import place_one
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher.children import NoRoom
from offbeat.engines.live.launcher.launch import Launcher

SCRIPTS = "offbeat.training.child"  # the module whose first argument is a script
BEGINS, ENDS = 120.0, 10.0  # seconds that gateways have to be there, and to end what they began
LOGS = "/tmp/ray/session_latest/logs, or below the --temp-dir that 'ray start' was given"
MORE = f"Its Ray's logs say more: on that machine in {LOGS}."
LOST = f"Its Ray's logs end with it; those of nodes that 'ray start' starts stay, in {LOGS}."
GONE = ("ActorDiedError", "ActorUnschedulableError", "ValueError")  # of a gateway that Ray will not restart


class Machine(Node):
    """A node of the cluster, for agents."""

    def room(self, wanted: Wanted) -> int:
        """For how many agents."""
        by = [each for each in (wanted.per_machine,) if each is not None]
        by += [int(self.cpus / wanted.cpus)] if wanted.cpus else []
        by += [int(self.gpus / wanted.gpus)] if wanted.gpus else []
        return min(by, default=max(1, int(self.cpus)))


def machines_of(ray: Any) -> list[Machine]:
    """The nodes of the cluster that this process is connected with, its head first."""
    return [Machine(**vars(node)) for node in nodes_of(ray)]


def plan_of(launcher: Launcher, run: str, wanted: Wanted, owner: int) -> Plan:
    """What every machine of a run is told when it begins, whenever that is: but for which machine it is."""
    s, command = launcher.settings, tuple(launcher.command)
    *_, before, name = ["", *command[:3]]
    needs = (name,) if before == SCRIPTS else ()  # the script, where it is no module
    folder = "" if wanted.ships else str(Path.cwd())
    grace = wanted.partition_grace
    return Plan(
        run, 0, s.count, s.record(), str(s.folder), folder, needs, command, grace=grace, owner=owner
    )  # fmt: skip


@dataclass
class RayFleet:
    """The machines of a run: see `remote.Fleet`."""

    ray: Any
    wanted: Wanted
    machines: list[Machine]
    launcher: Launcher
    hosts: list[int]
    run: str
    plan: Plan
    handles: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.names = [name_of(self.run, machine) for machine in range(len(self.machines))]
        self._refused = set[str]()  # nodes that cannot take part

    def begin(self) -> None:
        """Start the gateways. Raises OffbeatError for a machine that cannot take part."""
        ray = self.ray
        try:
            self.handles = [self._gateway(number, machine) for number, machine in enumerate(self.machines)]
            for machine, handle in enumerate(self.handles):
                try:
                    ray.get(handle.clock.remote(), timeout=BEGINS)
                except Exception as error:
                    said = why(error, local=self.wanted.local)
                    raise SettingError(f"{self.called(machine)}: {said}") from None
        except BaseException:
            with suppress(Exception):
                ray.get([handle.end.remote() for handle in self.handles], timeout=ENDS)
            self.end()
            raise

    def end(self) -> None:
        for name in self.names:
            with suppress(Exception):
                self.ray.kill(self.ray.get_actor(name, NAMESPACE))

    def _gateway(self, number: int, machine: Machine) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        wanted, mine = self.wanted, self.hosts.count(number)
        plan = replace(self.plan, machine=number, node=machine.node)
        options = {
            "name": name_of(self.run, number), "namespace": NAMESPACE, "lifetime": "detached",
            "max_restarts": -1, "max_concurrency": 10_000,
            "num_cpus": (wanted.cpus or 0) * mine, "num_gpus": (wanted.gpus or 0) * mine,
            "scheduling_strategy": NodeAffinitySchedulingStrategy(machine.node, soft=False),
        }  # fmt: skip
        actor = self.ray.remote(Actor).options(**options)
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

    def place(self, agent: int, lost: Collection[int]) -> int:
        wanted, door = self.wanted, self.launcher.door
        room = {m: self.machines[m].room(wanted) for m in range(len(self.names)) if m not in lost}
        there = {i: self.hosts[i] for i in door.present if i != agent and i < len(self.hosts)}
        there = {i: machine for i, machine in there.items() if machine in room}
        full = all([*there.values()].count(machine) >= size for machine, size in room.items())
        if not room or (wanted.strict and full):
            has = ", ".join(f"{self.called(m)} has room for {each}" for m, each in room.items())
            raise NoRoom(f"No machine has room for agent {agent} ({has or 'all are lost'}).")
        return place_one(wanted.place, door.around(agent), there, room)

    async def more(self) -> int | None:
        apart = partial(asyncio.get_running_loop().run_in_executor, None)
        nodes = await apart(machines_of, self.ray)
        known = {machine.node for machine in self.machines} | self._refused
        if not (new := [node for node in nodes if node.node not in known]):
            return None
        number, at = len(self.machines), new[0]
        try:
            await apart(refuse_differences, self.ray, [at], number)
            handle = self._gateway(number, at)
            async with asyncio.timeout(BEGINS):
                await handle.clock.remote()
        except Exception as error:
            self._refused.add(at.node)
            await self._forget(name_of(self.run, number))
            what = f"A machine has joined the cluster ({at.name}), and takes no part: {why(error)}"
            raise OffbeatError(what) from None
        self.machines.append(at)
        self.handles.append(handle)
        self.names.append(name_of(self.run, number))  # last: it is there now
        return number

    async def _forget(self, name: str) -> None:
        """Until there is no gateway of this name, which the next one is to have."""
        with suppress(Exception):
            async with asyncio.timeout(ENDS):
                while True:
                    self.ray.kill(self.ray.get_actor(name, NAMESPACE))
                    await asyncio.sleep(0.1)

    def called(self, machine: int) -> str:
        return f"machine {machine} ({self.machines[machine].name})"


def why(error: Exception, seconds: float = BEGINS, local: int | None = None) -> str:
    """What went wrong on a machine, in a sentence.

    Args:
        seconds: for how long its gateway was waited for
        local: how many nodes end with this process; None: they stay, and their logs
    """
    text = str(error).strip()
    if isinstance(error, TimeoutError):
        more = MORE if local is None else LOST
        return f"no gateway was there after {seconds:g} s. Is it busy, or the link to it slow? {more}"
    ours = re.findall(r"(?:Error|Refused): (.+)", text)
    return ours[-1] if ours else text.splitlines()[-1] if text else type(error).__name__
