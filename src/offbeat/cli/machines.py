"""The machines of a run, on the command line."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from offbeat.cli.console import complain
from offbeat.core.errors import SettingError
from offbeat.core.settings import declared
from offbeat.core.system.signals import exit_code
from offbeat.engines.live.cluster import placement
from offbeat.engines.live.cluster.starting import Found, cluster
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher.children import OnOutput, Processes
from offbeat.engines.live.launcher.launch import Launcher, RunFailed
from offbeat.engines.live.node.faults import parse_fault
from offbeat.experiments.setup import refuse_processes
from offbeat.world.topology import Topology


def wanted_of(asked: dict[str, Any], command: Sequence[str] | None = None, module: bool = False) -> Wanted:
    """What is asked for of a cluster, taken out of the settings: the folder of a script travels. Raises
    SettingError, also where there should be a script, and is none.
    """
    given = {name: asked.pop(name) for name in declared(Wanted)}
    if not command:
        return Wanted(**given)
    if given["attach"] is not None:
        raise SettingError("--attach goes on with a run that has its script: expected none beside it.")
    if not (module or Path(command[0]).is_file()):
        folder = Path(command[0]).is_dir()
        what = f"{command[0]} is a folder" if folder else f"There is no script {command[0]}"
        raise SettingError(f"{what}; expected a script, a file, or a module with --module.")
    return Wanted(**given, folder=Path.cwd() if module else Path(command[0]).resolve().parent)


def check_fits(wanted: Wanted, agents: int, faults: Sequence[str]) -> None:
    """Raise SettingError for more agents, or other faults, than there can be there; on a cluster that runs
    already, the memory of this machine says nothing.
    """
    wanted.refuse_more(agents)
    if wanted.ray is None or wanted.local is not None:
        refuse_processes(agents)
    for text in faults:
        parse_fault(text, agents, 0 if wanted.ray is None else wanted.local)


@contextmanager
def machines(wanted: Wanted, graph: Topology, quiet: bool) -> Iterator[dict[str, Any]]:
    """What a `Launcher` needs to run its agents there; nothing where that is this machine."""
    if wanted.ray is None:
        yield {}
        return
    if not quiet:
        complain(_begins(wanted))
    with _ending(), cluster(wanted, graph.n) as found:
        hosts = found.hosts(graph.graph)
        called = [f"Machine {k} ({machine.name})" for k, machine in enumerate(found.machines)]
        for line in [] if quiet else placement.said(graph.graph, hosts, called):
            complain(line)
        if not quiet:
            complain(f"Starting a gateway on each of {len(found.machines)} machines.")

        def processes(launcher: Launcher, bell: int, on_output: OnOutput) -> Processes:
            return found.run(launcher, hosts, on_output)

        yield {"processes": processes}


def _begins(wanted: Wanted) -> str:
    nodes = f"{wanted.local} Ray node{'s' * (wanted.local != 1)} on this machine"
    return f"Connecting to Ray at {wanted.ray}." if wanted.local is None else f"Starting {nodes}."


@contextmanager
def attached(wanted: Wanted) -> Iterator[Found]:
    """A run that goes on without a launcher. Raises SettingError if none was named."""
    if wanted.attach is None:
        raise SettingError("There is no script: expected offbeat launch, its options, then SCRIPT.")
    with _ending(), cluster(wanted, 1) as found:
        yield found.find(wanted.attach)


@contextmanager
def _ending() -> Iterator[None]:
    """A signal ends the command in order, also before the agents begin and after them."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        code = exit_code(interrupt)
        said = f"Interrupted by {signal.Signals(code - 128).name} while machines were made ready, or left."
        raise RunFailed(said, code) from None
