"""The command line of a user's own script: launch; and of the trace of any live run: replay."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from offbeat.algorithms import ALGORITHMS, find
from offbeat.cli.compare import check_writable
from offbeat.cli.console import Out, complain
from offbeat.core.errors import DiskError, OffbeatError, SettingError
from offbeat.engines.live.launcher.launch import Job, Launcher, RunFailed
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.outfolder import out_folder
from offbeat.engines.live.launcher.screen import Screen, shown
from offbeat.engines.live.node.enter import log_path
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.node.guard import SKIP, checked_policy
from offbeat.engines.live.node.log import damage, elapsed, merged
from offbeat.engines.live.shm.board import MOST
from offbeat.engines.trace import Trace
from offbeat.experiments.livefolder import refuse_unresumable, set_damaged_aside
from offbeat.experiments.memory import refuse_processes
from offbeat.experiments.replaying import replayed
from offbeat.results.perfetto import save_perfetto
from offbeat.training.saver import Every
from offbeat.world.topology import build

WHAT, HOW, OUTPUT = "What is run", "How", "Running and output"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(context_settings={"allow_interspersed_args": False})(launch)
    app.command()(replay)


def launch(
    command: Annotated[
        list[str], typer.Argument(metavar="SCRIPT [ARGUMENTS]...", help="Your script and its own arguments.")
    ],
    agents: Annotated[
        int, typer.Option("--agents", "-n", min=1, max=MOST, help="How many agents.", rich_help_panel=WHAT)
    ] = 2,
    topology: Annotated[
        str, typer.Option(help="Who hears whom; see 'offbeat list topologies'.", rich_help_panel=WHAT)
    ] = "ring",
    algorithm: Annotated[
        str, typer.Option(help=f"One of {', '.join(ALGORITHMS)}.", rich_help_panel=WHAT)
    ] = "adsgd",
    seed: Annotated[
        int,
        typer.Option(min=0, help="Of the shares of the data and the random choices.", rich_help_panel=WHAT),
    ] = 0,
    module: Annotated[
        bool, typer.Option("--module", "-m", help="SCRIPT is the name of a module.", rich_help_panel=WHAT)
    ] = False,
    max_restarts: Annotated[
        int,
        typer.Option(
            min=0,
            help="How often one agent is started again; 0: the run ends when one dies.",
            rich_help_panel=HOW,
        ),
    ] = 3,
    checkpoint_every: Annotated[
        str, typer.Option(help="Steps ('500') or seconds ('60s') between checkpoints.", rich_help_panel=HOW)
    ] = "60s",
    on_nan: Annotated[
        str,
        typer.Option(
            help="What an agent does with an update that is not finite: skip it, stop the run, or ignore it.",
            rich_help_panel=HOW,
        ),
    ] = SKIP,
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="A fault on purpose: 'kill agent 2 at step 100'; repeat it for more.", rich_help_panel=HOW
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoints in --out.", rich_help_panel=HOW)
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for output, trace and checkpoints; default: a new one in ./offbeat-runs.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Write what every agent did when, for ui.perfetto.dev (.json or .json.gz).",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Write TensorBoard's files to this folder.", rich_help_panel=OUTPUT)
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Train with your own script: one process an agent, none of which waits for another.

    The script calls offbeat.join() and wraps its optimizer. Agents that die are started again, from a
    neighbour's model. Ctrl-C saves and ends in order.

    Example:

      offbeat launch -n 4 --topology ring --algorithm adsgd train.py --epochs 3
    """
    row = find(algorithm)
    refuse_processes(agents)
    row.check(build(topology, agents, seed))
    if not module and not Path(command[0]).is_file():
        raise SettingError(
            f"There is no script {command[0]}; expected a file, or a module's name with --module."
        )
    Every.parse(checkpoint_every)
    checked_policy(on_nan)
    for text in fault or []:
        parse_fault(text, agents)
    check_writable(profile)
    with out_folder(out, Path(command[0]).stem) as made:
        folder = made.resolve()
        if resume:
            refuse_unresumable(out, agents, row)
            set_damaged_aside(folder, complain)
        elif any(folder.glob("agent-*.trace")):
            raise SettingError(
                f"{folder} holds a run already: --resume goes on with it, another --out starts a new one."
            )
        settings: dict[str, Any] = {
            "agents": agents, "topology": topology, "algorithm": row.name, "seed": seed, "unit": 1.0,
            "folder": str(folder), "checkpoint_every": checkpoint_every, "resume": resume, "script": command,
            "faults": fault or [], "on_nan": on_nan,
        }  # fmt: skip
        started = ["-m", "offbeat.training.child", *(["-m"] if module else []), *command]
        before = elapsed([log_path(folder, i) for i in range(agents)])
        job = Job(agents, started, folder, settings, max_restarts, "return" in row.tolerates, before)
        stopped_by = _run(job, tensorboard, profile, quiet)
    if stopped_by:
        raise typer.Exit(128 + stopped_by)


def _run(job: Job, tensorboard: Path | None, profile: Path | None, quiet: bool) -> int:
    """Run it, and keep what there is; the signal that ended it, 0 if none did."""
    launcher, failed = _launched(job, tensorboard, quiet)
    logs = [log_path(job.folder, i) for i in range(job.n)]
    with suppress(OffbeatError) if failed else nullcontext():  # the first error is the one to tell
        if failed is None or all(path.exists() for path in logs):
            _keep(merged(logs, launcher.settings), job.folder, profile, quiet)
    if failed is not None:
        raise failed
    return launcher.stopped_by


def _launched(job: Job, tensorboard: Path | None, quiet: bool) -> tuple[Launcher, OffbeatError | None]:
    """Run it, with metrics and a view of what happens; the error that it ended with, once it had begun."""
    metrics = Metrics(job.folder, tensorboard)
    with (
        Screen(Out(stderr=True), Out()) if not quiet else nullcontext() as screen,
        shown(screen, metrics) as told,
    ):
        launcher = Launcher(job, *told)
        failed: OffbeatError | None = None
        try:
            launcher.run()
        except OffbeatError as error:
            if not launcher.began:
                raise
            failed = RunFailed(f"{error}\n{_after(job.folder)}", error.exit_code)
    for remark in metrics.remarks:
        complain(remark)
    return launcher, failed


def _after(folder: Path) -> str:
    """What can be done with a run that has failed."""
    if not any((folder / "checkpoints").glob("agent-*/step-*")):
        return "No agent had saved a checkpoint yet (--checkpoint-every)."
    saved = f"What was saved is there: 'offbeat export {folder}' writes the model."
    if not log_path(folder, 0).exists():
        return f"{saved} The agents' logs are gone, so the run cannot go on."
    return f"{saved} Once what went wrong is mended, the same command with --resume --out {folder} goes on."


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
