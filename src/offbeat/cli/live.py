"""The command line of live runs of the simulator's experiments: live."""

from contextlib import nullcontext
from typing import Annotated, Any

import typer

from offbeat.algorithms import find
from offbeat.cli.compare import check_writable, parse_lrs
from offbeat.cli.console import Out, complain
from offbeat.cli.options import JsonFile, OutFolder, Quiet, ReportFile, Resume, with_settings
from offbeat.cli.outputs import Outputs
from offbeat.core.settings import TASK, WORLD, declared
from offbeat.core.system.signals import terminable
from offbeat.engines.live.launcher.outfolder import out_folder, refuse_used
from offbeat.engines.live.launcher.screen import Screen
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings
from offbeat.experiments.experiment import Experiment, Selection
from offbeat.experiments.live.folder import keep_asked
from offbeat.experiments.live.series import ALL, Series, parse_unit, resumed
from offbeat.world.world import measured

HELPS = {
    "algorithms": "Names with commas between; they run one after another.",
    "agents": "How many agents, a process each.",
    "lr": "The learning rate, as in compare; it is not tuned.",
    "seed": "Of delays, data and choices.",
    "until": "When a run ends, in units; default: 30 s worth.",
    "compute": "How long gradients take, at least; as in compare.",
    "communication": "How long until what was sent can be seen; as in compare.",
}
"""Where it is other than in compare."""


Unit = Annotated[str, typer.Option(help="Real time in a unit: '20ms', '0.5s'.", rich_help_panel=WORLD)]


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command()(live)


@with_settings(
    Selection, Experiment, RunSettings, live=True, panels={TASK: "What is run"}, helps=HELPS,
    agents=4, topology="ring", algorithms="adsgd",
)  # fmt: skip
def live(
    asked: dict[str, Any],
    ctx: typer.Context,
    unit: Unit = "20ms",
    resume: Resume = False,
    json: JsonFile = None,
    report: ReportFile = None,
    out: OutFolder = None,
    quiet: Quiet = False,
) -> None:
    """Run the simulator's experiments for real: one process an agent, real gradients, real crashes.

    Computation is padded up to the drawn time, and what is sent becomes visible after the drawn delay, so the
    world is the one of 'offbeat compare'; the table, the JSON file and the page are the same. Ctrl-C keeps
    what there is.

    With --resume, runs that have ended are taken as they are, the one that was interrupted goes on from its
    checkpoints, and those that had not begun are run; settings that are not named are those of before. Of
    faults only slowness goes on: name others again.

    Examples:

      offbeat live --task digits --case comp-straggler --algorithms adsgd,dsgd --until 1500 --report live.html

      offbeat live --resume --out offbeat-runs/digits-0
    """
    check_writable(json, report)
    asked, how = _said(asked, unit)
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


def _said(asked: dict[str, Any], unit: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is asked for, and how it is to be run, as the folder of the run keeps it."""
    how = {name: asked.pop(name) for name in declared(RunSettings)}
    how["checkpoint_every"] = CheckpointPolicy.parse(how["checkpoint_every"]).record()
    how["fault"] = [*how["fault"]]
    asked |= {
        "unit": parse_unit(unit), "data": None if asked["data"] is None else str(asked["data"].resolve()),
        "algorithms": [find(name).name for name in asked["algorithms"].split(",")],
        "lr": {name or ALL: rates for name, rates in parse_lrs(asked["lr"] or []).items()},
    }  # fmt: skip
    return asked, how


def _is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was named on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"
