"""A gateway as a Ray actor, and how it is found.

Ray imports this file wherever it starts a gateway, also after its death, while its machine's registers stand
still. So it needs neither torch nor what knows of graphs, which take seconds.
"""

import json
from typing import Any

from offbeat.core.system.ray_cluster import NAMESPACE
from offbeat.engines.live.cluster.gateway import Gateway
from offbeat.engines.live.cluster.keeper import Plan
from offbeat.engines.live.cluster.peer import Handle, Peer


def name_of(run: str, machine: int) -> str:
    """Of the actor that is this machine's gateway."""
    return f"{run}.{machine}"


class Actor(Gateway):
    """See the module; `plan`: as JSON."""

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
