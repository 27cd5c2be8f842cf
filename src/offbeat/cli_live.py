"""The command line of live runs: launch, live, replay."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress
from rich.text import Text

from offbeat import comparison
from offbeat.algorithms import ALGORITHMS, find
from offbeat.cli import check_writable, parse_steps, write_results
from offbeat.console import Out, progress_bar
from offbeat.errors import DiskError, OffbeatError, SettingError
from offbeat.live.enter import log_path
from offbeat.live.faults import parse_fault
from offbeat.live.launch import Job, Launcher, job_folder
from offbeat.live.log import elapsed, merged
from offbeat.live.metrics import Metrics
from offbeat.live.saver import Every
from offbeat.live.screen import Screen
from offbeat.liverun import parse_unit, run_live
from offbeat.perfetto import save_perfetto
from offbeat.replaying import replayed
from offbeat.report.table import as_table
from offbeat.results import Comparison, Run
from offbeat.topology import build
from offbeat.trace import Trace

WHAT, HOW, WORLD, LEARNING, OUTPUT = "What is run", "How", "The world", "Learning", "Running and output"


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(context_settings={"allow_interspersed_args": False})(launch)
    app.command()(live)
    app.command()(replay)


def launch(
    command: Annotated[
        list[str], typer.Argument(metavar="SCRIPT [ARGUMENTS]...", help="Your script and its own arguments.")
    ],
    agents: Annotated[int, typer.Option("--agents", "-n", help="How many agents.", rich_help_panel=WHAT)] = 2,
    topology: Annotated[
        str, typer.Option(help="Who hears whom; see 'offbeat list topologies'.", rich_help_panel=WHAT)
    ] = "ring",
    algorithm: Annotated[str, typer.Option(help=f"One of {', '.join(ALGORITHMS)}.", rich_help_panel=WHAT)] = "adsgd",
    seed: Annotated[
        int, typer.Option(help="Of the shares of the data and the random choices.", rich_help_panel=WHAT)
    ] = 0,
    module: Annotated[
        bool, typer.Option("--module", "-m", help="SCRIPT is the name of a module.", rich_help_panel=WHAT)
    ] = False,
    max_restarts: Annotated[
        int,
        typer.Option(help="How often one agent is started again; 0: the run ends when one dies.", rich_help_panel=HOW),
    ] = 3,
    checkpoint_every: Annotated[
        str, typer.Option(help="Steps ('500') or seconds ('60s') between checkpoints.", rich_help_panel=HOW)
    ] = "60s",
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A fault on purpose: 'kill agent 2 at step 100'; repeat it for more.", rich_help_panel=HOW),
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
            help="Write what every agent did when, for ui.perfetto.dev (.json or .json.gz).", rich_help_panel=OUTPUT
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

    The script calls offbeat.join() and wraps its optimizer. Agents that die are started again, from a neighbour's
    model. Ctrl-C saves and ends in order.

    Example:

      offbeat launch -n 4 --topology ring --algorithm adsgd train.py --epochs 3
    """
    row = find(algorithm)
    row.check(build(topology, agents, seed))
    if not module and not Path(command[0]).is_file():
        raise SettingError(f"There is no script {command[0]}; expected a file, or a module's name with --module.")
    Every.parse(checkpoint_every)
    for text in fault or []:
        parse_fault(text, agents)
    if max_restarts < 0:
        raise SettingError(f"--max-restarts must be 0 or more; got {max_restarts}.")
    check_writable(profile)
    name = Path(command[0]).stem
    folder = job_folder(out, name).resolve()
    if not resume and any(folder.glob("agent-*.trace")):
        raise SettingError(f"{folder} holds a run already: --resume goes on with it, another --out starts a new one.")
    settings: dict[str, Any] = {
        "agents": agents, "topology": topology, "algorithm": row.name, "seed": seed, "unit": 1.0, "folder": str(folder),
        "checkpoint_every": checkpoint_every, "resume": resume, "script": command,
        "faults": fault or [],
    }  # fmt: skip
    started = ["-m", "offbeat.child", *(["-m"] if module else []), *command]
    logs = [log_path(folder, i) for i in range(agents)]
    job = Job(agents, started, folder, settings, max_restarts, "return" in row.tolerates, elapsed(logs))
    try:
        stopped_by = _launched(job, tensorboard, quiet)
    except OffbeatError:
        with suppress(OffbeatError):  # the trace of what there was, but the first error is the one to tell
            _keep(merged(logs, settings), folder, profile, quiet)
        raise
    _keep(merged(logs, settings), folder, profile, quiet)
    if stopped_by:
        raise typer.Exit(128 + stopped_by)


