"""The machines of a run, on the command line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offbeat.cli.console import complain
from offbeat.core.errors import SettingError
from offbeat.core.settings import declared
from offbeat.engines.live.cluster import placement
from offbeat.engines.live.cluster.starting import cluster
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher.children import OnOutput, Processes
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.world.topology import Topology


def wanted_of(asked: dict[str, Any], script: str = "", module: bool = False) -> Wanted:
    """What is asked for of a cluster, taken out of the settings: where there is a script, its folder travels.
    Raises SettingError.
    """
    if script and not (module or Path(script).is_file()):
        raise SettingError(f"There is no script {script}; expected a file, or a module with --module.")
    folder = Path.cwd() if module else Path(script).resolve().parent if script else None
    return Wanted(**{name: asked.pop(name) for name in declared(Wanted)}, folder=folder)


@contextmanager
def machines(wanted: Wanted, graph: Topology, quiet: bool) -> Iterator[dict[str, Any]]:
    """What a `Launcher` needs to run its agents there; nothing where that is this machine."""
    if wanted.ray is None:
        yield {}
        return
    with cluster(wanted, graph.n) as found:
        hosts = found.hosts(graph.graph)
        called = [f"Machine {k} ({machine.name})" for k, machine in enumerate(found.machines)]
        for line in [] if quiet else placement.said(graph.graph, hosts, called):
            complain(line)

        def processes(launcher: Launcher, bell: int, on_output: OnOutput) -> Processes:
            return found.run(launcher, hosts, on_output)

        yield {"processes": processes}
