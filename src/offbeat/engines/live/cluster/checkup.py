"""Whether a Ray cluster can make live runs: the checks of each of its machines, and of what is between them.

    for name, check in examine("auto").items():
        print(name, check.status, check.found)

Versions, clocks and links are of all machines, also of one without offbeat. The checks of one machine
(`launcher.doctor`) are made on each that has the same offbeat; where they find the same, it is said once.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from statistics import median
from typing import Any

from offbeat.core.system import ray_cluster, ray_tls, there
from offbeat.core.system.ray_cluster import Node
from offbeat.core.system.ray_nodes import in_a_line
from offbeat.engines.live.cluster.clocks import Offset, offset
from offbeat.engines.live.cluster.peer import Handle
from offbeat.engines.live.cluster.placement import some
from offbeat.engines.live.launcher import doctor
from offbeat.engines.live.launcher.doctor import FAILED, Check

PIECE, TIMES, ASKED = 8_000_000, 3, 20  # bytes that cross a link at once, how often; times that it is asked
SECONDS, CANCELLED = 60.0, 5.0  # that a link may take, and a machine to end a check that nobody waits for
FAR, THIN = 100.0, 10.0  # ms there and back, and MB/s, of a link that is said to be slow
KNOWN = 10e6  # ns to which clocks are to be known
OPEN = "open the ports of Ray between these machines, in both directions (Ray's documentation lists them)"
TOKEN = "start Ray with RAY_AUTH_MODE=token on all machines, its token in RAY_AUTH_TOKEN or ~/.ray/auth_token"

Versions = Mapping[str, str] | str
"""Of a machine; a string says why it gave no answer."""


def examine(
    address: str,
    remove: bool = False,
    functions: Mapping[str, Callable[[], str]] | None = None,
    on_progress: Callable[[str], None] = lambda text: None,
) -> dict[str, Check]:
    """All checks by name, in order. Arguments as of `doctor.examine`; on_progress: told what is looked at.

    Raises SettingError where there is no such cluster, or it lets nobody in.
    """
    on_progress(f"Connecting to Ray at {address} ...")
    with ray_cluster.cluster(address) as ray:
        nodes = ray_cluster.nodes_of(ray)
        made = Examination(ray, nodes, ray_cluster.answering(ray, nodes), on_progress)
        found = {"versions": made.versions(), "token": made.token(), "encryption": made.encryption()}
        return found | {"room": made.room()} | made.machines(remove, functions or {}) | made.between()


@dataclass
class Examination:
    """The checks of a cluster. answers: an actor on each node."""

    ray: Any
    nodes: Sequence[Node]
    answers: Sequence[Any]
    on_progress: Callable[[str], None]
    found: list[Versions] = field(default_factory=list)

    def versions(self) -> Check:
        """What has to be the same on every machine."""
        self.on_progress(f"Asking {len(self.nodes)} machines for their versions ...")
        asked = [answer.versions.remote() for answer in self.answers]
        for one in asked:
            try:
                self.found.append(self.ray.get(one, timeout=ray_cluster.ANSWERS))
            except Exception as error:
                self.found.append(in_a_line(error))
        return same_versions([node.name for node in self.nodes], self.found, there.versions())

    def token(self) -> Check:
        """Whether a stranger is let in."""
        self.on_progress("Asking to be let in without a token ...")
        expected = "refused: who is let in can run what he likes"
        if ray_cluster.lets_strangers_in(self.ray.get_runtime_context().gcs_address):
            return Check("warning", "who has no token is let in", expected, TOKEN)
        return Check("ok", "who has no token is refused", expected)

    def encryption(self) -> Check:
        """Whether all nodes are talked to over TLS."""
        expected = "TLS, or a network that nobody else reads"
        if all(ray_tls.encrypted(node.address, node.port) for node in self.nodes):
            return Check("ok", "TLS", expected)
        if len({node.address for node in self.nodes}) == 1:
            return Check("ok", "none; all nodes are on one machine", expected)
        do = f"where others read the network: {ray_tls.USE}=1 and {', '.join(ray_tls.FILES)} on all machines"
        return Check("warning", "none: what crosses can be read on its way", expected, do)

    def room(self) -> Check:
        """What Ray counts."""
        has = [f"{node.cpus:g} cores and {node.gpus:g} GPUs" for node in self.nodes]
        each = "; ".join(f"{self._called(k)} {what}" for k, what in enumerate(has))
        return Check("ok", each, "what 'ray start' has found, or was told")

    def machines(self, remove: bool, functions: Mapping[str, Callable[[], str]]) -> dict[str, Check]:
        """The checks of one machine, of all that have this offbeat."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

        fit = [k for k, versions in enumerate(self.found) if versions == there.versions()]
        task = self.ray.remote(num_cpus=0, max_retries=0)(doctor.examine)
        asked = [
            task.options(scheduling_strategy=On(self.nodes[k].node, soft=False)).remote(remove, functions)
            for k in fit
        ]
        try:
            for count in range(len(asked)):
                self.on_progress(f"Checking {len(asked)} machines: {count} are done ...")
                self.ray.wait(asked, num_returns=count + 1)
            return said_once({k: self._answer(one) for k, one in zip(fit, asked, strict=True)})
        except BaseException:
            for one in asked:
                self.ray.cancel(one)
            self.ray.wait(asked, num_returns=len(asked), timeout=CANCELLED)
            raise

    def between(self) -> dict[str, Check]:
        """The clocks of all machines, and the link between each two that answer."""
        there_are = [k for k, versions in enumerate(self.found) if not isinstance(versions, str)]
        self.on_progress("Comparing clocks ...")
        offsets = asyncio.run(_offsets([self.answers[k] for k in there_are]))
        found = {"clocks": clocks(dict(zip([self._called(k) for k in there_are], offsets, strict=True)))}
        pairs = [*combinations(there_are, 2)]
        for number, (i, j) in enumerate(pairs, 1):
            self.on_progress(f"Measuring the link between machines {i} and {j}, {number} of {len(pairs)} ...")
            found[f"link {i}-{j}"] = link([self._measured(*ends) for ends in ((j, i), (i, j))])
        return found

    def _measured(self, source: int, reader: int) -> tuple[float, float] | str:
        """Milliseconds there and back, and MB/s, as the reader has them; or why not."""
        reads = self.answers[reader].measure.remote(self.answers[source], ASKED, PIECE, TIMES)
        try:
            short, long = self.ray.get(reads, timeout=SECONDS)
        except Exception as error:
            return f"machine {reader} had no answer from machine {source}: {in_a_line(error)}"
        return median(short) / 1e6, PIECE / 1e6 / (median(long) / 1e9)

    def _answer(self, one: Any) -> dict[str, Check]:
        try:
            answer: dict[str, Check] = self.ray.get(one)
        except Exception as error:
            do = "see Ray's logs on that machine"
            return {"checks": Check(FAILED, in_a_line(error), "that they can be made", do)}
        return answer

    def _called(self, machine: int) -> str:
        return f"{machine} ({self.nodes[machine].name}):"


