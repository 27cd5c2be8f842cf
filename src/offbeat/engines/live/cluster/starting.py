"""A Ray cluster (`core.system.ray_cluster`) for a run: where its agents live, and which runs go on there.

Ray starts the gateways, starts them again when they die, keeps strangers out, and carries what they say.
"""

import json
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx

from offbeat.core.errors import SettingError
from offbeat.core.system import ray_cluster
from offbeat.core.system.files import write_atomically
from offbeat.core.system.reading import json_in, reading
from offbeat.engines.live.cluster import placement
from offbeat.engines.live.cluster.actor import Named, name_of
from offbeat.engines.live.cluster.attaching import alone, members_of, newest
from offbeat.engines.live.cluster.fleet import ENDS, Machine, RayFleet, machines_of, plan_of, why
from offbeat.engines.live.cluster.keeper import MARK, Plan, tidy
from offbeat.engines.live.cluster.remote import RemoteChildren
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher.children import OnOutput
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.node.faults import check_machine
from offbeat.engines.live.settings import RunSettings


@contextmanager
def cluster(wanted: Wanted, agents: int) -> Iterator["Cluster"]:
    """The cluster that is wanted, for so many agents, connected; one that is started here ends with it.

    Raises SettingError where there is no Ray, or no such cluster, or it lets nobody in.
    """
    owner = 0 if wanted.local is None else os.getpid()
    try:
        with ray_cluster.cluster(wanted.address, wanted.folder if wanted.ships else None, agents) as ray:
            yield Cluster(ray, wanted, owner)
    finally:
        tidy()  # of nodes of this machine that were lost


@dataclass
class Cluster:
    """A Ray cluster with which this process is connected."""

    ray: Any
    wanted: Wanted
    owner: int = 0

    def __post_init__(self) -> None:
        self.machines = machines_of(self.ray)

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
        ray_cluster.refuse_differences(self.ray, self.machines)
        run = f"{launcher.settings.folder.name}-{secrets.token_hex(4)}"
        plan = replace(plan_of(launcher, run, self.wanted, self.owner), hosts=(*hosts,))
        fleet = RayFleet(self.ray, self.wanted, [*self.machines], launcher, [*hosts], run, plan)
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
        mine = [name for name in actors if name.rpartition(".")[0] == run]
        return Found(self, run, alone(run, lambda: self._states(mine)))

    def _states(self, gateways: Sequence[str]) -> dict[int, Any]:
        """What each of these knows, by machine. Raises SettingError for one that does not answer."""
        states = {}
        for name in gateways:
            try:
                answer = self.ray.get(Named(name).state.remote(), timeout=ENDS)
                states[int(name.rpartition(".")[2])] = answer
            except Exception as error:
                raise SettingError(f"The gateway {name} does not answer: {why(error, ENDS)}") from None
        return states


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
            begun = RunSettings.of(self.plan.settings, self.plan.out)
            return replace(begun, grown=members_of(self.known, begun).grown)

    def children(self, launcher: Launcher, bell: int, on_output: OnOutput) -> RemoteChildren:
        """The processes of the run."""
        nodes = {machine.node: machine for machine in self.cluster.machines}
        count = max(len(self.known["names"]), *(k + 1 for k in self.states))
        machines = []
        for k in range(count):
            node = Plan(**self.states[k]["plan"]).node if k in self.states else ""
            machines.append(nodes.get(node, Machine("", "lost", "", 0, 0.0, 0.0)))
        handles = [Named(name_of(self.run, k)) for k in range(count)]
        hosts = self.known["hosts"][: self.known["agents"]]  # nobody is let in who was about to come
        wanted = replace(self.cluster.wanted, partition_grace=self.plan.grace)
        fleet = RayFleet(self.cluster.ray, wanted, machines, launcher, hosts, self.run, self.plan, handles)
        return RemoteChildren(fleet, launcher, on_output, self.states)
