"""The command line of a user's own script: launch; and of the trace of any live run: replay."""

from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, find
from offbeat.cli.compare import check_writable
from offbeat.cli.console import Out, complain
from offbeat.cli.options import OutFolder, Quiet, Resume, with_settings
from offbeat.core.errors import DiskError, OffbeatError, SettingError
from offbeat.core.settings import RUNNING, SCOPES
from offbeat.engines.live.launcher.launch import Launcher, RunFailed
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.outfolder import (
    out_folder,
    refuse_unresumable,
    refuse_used,
    set_damaged_aside,
    what_is_left,
)
from offbeat.engines.live.launcher.screen import Screen, shown
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.node.log import damage
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import MOST
from offbeat.engines.trace import Trace
from offbeat.experiments.limits import refuse_processes
from offbeat.experiments.replaying import replayed
from offbeat.results.perfetto import save_perfetto
from offbeat.world.topology import build

WHAT, HOW = "What is run", "How"

Script = Annotated[
    list[str], typer.Argument(metavar="SCRIPT [ARGUMENTS]...", help="Your script and its own arguments.")
]
Agents = Annotated[
    int, typer.Option("--agents", "-n", min=1, max=MOST, help="How many agents.", rich_help_panel=WHAT)
]
Graph = Annotated[
    str, typer.Option(help="Who hears whom; see 'offbeat list topologies'.", rich_help_panel=WHAT)
]
OneAlgorithm = Annotated[str, typer.Option(help=f"One of {', '.join(ALGORITHMS)}.", rich_help_panel=WHAT)]
Seed = Annotated[
    int, typer.Option(min=0, help="Of the shares of the data and the random choices.", rich_help_panel=WHAT)
]
Module = Annotated[
    bool, typer.Option("--module", "-m", help="SCRIPT is the name of a module.", rich_help_panel=WHAT)
]
Profile = Annotated[
    Path | None,
    typer.Option(
        help="Write what every agent did when, for ui.perfetto.dev (.json or .json.gz).",
        rich_help_panel=RUNNING,
    ),
]
TensorBoard = Annotated[
    Path | None, typer.Option(help="Write TensorBoard's files to this folder.", rich_help_panel=RUNNING)
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(context_settings={"allow_interspersed_args": False})(launch)
    app.command()(replay)


@with_settings(
    RunSettings,
    live=True,
    last=True,
    panels=dict.fromkeys(SCOPES, HOW),
    checkpoint_every=CheckpointPolicy(seconds=60.0),
)
def launch(
    asked: dict[str, Any],
    command: Script,
    agents: Agents = 2,
    topology: Graph = "ring",
    algorithm: OneAlgorithm = "adsgd",
    seed: Seed = 0,
    module: Module = False,
    resume: Resume = False,
    out: OutFolder = None,
    profile: Profile = None,
    tensorboard: TensorBoard = None,
    quiet: Quiet = False,
) -> None:
    """Train with your own script: one process an agent, none of which waits for another.

    The script calls offbeat.join() and wraps its optimizer. Agents that die are started again, from a
    neighbour's model. Ctrl-C saves and ends in order.

    Example:

      offbeat launch -n 4 --topology ring --algorithm adsgd train.py --epochs 3
    """
    spec = find(algorithm)
    refuse_processes(agents)
    spec.check(build(topology, agents, seed))
    if not module and not Path(command[0]).is_file():
        raise SettingError(
            f"There is no script {command[0]}; expected a file, or a module's name with --module."
        )
    returns = "return" in spec.tolerates
    asked["fault"] = tuple(parse_fault(text, agents) for text in asked["fault"])
    asked["checkpoint_every"] = CheckpointPolicy.parse(asked["checkpoint_every"])
    settings = RunSettings(
        agents=agents,
        folder=Path(),
        program=ScriptProgram(topology, tuple(command)),
        algorithm=spec.name,
        seed=seed,
        resume=resume,
        **asked,
    )
    check_writable(profile)
    with out_folder(out, Path(command[0]).stem) as made:
        folder = made.resolve()
        if resume:
            refuse_unresumable(out, agents, together=not returns)
            set_damaged_aside(folder, complain)
        else:
            refuse_used(folder)
        program = ["-m", "offbeat.training.child", *(["-m"] if module else []), *command]
        launcher = Launcher(replace(settings, folder=folder), program, returns)
        _run(launcher, tensorboard, profile, quiet)
    if launcher.stopped_by:
        raise typer.Exit(128 + launcher.stopped_by)


def _run(launcher: Launcher, tensorboard: Path | None, profile: Path | None, quiet: bool) -> None:
    """Run it, and keep what there is."""
    failed = _failed(launcher, tensorboard, quiet)
    with suppress(OffbeatError) if failed else nullcontext():  # the first error is the one to tell
        if failed is None or launcher.leaves_trace:
            _keep(launcher.trace(), launcher.settings.folder, profile, quiet)
    if failed is not None:
        raise failed


def _failed(launcher: Launcher, tensorboard: Path | None, quiet: bool) -> OffbeatError | None:
    """Run it, with metrics and a view of what happens; the error that it ended with, once it had begun."""
    folder, failed = launcher.settings.folder, None
    metrics = Metrics(folder, tensorboard)
    with (
        Screen(Out(stderr=True), Out()) if not quiet else nullcontext() as screen,
        shown(screen, metrics) as (on_output, watch),
    ):
        try:
            launcher.run(on_output, watch)
        except OffbeatError as error:
            if not launcher.began:
                raise
            failed = RunFailed(f"{error}\n{what_is_left(folder)}", error.exit_code)
    for remark in metrics.remarks:
        complain(remark)
    return failed


def _keep(trace: Trace, folder: Path, profile: Path | None, quiet: bool) -> None:
    """Write the trace, and the profile if one is wanted."""
    try:
        trace.save(folder / "trace.npz")
        if profile is not None:
            save_perfetto(trace, profile)
    except OSError as error:
        raise DiskError(f"Cannot write {error.filename or folder}: {error.strerror or error}.") from error
    if why := damage(trace):
        complain(why)
    if not quiet:
        for path in [folder, *([profile] if profile is not None else [])]:
            Out().print(Text(f"Written: {path}"), soft_wrap=True)


def replay(trace: Annotated[Path, typer.Argument(help="A trace.npz that a live run wrote.")]) -> None:
    """Run a live run's trace through fresh agents in the simulator, and compare what they do with what was
    recorded.
    """
    console = Out()
    outcome = replayed(Trace.load(trace), trace.parent)
    for line in outcome.lines:
        console.print(Text(line), soft_wrap=True)
    if not outcome.same:
        raise typer.Exit(1)
