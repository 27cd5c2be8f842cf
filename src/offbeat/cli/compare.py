"""The command line. What it can do, `offbeat.compare` can do from Python."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import typer

from offbeat.cli.console import RunsShown
from offbeat.cli.options import JsonFile, Quiet, ReportFile, with_settings
from offbeat.cli.outputs import Outputs
from offbeat.core.errors import SettingError
from offbeat.core.settings import RUNNING
from offbeat.core.system import machine
from offbeat.core.system.files import refuse_irregular
from offbeat.core.system.signals import exit_code, terminable
from offbeat.experiments import comparison
from offbeat.experiments.experiment import AGENTS, Experiment, Selection
from offbeat.experiments.memory import WORTH_SAYING
from offbeat.experiments.workers import possible, start_server, wanted
from offbeat.results.run import Comparison, Run
from offbeat.results.table import tuning_table
from offbeat.results.values import VERSION
from offbeat.tasks import TASKS
from offbeat.world.world import measured

app = typer.Typer(
    name="offbeat", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        print(f"offbeat {VERSION}")
        raise typer.Exit


@app.callback()
def offbeat(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Asynchronous decentralized SGD: compare algorithms under controlled delays.

    Start with [bold]offbeat compare --case combined[/bold], then see [bold]offbeat list[/bold].
    """


LONG = 100_000
"""Updates beside those of one run, if no agent ever waits: less than so many are made in a few seconds."""


