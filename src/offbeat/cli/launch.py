"""The command line of a user's own script: launch; and of the trace of any live run: replay."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from offbeat.algorithms import ALGORITHMS, Algorithm, check_codec, find, row_of
from offbeat.cli.console import Out, complain, say
from offbeat.cli.machines import attached, check_fits, machines, wanted_of
from offbeat.cli.options import OUT, QUIET, RESUME, is_given, option, with_settings
from offbeat.cli.outputs import check_writable
from offbeat.core.codecs import NONE, codec_of
from offbeat.core.errors import MISSING, DiskError, OffbeatError, SettingError
from offbeat.core.settings import RUNNING, SCOPES, declared
from offbeat.core.system.named import elsewhere
from offbeat.core.system.own import pinned, together
from offbeat.core.system.signals import deferred, exit_code
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher import outfolder, resuming
from offbeat.engines.live.launcher.launch import Launcher, RunFailed
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.screen import Screen, shown
from offbeat.engines.live.launcher.stop_after import FORMS, StopAfter
from offbeat.engines.live.members import Stage
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.node.log import damage
from offbeat.engines.live.settings import CONTINUE, CheckpointPolicy, RunSettings, ScriptProgram
from offbeat.engines.live.shm.board import MOST, Row
from offbeat.engines.trace import Trace, folder_of
from offbeat.experiments.experiment import COMPRESSED, WEIGHED
from offbeat.experiments.replaying import replayed
from offbeat.results.perfetto import save_perfetto
from offbeat.world.graph_files import SUFFIXES, file_of
from offbeat.world.growth import Growing
from offbeat.world.topology import Topology, build, size_of

WHAT, PANELS = "What is run", dict.fromkeys(SCOPES, "How")
DEFAULTS = {"checkpoint_every": CheckpointPolicy(seconds=60.0)}

AGENTS = 2
MANY = f"How many agents; default: the graph's, or {AGENTS}; with --resume as many as there were."
GRAPH = "Who hears whom; see 'offbeat list topologies'; default: ring; with --resume that of the run."
SCRIPT = "Your script; what follows it are its own arguments."
ENOUGH = (
    f"When all end, counted over all agents and lives: {FORMS}. For an end of the script's own that uneven "
    "speeds allow: agent.shard(loader, share='speed')."
)
PROFILE = "Write what every agent did when, for ui.perfetto.dev (.json or .json.gz)."


@with_settings(RunSettings, Wanted, live=True, last=True, panels=PANELS, defaults=DEFAULTS)
def launch(
    asked: dict[str, Any],
    ctx: typer.Context,
    command: list[str] | None = typer.Argument(None, metavar="SCRIPT", help=SCRIPT, show_default=False),
    agents: int | None = option(None, WHAT, MANY, "--agents", "-n", min=1, max=MOST),
    topology: str | None = option(None, WHAT, GRAPH),
    weights: str | None = option(None, WHAT, WEIGHED),
    compress: str = option(NONE, WHAT, COMPRESSED),
    algorithm: str = option("adsgd", WHAT, f"One of {', '.join(ALGORITHMS)}; or mine.py:Mine."),
    seed: int = option(0, WHAT, "Of the shares of the data and the random choices.", min=0),
    module: bool = option(False, WHAT, "SCRIPT is the name of a module.", "--module", "-m"),
    stop_after: str | None = option(None, WHAT, ENOUGH),
    resume: bool = RESUME,
    out: Path | None = OUT,
    profile: Path | None = option(None, RUNNING, PROFILE),
    tensorboard: Path | None = option(None, RUNNING, "Write TensorBoard's files to this folder."),
    quiet: bool = QUIET,
) -> None:
    """Train with your own script: one process an agent, none of which waits for another.

    The script calls offbeat.join() and wraps its optimizer. Agents that die are started again, from a
    neighbour's model. Ctrl-C saves and ends in order.

    Example:

      offbeat launch -n 4 --topology ring --algorithm adsgd train.py --epochs 3
    """
    if not command:
        wanted = wanted_of(asked, command)
        if wanted.attach is not None:
            _refuse_beside(ctx)
        _attach(wanted, out, tensorboard, profile, quiet)
        return
    spec, before = find(elsewhere(algorithm)), resuming.stages_before(outfolder.named(out)) if resume else ()
    stage = _stage(spec, before, agents, topology, weights, seed)
    agents, topology, weights = stage.graph
    wanted = wanted_of(asked, command, module)
    check_fits(wanted, stage.count, asked["fault"])
    graph = Growing(build(topology, agents, seed, weights), seed, weights).after(stage.grown)
    _check(spec, graph, asked["on_death"], compress)
    returns, needed = "return" in spec.tolerates, spec.needed(graph)
    asked["fault"] = tuple(parse_fault(text, stage.count) for text in asked["fault"])
    asked["checkpoint_every"] = CheckpointPolicy.parse(asked["checkpoint_every"])
    with pinned([file] if (file := file_of(topology)) is not None else []) as code:
        asked |= {"agents": agents, "grown": stage.grown, "earlier": before, "resume": resume}
        asked |= {"algorithm": spec.asked, "seed": seed, "code": together(code, spec.code)}
    asked["stop_after"] = None if stop_after is None else StopAfter.parse(stop_after)
    program = ScriptProgram(topology, tuple(command), weights, compress)
    settings = RunSettings(folder=Path(), program=program, **asked)
    check_writable(profile)
    script = [Path(command[0]).name, *command[1:]] if wanted.ships and not module else command
    start = ["-m", "offbeat.training.child", *(["-m"] if module else []), *script]
    with outfolder.out_folder(out, Path(command[0]).stem) as made:
        _go_on(made, before, stage, graph, not returns, quiet)
        with machines(wanted, graph, quiet) as there:
            settings = replace(settings, folder=made.resolve())
            launcher = Launcher(settings, start, returns, needed, **there)
            _run(launcher, tensorboard, profile, quiet)
    _exit(launcher)


def _go_on(
    folder: Path, before: Sequence[Stage], stage: Stage, graph: Topology, together: bool, quiet: bool
) -> None:
    """Raise SettingError for a folder in which this run cannot go on, or begin; say with what it does."""
    if not before:
        outfolder.refuse_used(folder.resolve())
        return
    outfolder.set_damaged_aside(folder.resolve(), complain)
    resuming.refuse_unresumable(folder, before[-1], stage, together=together)
    for line in resuming.sayings(folder.resolve(), before[-1], stage, graph) if not quiet else []:
        complain(line)


def _refuse_beside(ctx: typer.Context) -> None:
    """Raise SettingError for options that a run that goes on cannot be given any more."""
    also = {*declared(Wanted), "out", "tensorboard", "profile", "quiet"}
    others = [each for each in ctx.command.params if each.name not in also and is_given(ctx, each.name or "")]
    if others:
        found = ", ".join(max(each.opts, key=len) for each in others)
        raise SettingError(f"--attach goes on with a run as it is: expected no {found} beside it.")


def _attach(
    wanted: Wanted, out: Path | None, tensorboard: Path | None, profile: Path | None, quiet: bool
) -> None:
    """Be the launcher of a run on a cluster whose own has died."""
    with attached(wanted) as found, outfolder.out_folder(out or Path(found.plan.out), "") as made:
        settings = replace(found.settings, folder=made.resolve())
        launcher = Launcher(settings, found.plan.command, processes=found.children)
        _run(launcher, tensorboard, profile, quiet)
    _exit(launcher)


def _exit(launcher: Launcher) -> None:
    if ending := 128 + launcher.stopped_by if launcher.stopped_by else MISSING * bool(launcher.missing):
        raise typer.Exit(ending)


def _stage(
    spec: Algorithm,
    before: Sequence[Stage],
    agents: int | None,
    topology: str | None,
    weights: str | None,
    seed: int,
) -> Stage:
    """With which agents, on which graph it is to go on, or to begin. Raises SettingError."""
    topology = None if topology is None else elsewhere(topology, SUFFIXES)
    if not before:
        topology = topology or "ring"
        return Stage(agents or size_of(topology, seed) or AGENTS, topology, weights)
    stage = resuming.next_stage(before[-1], agents, topology, weights, seed)
    if stage.graph != before[-1].graph:
        spec.check_moved(before[-1].graph)
    return stage


def _check(spec: Algorithm, graph: Topology, on_death: str, compress: str) -> None:
    """Raise SettingError for what does not go together."""
    spec.check(graph)
    spec.check_script()
    if on_death == CONTINUE:
        spec.check_goes_on(graph)
    check_codec(spec, codec_of(compress))


def _run(launcher: Launcher, tensorboard: Path | None, profile: Path | None, quiet: bool) -> None:
    """Run it, in view, and keep what there is."""
    folder, failed = launcher.settings.folder, None
    metrics = Metrics(folder, tensorboard)
    with (
        nullcontext() if quiet else Screen(Out(stderr=True), Out()) as screen,
        shown(screen, metrics) as (on_output, watch),
    ):
        try:
            launcher.run(on_output, watch)
        except OffbeatError as error:
            if not launcher.began:
                raise
            failed = RunFailed(f"{error}\n{outfolder.what_is_left(folder)}", error.exit_code)
    try:
        with deferred():
            _told(launcher, metrics, failed, profile, quiet)
    except KeyboardInterrupt as interrupt:
        raise failed or typer.Exit(exit_code(interrupt)) from None
    if failed is not None:
        raise failed


def _told(
    launcher: Launcher, metrics: Metrics, failed: RunFailed | None, profile: Path | None, quiet: bool
) -> None:
    """Say how it ended, and keep its trace."""
    folder = launcher.settings.folder
    if launcher.stopped_by and not (failed or quiet):
        complain(outfolder.how_to_go_on(folder, int(launcher.board.rows[:, Row.STEPS].sum())))
    elif not (failed or quiet):
        complain(_said_at_the_end(launcher))
    for remark in metrics.remarks:
        complain(remark)
    if (rule := launcher.settings.stop_after) is not None and not (failed or launcher.stopped_by or quiet):
        before = "" if launcher.enough else "before it had done enough "
        complain(f"The run ended {before}(--stop-after {rule.text}).")
    with suppress(OffbeatError) if failed else nullcontext():  # the first error is the one to tell
        if failed is None or launcher.leaves_trace:
            row = row_of(launcher.settings.algorithm)  # a script may have named its own
            blocks = row is not None and row.prototype.blocks
            _keep(replace(launcher.trace(), blocks=blocks), folder, profile, quiet)


def _said_at_the_end(launcher: Launcher) -> str:
    """How many steps there are, in all lives, and how fast they were made."""
    rows, board = launcher.board.rows, launcher.board
    steps, seconds = int(rows[:, Row.STEPS].sum()), max(0, int(rows[:, Row.LAST].max()) - board.zero) / 1e9
    rate = f", {steps / seconds:,.1f} a second" if steps and seconds else ""
    return f"{board.n} agents made {steps:,} steps in {seconds:,.1f} s{rate}."


def _keep(trace: Trace, folder: Path, profile: Path | None, quiet: bool) -> None:
    try:
        trace.save(folder / "trace.npz")
        if profile is not None:
            save_perfetto(trace, profile)
    except OSError as error:
        raise DiskError(f"Cannot write {error.filename or folder}: {error.strerror or error}.") from error
    if why := damage(trace):
        complain(why)
    if not quiet:
        for path in (folder, profile):
            if path is not None:
                say(f"Written: {path}")


def replay(trace: Path = typer.Argument(help="A live run's folder, or its trace.npz.")) -> None:
    """Run a live run's trace through fresh agents in the simulator, and compare what they do with what was
    recorded.

    The exit code is 1 if anything differs.

    Example:

      offbeat replay offbeat-runs/train-0
    """
    outcome = replayed(Trace.load(trace), folder_of(trace))
    for line in outcome.lines:
        say(line)
    if not outcome.same:
        raise typer.Exit(1)