def _launched(job: Job, tensorboard: Path | None, quiet: bool) -> int:
    """Run it, with metrics and a view of what happens; the signal that ended it, 0 if none did."""
    metrics = Metrics(job.folder, tensorboard)
    with Screen(Out(stderr=True), Out()) if not quiet else nullcontext() as screen:

        def say(agent: int, line: str) -> None:
            if screen is not None:
                screen.print(Text.assemble((f"[{agent}] ", f"color({agent % 6 + 1})"), line))

        def watch(launcher: Launcher) -> None:
            metrics(launcher)
            if screen is not None:
                screen.update(launcher, metrics)

        launcher = Launcher(job, say, watch)
        try:
            launcher.run()
        finally:
            metrics.close()
    _complain(metrics)
    return launcher.stopped_by


def _complain(metrics: Metrics) -> None:
    """Say what could not be written, if anything."""
    if metrics.error:
        Out(stderr=True).print(Text(metrics.error), soft_wrap=True)


def _keep(trace: Trace, folder: Path, profile: Path | None, quiet: bool) -> None:
    """Write the trace, and the profile if one is wanted."""
    try:
        trace.save(folder / "trace.npz")
        if profile is not None:
            save_perfetto(trace, profile)
    except OSError as error:
        raise DiskError(f"Cannot write {error.filename or folder}: {error.strerror or error}.") from error
    if not quiet:
        for path in [folder, *([profile] if profile is not None else [])]:
            Out().print(Text(f"Written: {path}"), soft_wrap=True)


