"""The command line of live runs of the simulator's experiments: live."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from offbeat.algorithms import Algorithm, find
from offbeat.cli.compare import check_writable, parse_lrs
from offbeat.cli.console import Out, complain
from offbeat.cli.outputs import Outputs
from offbeat.core.errors import DiskError, SettingError
from offbeat.core.system.reading import reading
from offbeat.core.system.signals import exit_code, terminable
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.outfolder import out_folder, undone
from offbeat.engines.live.launcher.screen import Screen, shown
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.node.guard import SKIP, checked_policy
from offbeat.engines.live.shm.board import MOST
from offbeat.experiments import comparison
from offbeat.experiments.livefolder import (
    EXPECTED,
    NAME,
    asked_before,
    begun,
    keep_asked,
    refuse_used,
    run_folder,
    set_damaged_aside,
    why_not_resumable,
)
from offbeat.experiments.liverun import ended_run, has_ended, parse_unit, run_live
from offbeat.experiments.memory import refuse_processes
from offbeat.experiments.setup import Setup
from offbeat.results.run import Comparison, Run
from offbeat.world.world import measured

WHAT, WORLD, LEARNING, OUTPUT = "What is run", "The world", "Learning", "Running and output"

YEAR = 366 * 86_400.0
"""Seconds."""

ALL = "all"
"""What live.json calls the step of all algorithms that have none of their own."""


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
        int,
        typer.Option(
            min=0,
            help="Steps between checkpoints, for --resume and offbeat export; 0: none.",
            rich_help_panel=OUTPUT,
        ),
    ] = 0,
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
        "max_restarts": max_restarts, "checkpoint_every": checkpoint_every, "fault": fault or [],
        "on_nan": checked_policy(on_nan),
    }  # fmt: skip
    if resume:
        asked, how, series = resumed(
            out, asked, how, {name for name in [*asked, *how] if _is_given(ctx, name)}
        )
    else:
        series = _checked(asked, how)
    with out_folder(out, asked["task"]) as folder:
        if not resume:
            refuse_used(folder)
        ended = series.ended(folder)
        keep_asked(folder, asked, how)
        for line in [] if quiet else measured(series.setup.world):
            complain(line)
        output = Outputs(quiet)
        result, code = series.run(folder, ended, output)
        if output.error is not None and not result.runs and not series.any_begun(folder):
            raise output.error
        output.results(result, json, report)
        if (code or output.error is not None) and not quiet:
            complain(series.how_to_go_on(folder))
        output.close(*[folder.resolve()] * folder.exists())
    if code:
        raise typer.Exit(code)


def _is_given(ctx: typer.Context, name: str) -> bool:
    """Whether an option was named on the command line."""
    source = ctx.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def resumed(
    out: Path | None, asked: dict[str, Any], how: dict[str, Any], given: set[str]
) -> tuple[dict[str, Any], dict[str, Any], Series]:
    """What was asked for when the run in this folder was started, how it goes on, and its runs. See
    `asked_before`.
    """
    asked, how = asked_before(out, asked, how, given)
    assert out is not None
    with reading(out / NAME, EXPECTED):
        if "fault" not in given:
            how["fault"] = [
                text for text in how["fault"] if parse_fault(text, asked["agents"]).kind == "slow"
            ]
        return asked, how, _checked(asked, how)


def _checked(asked: dict[str, Any], how: dict[str, Any]) -> Series:
    """All runs that are asked for. Raises SettingError or DataError; nothing has run then."""
    seconds = asked["unit"]
    e = {name: value for name, value in asked.items() if name not in ("algorithms", "lr", "seed", "unit")}
    e["until"] = 30.0 / seconds if e["until"] is None else e["until"]
    refuse_processes(asked["agents"])
    if not e["until"] * seconds <= YEAR:
        raise SettingError(
            f"Until time {e['until']:g}, {e['until'] * seconds:.3g} s, it would run for years."
        )
    lr = {"" if name == ALL else name: step for name, step in asked["lr"].items()}
    plan = comparison.plan(asked["algorithms"], lr=lr, seed=asked["seed"], **e)
    if None in plan.steps:
        raise SettingError(
            "Live runs do not tune; tune with 'offbeat compare --lr tuned', then name the step."
        )
    for text in how["fault"]:
        parse_fault(text, asked["agents"])
    runs = [(spec, step) for spec, steps in zip(plan.specs, plan.steps, strict=True) for step in steps or []]
    return Series(plan.setups[0], e, runs, seconds, how)


@dataclass(frozen=True)
class Series:
    """The runs of one experiment, one after another.

    Attributes:
        e: the experiment's settings, JSON-ready
        runs: (algorithm, step)
        unit: seconds
        how: restarts, checkpoints and faults
    """

    setup: Setup
    e: dict[str, Any]
    runs: list[tuple[Algorithm, float]]
    unit: float
    how: dict[str, Any]

    def ended(self, folder: Path) -> dict[Path, Run]:
        """The runs that have ended by themselves. Raises SettingError if one that began cannot go on."""
        found = {}
        for spec, lr in self.runs:
            where = run_folder(folder, spec, lr)
            run = ended_run(self.setup, spec, lr, where, self.unit)
            if run is not None:
                found[where] = run
            elif begun(where):
                set_damaged_aside(where, complain)
                if why := why_not_resumable(where, self.setup.topology.n, spec):
                    raise SettingError(why)
        return found

    def run(self, folder: Path, ended: Mapping[Path, Run], output: Outputs) -> tuple[Comparison, int]:
        """Make the others, and the exit code; a signal or an error ends them and keeps what there is."""
        runs: list[Run] = []
        remarks: list[str] = []
        console, code = Out(stderr=True), 0
        with terminable(), Screen(console, console) if not output.quiet else nullcontext() as screen:
            for k, (spec, lr) in enumerate(self.runs):
                where = run_folder(folder, spec, lr)
                name = f"{where.name} ({k + 1} of {len(self.runs)})"
                if screen is not None and (where in ended or begun(where)):
                    what = (
                        "has ended, and is taken as it is"
                        if where in ended
                        else "goes on from its checkpoints"
                    )
                    screen.print(f"{name} {what}")
                run: Run | None = ended.get(where)
                if run is None:
                    try:
                        run, number = self._one(spec, lr, where, name, screen, remarks)
                    except KeyboardInterrupt as interrupt:  # while it is evaluated
                        run, number = None, exit_code(interrupt) - 128
                    except Exception as error:  # whatever it is, it costs no run that has ended
                        output.error, number = error, 0
                    else:
                        if not number and not has_ended(where):
                            output.error = DiskError(f"What is in {where} is not the whole run: see above.")
                    code = 128 + number if number else 0
                runs += [run] if run is not None else []
                if code or output.error is not None:
                    break
        for remark in remarks:
            console.print(Text(remark), soft_wrap=True)
        return Comparison(runs, interrupted=code != 0 or output.error is not None), code

    def _one(
        self, spec: Algorithm, lr: float, where: Path, name: str, screen: Screen | None, remarks: list[str]
    ) -> tuple[Run | None, int]:
        """One run, from its checkpoints if it had begun, and the signal that ended it."""

        def told(now: float) -> None:
            if screen is not None:
                screen.about = f"{name}, time {now:,.0f} of {self.setup.until:,.0f}"

        told(0.0)
        resume = begun(where)
        fresh = [] if where.exists() else [where]
        try:
            where.mkdir(exist_ok=True)
        except OSError as error:
            raise DiskError(f"Cannot make the folder {where}: {error.strerror or error}.") from error
        with undone(where, fresh), shown(screen, metrics := Metrics(where)) as (say, watch):
            run, number = run_live(
                self.setup, self.e, spec, lr, where, self.unit, self.how["max_restarts"], say, told, self.how["fault"],
                watch, self.how["checkpoint_every"], resume, self.how.get("on_nan", SKIP),
            )  # fmt: skip
        remarks += metrics.remarks
        return run, number

    def any_begun(self, folder: Path) -> bool:
        """Whether there is anything of any run."""
        return any(begun(run_folder(folder, spec, lr)) for spec, lr in self.runs)

    def how_to_go_on(self, folder: Path) -> str:
        """After an interruption: what to do, in a sentence or two."""
        wheres = [(run_folder(folder, spec, lr), spec) for spec, lr in self.runs]
        left = [(where, spec) for where, spec in wheres if begun(where) and not has_ended(where)]
        whys = [why for where, spec in left if (why := why_not_resumable(where, self.setup.topology.n, spec))]
        return " ".join([*whys, f"To go on: offbeat live --resume --out {shlex.quote(str(folder))}"])
