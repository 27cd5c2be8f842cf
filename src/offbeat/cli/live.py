"""The command line of live runs of the simulator's experiments: live."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from offbeat.algorithms import find
from offbeat.cli.compare import check_writable, parse_lrs
from offbeat.cli.console import Out, complain
from offbeat.cli.outputs import Outputs
from offbeat.core.system.signals import terminable
from offbeat.engines.live.launcher.outfolder import out_folder
from offbeat.engines.live.launcher.resuming import refuse_used
from offbeat.engines.live.launcher.screen import Screen
from offbeat.engines.live.node.guard import SKIP
from offbeat.engines.live.settings import CheckpointPolicy
from offbeat.engines.live.shm.board import MOST
from offbeat.experiments.live.folder import keep_asked
from offbeat.experiments.live.series import ALL, Series, parse_unit, resumed
from offbeat.world.world import measured

WHAT, WORLD, LEARNING, OUTPUT = "What is run", "The world", "Learning", "Running and output"


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(live)


def live(
    ctx: typer.Context,
    task: Annotated[
        str, typer.Option(help="What is trained: 'offbeat list tasks'.", rich_help_panel=WHAT)
    ] = "digits",
    algorithms: Annotated[
        str, typer.Option(help="Names with commas between; they run one after another.", rich_help_panel=WHAT)
    ] = "adsgd",
    agents: Annotated[
        int, typer.Option(min=1, max=MOST, help="How many agents, a process each.", rich_help_panel=WHAT)
    ] = 4,
    topology: Annotated[
        str, typer.Option(help="Who hears whom; as in compare.", rich_help_panel=WHAT)
    ] = "ring",
    skew: Annotated[
        float, typer.Option(help="Fraction of the data split by label.", rich_help_panel=WHAT)
    ] = 1.0,
    dirichlet: Annotated[
        float | None, typer.Option(help="Split by a Dirichlet mixture.", rich_help_panel=WHAT)
    ] = None,
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
    loss: Annotated[
        float, typer.Option(help="Probability that a register is missed.", rich_help_panel=WORLD)
    ] = 0.0,
    unit: Annotated[
        str, typer.Option(help="Real time in a unit: '20ms', '0.5s'.", rich_help_panel=WORLD)
    ] = "20ms",
    fault: Annotated[
        list[str] | None,
        typer.Option(
            help="A fault on purpose: 'kill agent 2 at step 100'; repeat it for more.", rich_help_panel=WORLD
        ),
    ] = None,
    on_nan: Annotated[
        str,
        typer.Option(
            help="What an agent does with an update that is not finite: skip it, stop the run, or ignore it.",
            rich_help_panel=LEARNING,
        ),
    ] = SKIP,
    lr: Annotated[
        list[str] | None, typer.Option(help="The step, as in compare.", rich_help_panel=LEARNING)
    ] = None,
    batch: Annotated[int, typer.Option(help="Samples in a minibatch.", rich_help_panel=LEARNING)] = 32,
    reg: Annotated[float, typer.Option(help="As in compare.", rich_help_panel=LEARNING)] = 0.001,
    until: Annotated[
        float | None,
        typer.Option(help="When a run ends, in units; default: 30 s worth.", rich_help_panel=LEARNING),
    ] = None,
    target: Annotated[float | None, typer.Option(help="Accuracy to reach.", rich_help_panel=LEARNING)] = None,
    eval_every: Annotated[
        float | None,
        typer.Option(help="Units between evaluations; default: until / 200.", rich_help_panel=LEARNING),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of delays, data and choices.", rich_help_panel=OUTPUT)] = 0,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="Of one agent; 0: end when one dies.", rich_help_panel=OUTPUT)
    ] = 3,
    checkpoint_every: Annotated[
        str,
        typer.Option(
            help="Steps ('500') or seconds ('60s') between checkpoints, for --resume and offbeat export; "
            "0: none.",
            rich_help_panel=OUTPUT,
        ),
    ] = "0",
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on with what is in --out, with its settings.", rich_help_panel=OUTPUT
        ),
    ] = False,
    json: Annotated[
        Path | None, typer.Option(help="Write all results to this file.", rich_help_panel=OUTPUT)
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="Write the page to this file.", rich_help_panel=OUTPUT)
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for traces; default: a new one in ./offbeat-runs.", rich_help_panel=OUTPUT),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Run the simulator's experiments for real: one process an agent, real gradients, real crashes.

    Computation is padded up to the drawn time, and what is sent becomes visible after the drawn delay, so the
    world is the one of 'offbeat compare'; the table, the JSON file and the page are the same. Ctrl-C keeps
    what there is.

    With --resume, runs that have ended are taken as they are, the one that was interrupted goes on from its
    checkpoints, and those that had not begun are run; settings that are not named are those of before. Of
    faults only
    slowness goes on: name others again.

    Examples:

      offbeat live --task digits --case comp-straggler --algorithms adsgd,dsgd --until 1500 --report live.html

      offbeat live --resume --out offbeat-runs/digits-0
    """
    check_writable(json, report)
    asked: dict[str, Any] = {
        "task": task, "agents": agents, "topology": topology, "case": case, "straggler": straggler, "reg": reg,
        "slowdown": slowdown, "skew": skew, "dirichlet": dirichlet, "batch": batch, "target": target, "loss": loss,
        "until": until, "data": None if data is None else str(data.resolve()), "seed": seed,
        "compute": compute, "communication": communication, "eval_every": eval_every, "unit": parse_unit(unit),
        "algorithms": [find(name).name for name in algorithms.split(",")],
        "lr": {name or ALL: step for name, step in parse_lrs(lr or []).items()},
    }  # fmt: skip
    how: dict[str, Any] = {
        "max_restarts": max_restarts, "fault": fault or [], "on_nan": on_nan,
        "checkpoint_every": CheckpointPolicy.parse(checkpoint_every).record(),
    }  # fmt: skip
    if resume:
        asked, how, series = resumed(
            out, asked, how, {name for name in [*asked, *how] if _is_given(ctx, name)}
        )
    else:
        series = Series.of(asked, how)
    with out_folder(out, asked["task"]) as folder:
        if not resume:
            refuse_used(folder)
        series = series.within(folder)
        ended = series.ended(complain)
        keep_asked(folder, asked, how)
        for line in [] if quiet else measured(series.setup.world):
            complain(line)
        console, output = Out(stderr=True), Outputs(quiet)
        with terminable(), nullcontext() if quiet else Screen(console, console) as screen:
            outcome = series.run(ended, screen)
        for remark in outcome.remarks:
            complain(remark)
        output.error = outcome.error
        if output.error is not None and not outcome.runs and not series.begun:
            raise output.error
        output.results(outcome.comparison, json, report)
        if outcome.interrupted and not quiet:
            complain(series.how_to_go_on(folder))
        output.close(*[folder.resolve()] * folder.exists())
    if outcome.code:
        raise typer.Exit(outcome.code)


def _is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was named on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