async def _offsets(answers: Sequence[Any]) -> list[Offset]:
    return [await offset(Handle(answer)) for answer in answers]


def same_versions(names: Sequence[str], found: Sequence[Versions], here: Mapping[str, str]) -> Check:
    """Whether all machines have what is here."""
    expected = ", ".join(f"{name} {version}" for name, version in here.items())
    wrong = []
    for k, (name, versions) in enumerate(zip(names, found, strict=True)):
        if isinstance(versions, str):
            other = f"gives no answer: {versions}"
        else:
            other = ray_cluster.differences(versions, here)
        wrong += [f"machine {k} ({name}) {other}"] if other else []
    if wrong:
        return Check(FAILED, "; ".join(wrong), expected, "install the same versions on every machine")
    return Check("ok", f"the same on {len(names)} machine{'s' * (len(names) != 1)}", expected)


def said_once(found: Mapping[int, Mapping[str, Check]]) -> dict[str, Check]:
    """The checks of several machines: what is the same on all by its name, else with whose it is behind."""
    names = [*dict.fromkeys(name for checks in found.values() for name in checks)]
    together: dict[str, Check] = {}
    for name in names:
        alike: dict[Check, list[int]] = {}
        for machine, checks in found.items():
            if name in checks:
                alike.setdefault(checks[name], []).append(machine)
        for check, machines in alike.items():
            together[name if len(machines) == len(found) else f"{name}, {some(machines)}"] = check
    return together


def clocks(offsets: Mapping[str, Offset]) -> Check:
    """How far each machine's clock is ahead of this one's, and how well that is known."""
    each = [f"{name} {by.ns / 1e9:+,.6f} s to {by.within / 1e6:.2f} ms" for name, by in offsets.items()]
    expected = f"ahead of this one by a time that is known to within {KNOWN / 1e6:g} ms"
    if all(by.within <= KNOWN for by in offsets.values()):
        return Check("ok", "; ".join(each), expected)
    do = "times in the trace are as good as that; try again when less is going on"
    return Check("warning", "; ".join(each), expected, do)


def link(ways: Sequence[tuple[float, float] | str]) -> Check:
    """The way from the first of two machines to the second, and back."""
    expected = f"at most {FAR:g} ms there and back, {THIN:g} MB/s or more: a model of 100 MB in 10 s"
    measured = [way for way in ways if not isinstance(way, str)]
    if len(measured) < len(ways):
        return Check(FAILED, "; ".join(way for way in ways if isinstance(way, str)), expected, OPEN)
    (ms, there_), (back_ms, back) = measured
    longer = max(ms, back_ms)
    found = f"{longer:.1f} ms there and back; {there_:,.0f} MB/s, back {back:,.0f} MB/s"
    if longer <= FAR and min(there_, back) >= THIN:
        return Check("ok", found, expected)
    do = "runs go on, with older models: --place graph has fewer edges cross, --compress sends less"
    return Check("warning", found, expected, do)