@app.command()
@with_settings(Selection, Experiment)
def compare(
    asked: dict[str, Any],
    workers: Annotated[
        int | None,
        typer.Option(
            help="How many processes make runs at the same time; default: one for each core, where the runs "
            "are so long that it pays and memory suffices. 1: this one alone. The results are the same.",
            rich_help_panel=RUNNING,
        ),
    ] = None,
    json: JsonFile = None,
    report: ReportFile = None,
    traces: Annotated[
        Path | None,
        typer.Option(help="Write the trace of every run to this folder, as .npz.", rich_help_panel=RUNNING),
    ] = None,
    show_tuning: Annotated[
        bool,
        typer.Option(
            "--show-tuning", help="Print what every tuned learning rate gave, too.", rich_help_panel=RUNNING
        ),
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Run several algorithms in the same simulated world, and compare them.

    All meet the same delays and minibatches, and published models the same losses. The unit of time is the
    mean time of one gradient, and by default also that of sending one model. Runs are made on all cores, the
    longest first. Ctrl-C, SIGTERM and a dropped connection keep those that are finished.

    Examples:

      offbeat compare --case combined --target 0.9 --report report.html

      offbeat compare --task mnist --data DIR --seeds 5 --lr tuned --json out.json

      offbeat compare --algorithms adsgd,rfast --loss 0.3 --crash 'agent 3 at 100 until 200'
    """
    check_writable(json, report, None if traces is None else traces / "trace.npz")
    workers = wanted(workers)
    if workers > 1 and asked["device"] == "cpu" and _is_long(asked):
        start_server()
    asked |= {"lr": parse_lrs(asked["lr"] or []), "tune_grid": _numbers("--tune-grid", asked["tune_grid"])}
    plan = comparison.plan(**asked)
    if traces is not None:
        plan.check_traces()
    elif report is None:
        plan = plan.without_traces()
    output = Outputs(quiet)
    result, code = _carry_out(plan, workers, traces, _announced(plan, report, traces), output)
    output.results(result, json, report)
    if show_tuning:
        output.show(lambda width: tuning_table(result))
    output.close()
    if code:
        raise typer.Exit(code)


def _numbers(option: str, text: str | None) -> list[float] | None:
    """Numbers with commas between. Raises SettingError for anything else."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(
            f"Cannot read {option} {text}; expected numbers with commas between, as in 0.01,0.1."
        ) from None


def parse_lrs(texts: list[str]) -> dict[str, Any]:
    """--lr: 'x', 'x,y', 'tuned' for all; 'name=x' for one. Raises SettingError for anything else."""
    lrs: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.rpartition("=")
        name = name.strip().lower()
        if name in lrs:
            advice = "expected one." if name else "give several steps with commas between."
            raise SettingError(f"--lr was given twice for {name or 'all algorithms'}; {advice}")
        try:
            numbers = (
                value if value == "tuned" and not separator else [float(part) for part in value.split(",")]
            )
        except ValueError:
            raise SettingError(
                f"Cannot read --lr {text}; expected 0.01, or 0.01,0.03, or tuned, or rfast=0.05."
            ) from None
        if separator and len(numbers) != 1:
            raise SettingError(
                f"--lr {text} gives one algorithm several steps; expected one, as in rfast=0.05."
            )
        lrs[name] = numbers[0] if separator else numbers
    return lrs


def check_writable(*paths: Path | None) -> None:
    """Fail now rather than after the work."""
    named = [path for path in paths if path is not None]
    if len({path.resolve() for path in named}) < len(named):
        raise SettingError(
            f"Two results would be written to the same file, {named[0]}; expected different names."
        )
    for path in named:
        try:
            refuse_irregular(path)
            with tempfile.NamedTemporaryFile(dir=path.resolve().parent):
                pass
            if path.exists() and not os.access(path, os.W_OK):
                raise OSError("the file is read-only")
        except OSError as error:
            raise SettingError(
                f"Cannot write {path}: {error.strerror or error}. Expected a file in a folder that is "
                "writable."
            ) from None


def _is_long(asked: Mapping[str, Any]) -> bool:
    """Whether workers will probably be wanted: they get ready while the data are loaded. Nothing is checked
    yet.
    """
    task, until, runs = asked["task"], asked["until"], len(asked["algorithms"].split(",")) * asked["seeds"]
    until = until if until is not None else TASKS[task].until if task in TASKS else 0.0
    return bool((asked["agents"] or AGENTS) * until * (runs - 1) >= LONG and possible())


def _announced(plan: comparison.Plan, report: Path | None, traces: Path | None) -> list[str]:
    said = measured(plan.setups[0].world)
    if plan.memory > WORTH_SAYING:
        free, on_gpu = machine.available(), plan.experiment.device != "cpu"
        there = f", most of it on {plan.experiment.device}" if on_gpu else ""
        there += "" if free == inf or on_gpu else f"; {free / 1e9:.1f} GB are free"
        said.append(f"The largest run needs about {plan.memory / 1e9:.1f} GB of memory{there}.")
    if plan.untraced and report is not None and traces is None:
        said.append(
            f"The traces of {', '.join(plan.untraced)} would take too much memory, so they are not held: the "
            "report will have no timeline of them. Everything else is as with traces."
        )
    return said


def _carry_out(
    plan: comparison.Plan, workers: int, traces: Path | None, announced: list[str], output: Outputs
) -> tuple[Comparison, int]:
    """Make the runs with a progress bar, and the exit code. Ctrl-C, SIGTERM, SIGHUP and an error end it, and
    keep what is finished; a trace that cannot be written costs no result.
    """
    runs: list[Run] = []
    try:
        with terminable(), RunsShown(plan.count, output.quiet) as shown:

            def on_run(run: Run) -> Run:
                if traces is not None and run.trace is not None:
                    output.save(traces / _trace_name(run), run.trace.save, name=False)
                shown.on_run(run)
                return run if run.seed == plan.setups[0].seed else replace(run, trace=None)

            for text in announced:
                shown.on_notice(text)
            for run in plan.runs(shown.on_progress, traces is not None, workers, on_run, shown.on_notice):
                runs.append(run)
    except KeyboardInterrupt as interrupt:
        return Comparison(runs, interrupted=True, planned=plan.planned), exit_code(interrupt)
    except Exception as error:  # whatever it is, it costs no run that is finished
        output.error = error
        return Comparison(runs, interrupted=True, planned=plan.planned), 1
    return Comparison(runs), int(all(run.error is not None for run in runs))


def _trace_name(run: Run) -> str:
    return f"{run.algorithm.replace(':', '-')}-lr{run.lr!r}-seed{run.seed}.npz"
