"""The command line of live runs of the simulator's experiments: live."""

from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import typer

from offbeat.algorithms import find, with_local_steps
from offbeat.cli import options
from offbeat.cli.console import Out, complain
from offbeat.cli.machines import check_fits, machines, wanted_of
from offbeat.cli.outputs import Outputs, check_writable
from offbeat.core.errors import MISSING, SettingError
from offbeat.core.settings import TASK, WORLD, declared
from offbeat.core.system.named import Own, elsewhere, separated
from offbeat.core.system.signals import terminable
from offbeat.engines.live.cluster.wanted import Wanted
from offbeat.engines.live.launcher.outfolder import out_folder, refuse_used
from offbeat.engines.live.launcher.screen import Screen
from offbeat.engines.live.settings import CheckpointPolicy, RunSettings
from offbeat.experiments.experiment import Experiment, Selection
from offbeat.experiments.live.series import ALL, Series, parse_unit
from offbeat.experiments.setup import agents_of, checked
from offbeat.world.files import absolute
from offbeat.world.graph_files import SUFFIXES
from offbeat.world.world import measured

HELPS = {
    "algorithms": "Names with commas between; they run one after another.",
    "agents": "How many agents, a process each; default: the task's, the graph's, or 4.",
    "lr": "The learning rate, as in compare; it is not tuned.",
    "seed": "Of delays, data and choices.",
    "until": "When a run ends, in units; default: 30 s worth.",
    "compute": "How long gradients take, at least; as in compare.",
    "communication": "How long until what was sent can be seen; as in compare.",
}
"""Where it is other than in compare."""

PANELS = {TASK: "What is run"}
AGENTS, DEFAULTS = 4, {"topology": "ring", "algorithms": "adsgd"}


@options.with_settings(
    Selection, Experiment, RunSettings, Wanted, live=True, panels=PANELS, helps=HELPS, defaults=DEFAULTS
)
def live(
    asked: dict[str, Any],
    ctx: typer.Context,
    unit: str = options.option("20ms", WORLD, "Real time in a unit: '20ms', '0.5s'."),
    resume: bool = options.RESUME,
    json: Path | None = options.JSON,
    report: Path | None = options.REPORT,
    out: Path | None = options.OUT,
    quiet: bool = options.QUIET,
) -> None:
    """Run the simulator's experiments for real: one process an agent, real gradients, real crashes.

    Computation is padded up to the drawn time, and what is sent becomes visible after the drawn delay, so the
    world is the one of 'offbeat compare'; the table, the JSON file and the page are the same. Ctrl-C keeps
    what there is.

    With --resume, runs that have ended are taken as they are, the one that was interrupted goes on from its
    checkpoints, and those that had not begun are run; settings that are not named are those of before. Of
    faults only slowness goes on: name others again.

    Examples:

      offbeat live --task digits --case comp-straggler --algorithms adsgd,dsgd \\
          --until 1500 --report live.html
      offbeat live --resume --out offbeat-runs/digits-0
    """
    check_writable(json, report)
    wanted = wanted_of(asked)
    if wanted.attach is not None:
        raise SettingError("--attach is of offbeat launch: expected it there.")
    asked, how = _said(asked, unit)
    given = {name for name in [*asked, *how] if options.is_given(ctx, name)}
    series = _series(wanted, asked, how, (out, given) if resume else None)
    own, graph = Own.parse(series.asked["task"]), series.setup.topology
    name = series.asked["task"] if own is None else own.name
    with ExitStack() as stack:
        folder = stack.enter_context(out_folder(out, name))
        if not resume:
            refuse_used(folder)
        series = series.within(folder, **stack.enter_context(machines(wanted, graph, quiet)))
        ended = series.ended(complain)
        series.keep_asked(folder)
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
    if code := outcome.code or MISSING * outcome.missing:
        raise typer.Exit(code)


def _said(asked: dict[str, Any], unit: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is asked for, and how it is to be run, as the folder of the run keeps it."""
    how = {name: asked.pop(name) for name in declared(RunSettings)}
    how["checkpoint_every"] = CheckpointPolicy.parse(how["checkpoint_every"]).record()
    how["fault"] = [*how["fault"]]
    said = {
        name: each for name, each in declared(Experiment).items() if each.scope == WORLD or name == "target"
    }
    for name in asked.keys() & said:
        value = said[name].checked(asked[name])
        asked[name] = None if value is None else absolute(said[name].kind.record(value))
    e = {name: asked[name] for name in declared(Experiment) if name in asked}
    asked["agents"] = agents_of(checked(Experiment(**e)), asked["seed"], AGENTS)
    asked |= {name: [*value] for name, value in asked.items() if isinstance(value, tuple)}
    asked["unit"] = parse_unit(unit)
    asked["data"] = None if asked["data"] is None else str(asked["data"].resolve())
    specs = [find(elsewhere(name)) for name in separated(asked["algorithms"])]
    asked["algorithms"] = [with_local_steps(spec, asked["local_steps"]).asked for spec in specs]
    del asked["local_steps"]
    asked["task"], asked["topology"] = elsewhere(asked["task"]), elsewhere(asked["topology"], SUFFIXES)
    asked["lr"] = {name or ALL: rates for name, rates in options.parse_lrs(asked["lr"] or []).items()}
    return asked, how


def _series(
    wanted: Wanted, asked: dict[str, Any], how: dict[str, Any], before: tuple[Path | None, set[str]] | None
) -> Series:
    """The runs that are asked for, or, with a folder and what is said anew, those that go on there."""
    if before is None:
        check_fits(wanted, asked["agents"], how["fault"])
        return Series.of(asked, how)
    out, given = before
    series = Series.resumed(out, asked, how, given)
    check_fits(wanted, series.asked["agents"], series.how["fault"])
    return series
