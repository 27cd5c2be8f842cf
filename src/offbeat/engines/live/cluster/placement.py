"""Which agent lives on which machine, and which edges of the graph cross from one to another."""

from collections.abc import Collection, Iterable, Mapping, Sequence

import networkx as nx

from offbeat.core.errors import SettingError

GRAPH, SPREAD, PACK = PLACES = ("graph", "spread", "pack")
SHOWN = 8  # edges that are named


def place(how: str, graph: nx.Graph, room: Sequence[int], strict: bool) -> list[int]:
    """The machine of every agent.

        spread  one agent to each machine in turn
        pack    as many to the first machine as it has room for, then to the next
        graph   as many to each as with spread, and neighbours together: of contiguous agents, and of those
                in the order in which the graph is searched in breadth, what cuts fewer edges; then pairs of
                agents change places as long as that cuts fewer (Kernighan and Lin, 1970, pair by pair)

    Args:
        room: for how many agents each machine has room
        strict: whether more than that are refused; else the machines take more in proportion
    """
    n = graph.number_of_nodes()
    if how not in PLACES:
        raise SettingError(f"Got --place {how}; expected one of {', '.join(PLACES)}.")
    if strict and sum(room) < n:
        raise SettingError(f"{n} agents were asked for; the cluster has room for {sum(room)}.")
    while sum(room) < n:
        room = [2 * max(1, each) for each in room]
    if how == PACK:
        return [machine for machine, size in enumerate(room) for _ in range(size)][:n]
    dealt = _dealt(n, room)
    if how == SPREAD:
        return dealt
    sizes = [dealt.count(machine) for machine in range(len(room))]
    blocks = [machine for machine, size in enumerate(sizes) for _ in range(size)]
    searched = [*nx.bfs_tree(graph.to_undirected(as_view=True), 0)]
    near = dict(zip(searched, blocks, strict=True))
    return _improved(graph, min(blocks, [near[i] for i in range(n)], key=lambda p: len(across(graph, p))))


def place_one(how: str, around: Collection[int], hosts: Mapping[int, int], room: Mapping[int, int]) -> int:
    """The machine of an agent that comes when others are there, by the same rules: with pack the first that
    has room; else of those that have room, and fewest agents, the one with most of its neighbours.

    Args:
        around: the agent's neighbours
        hosts: where the others live
        room: for how many each machine has room; where all are full, one takes more in proportion
    """
    count = {machine: [*hosts.values()].count(machine) for machine in room}
    free = [machine for machine in room if count[machine] < room[machine]]
    if not free:
        return min(room, key=lambda machine: (count[machine] / max(1, room[machine]), machine))
    if how == PACK:
        return free[0]
    fewest = [machine for machine in free if count[machine] == min(count[m] for m in free)]
    return max(fewest, key=lambda machine: sum(hosts.get(j) == machine for j in around))


def across(graph: nx.Graph, hosts: Sequence[int]) -> list[tuple[int, int]]:
    """The edges whose ends live on different machines."""
    return sorted((i, j) for i, j in graph.edges() if hosts[i] != hosts[j])


def said(graph: nx.Graph, hosts: Sequence[int], called: Sequence[str]) -> list[str]:
    """Who lives where, and what crosses, in lines."""
    lines = [
        f"{name}: agents {some(i for i, host in enumerate(hosts) if host == machine)}"
        for machine, name in enumerate(called)
        if machine in hosts
    ]
    edges = across(graph, hosts)
    arrow = "->" if graph.is_directed() else "-"
    named = ", ".join(f"{i}{arrow}{j}" for i, j in edges[:SHOWN]) + ", ..." * (len(edges) > SHOWN)
    count = f"{len(edges)} of {graph.number_of_edges()} edges cross machines"
    return [*lines, f"{count}: {named}" if edges else count]


def some(agents: Iterable[int]) -> str:
    """Numbers in few words: 0-3, 7."""
    parts: list[list[int]] = []
    for i in agents:
        if parts and parts[-1][-1] == i - 1:
            parts[-1][1:] = [i]
        else:
            parts.append([i])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _dealt(n: int, room: Sequence[int]) -> list[int]:
    """One agent to each machine in turn, as long as it has room."""
    left, hosts = [*room], list[int]()
    while len(hosts) < n:
        for machine, free in enumerate(left):
            if free and len(hosts) < n:
                hosts.append(machine)
                left[machine] -= 1
    return hosts


def _improved(graph: nx.Graph, hosts: list[int]) -> list[int]:
    """Let pairs of agents change places as long as fewer edges are cut."""
    around = {i: [*dict.fromkeys(nx.all_neighbors(graph, i))] for i in graph.nodes}

    def change(i: int, j: int) -> int:
        """How many fewer edges of i are cut where j lives, but for one between the two."""
        return sum(int(hosts[k] == hosts[j]) - int(hosts[k] == hosts[i]) for k in around[i] if k != j)

    def gain(i: int, j: int) -> int:
        return change(i, j) + change(j, i)

    n, better = len(hosts), True
    while better:
        better = False
        border = [i for i in range(n) if any(hosts[k] != hosts[i] for k in around[i])]
        for i in border:
            j = max((j for j in border if hosts[j] != hosts[i]), key=lambda j: gain(i, j), default=i)
            if j != i and gain(i, j) > 0:
                hosts[i], hosts[j] = hosts[j], hosts[i]
                better = True
    return hosts