def live(
    task: Annotated[str, typer.Option(help="What is trained: 'offbeat list tasks'.", rich_help_panel=WHAT)] = "digits",
    algorithms: Annotated[
        str, typer.Option(help="Names with commas between; they run one after another.", rich_help_panel=WHAT)
    ] = "adsgd",
    agents: Annotated[int, typer.Option(help="How many agents, a process each.", rich_help_panel=WHAT)] = 4,
    topology: Annotated[str, typer.Option(help="Who hears whom; as in compare.", rich_help_panel=WHAT)] = "ring",
    skew: Annotated[float, typer.Option(help="Fraction of the data split by label.", rich_help_panel=WHAT)] = 1.0,
    dirichlet: Annotated[float | None, typer.Option(help="Split by a Dirichlet mixture.", rich_help_panel=WHAT)] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with the data; as in compare.", rich_help_panel=WHAT)
    ] = None,
    case: Annotated[str, typer.Option(help="See 'offbeat list cases'.", rich_help_panel=WORLD)] = "base",
    straggler: Annotated[
        int | None, typer.Option(help="The slow agent; default: the centre.", rich_help_panel=WORLD)
    ] = None,
    slowdown: Annotated[float, typer.Option(help="How many times slower.", rich_help_panel=WORLD)] = 10.0,
    compute: Annotated[
        str, typer.Option(help="How long gradients take, at least.", rich_help_panel=WORLD)
    ] = "gamma 0.25",
    communication: Annotated[
        str, typer.Option(help="How long until what was sent can be seen.", rich_help_panel=WORLD)
    ] = "lognormal 1",
    loss: Annotated[float, typer.Option(help="Probability that a register is missed.", rich_help_panel=WORLD)] = 0.0,
    unit: Annotated[str, typer.Option(help="Real time in a unit: '20ms', '0.5s'.", rich_help_panel=WORLD)] = "20ms",
    fault: Annotated[
        list[str] | None,
        typer.Option(help="A fault on purpose: 'kill agent 2 at step 100'; repeat it for more.", rich_help_panel=WORLD),
    ] = None,
    lr: Annotated[list[str] | None, typer.Option(help="The step, as in compare.", rich_help_panel=LEARNING)] = None,
    batch: Annotated[int, typer.Option(help="Samples in a minibatch.", rich_help_panel=LEARNING)] = 32,
    reg: Annotated[float, typer.Option(help="As in compare.", rich_help_panel=LEARNING)] = 0.001,
    until: Annotated[
        float | None, typer.Option(help="When a run ends, in units; default: 30 s worth.", rich_help_panel=LEARNING)
    ] = None,
    target: Annotated[float | None, typer.Option(help="Accuracy to reach.", rich_help_panel=LEARNING)] = None,
    eval_every: Annotated[
        float | None, typer.Option(help="Units between evaluations; default: until / 200.", rich_help_panel=LEARNING)
    ] = None,
    seed: Annotated[int, typer.Option(help="Of delays, data and choices.", rich_help_panel=OUTPUT)] = 0,
    max_restarts: Annotated[int, typer.Option(help="Of one agent; 0: end when one dies.", rich_help_panel=OUTPUT)] = 3,
    checkpoint_every: Annotated[
        int, typer.Option(min=0, help="Steps between checkpoints, for offbeat export; 0: none.", rich_help_panel=OUTPUT)
    ] = 0,
    json: Annotated[Path | None, typer.Option(help="Write all results to this file.", rich_help_panel=OUTPUT)] = None,
    report: Annotated[Path | None, typer.Option(help="Write the page to this file.", rich_help_panel=OUTPUT)] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for traces; default: a new one in ./offbeat-runs.", rich_help_panel=OUTPUT),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Run the simulator's experiments for real: one process an agent, real gradients, real crashes.

    Computation is padded up to the drawn time, and what is sent becomes visible after the drawn delay, so the world is
    the one of 'offbeat compare'; the table, the JSON file and the page are the same. Ctrl-C keeps what there is.

    Example:

      offbeat live --task digits --case comp-straggler --algorithms adsgd,dsgd --until 1500 --report live.html
    """
    check_writable(json, report)
    seconds = parse_unit(unit)
    e: dict[str, Any] = {
        "task": task, "agents": agents, "topology": topology, "case": case, "straggler": straggler, "reg": reg,
        "slowdown": slowdown, "skew": skew, "dirichlet": dirichlet, "batch": batch, "target": target, "loss": loss,
        "until": until if until is not None else 30.0 / seconds, "data": None if data is None else str(data.resolve()),
        "compute": compute, "communication": communication, "eval_every": eval_every,
    }  # fmt: skip
    plan = comparison.plan(algorithms, lr=parse_steps(lr or []), seed=seed, **e)
    if None in plan.steps:
        raise SettingError("Live runs do not tune; tune with 'offbeat compare --lr tuned', then name the step.")
    for text in fault or []:
        parse_fault(text, plan.prepared[0].topology.n)
    folder = job_folder(out, task).resolve()
    kept = {"max_restarts": max_restarts, "faults": fault or [], "checkpoint_every": checkpoint_every}
    result, code = _all_live(plan, e, folder, seconds, kept, quiet)
    written, failures = write_results(result, json, report)
    if not quiet:
        console = Out()
        console.print(as_table(result, console.width))
        for path in [*written, folder]:
            console.print(Text(f"Written: {path}"), soft_wrap=True)
    if failures:
        raise OffbeatError(" ".join(failures))
    if code:
        raise typer.Exit(code)


def _all_live(
    plan: comparison.Plan, e: dict[str, Any], folder: Path, unit: float, kept: dict[str, Any], quiet: bool
) -> tuple[Comparison, int]:
    """The runs one after another, and the exit code; a signal ends them and keeps what there is."""
    runs: list[Run] = []
    p = plan.prepared[0]
    with nullcontext() if quiet else progress_bar() as bar:
        console = Out(stderr=True) if bar is None else bar.console

        def say(agent: int, line: str) -> None:
            if not quiet:
                console.print(Text(f"[{agent}] {line}"), soft_wrap=True)

        for row, steps in zip(plan.rows, plan.steps, strict=True):
            for lr in steps or []:
                where = folder / f"{row.name.replace(':', '-')}-lr{lr!r}"
                where.mkdir(exist_ok=True)
                told = None if bar is None else _told(bar, row.name, p.until)
                metrics = Metrics(where)
                try:
                    run, signal_number = run_live(p, e, row, lr, where, unit, say=say, told=told, look=metrics, **kept)
                finally:
                    metrics.close()
                if not quiet:
                    _complain(metrics)
                runs.append(run)
                if signal_number:
                    return Comparison(runs, interrupted=True), 128 + signal_number
    return Comparison(runs), 0


def _told(bar: Progress, name: str, until: float) -> Callable[[float], None]:
    """A callback that moves a bar of this run's own."""
    task = bar.add_task(name, total=round(until))
    return lambda now: bar.update(task, completed=round(now))


def replay(
    trace: Annotated[Path, typer.Argument(help="A trace.npz that a live run wrote.")],
) -> None:
    """Run a live run's trace through fresh agents in the simulator, and compare what they do with what was recorded."""
    console = Out()
    outcome = replayed(Trace.load(trace), trace.parent)
    for line in outcome.lines:
        console.print(Text(line), soft_wrap=True)
    if not outcome.same:
        raise typer.Exit(1)
