"""The command line's `compare`. What it can do, `offbeat.compare` can do from Python."""

from collections.abc import Mapping
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import typer

from offbeat.cli.console import complain
from offbeat.cli.dry import DRY_RUN, say_ahead
from offbeat.cli.options import CSV, JSON, QUIET, REPORT, numbers, option, parse_lrs, with_settings
from offbeat.cli.outputs import Outputs, check_writable
from offbeat.cli.progress import RunsShown
from offbeat.cli.spread import SPREAD, check_spread
from offbeat.core.settings import RUNNING, TASK, USUAL_AGENTS
from offbeat.core.system import machine
from offbeat.core.system.files import as_file_name
from offbeat.core.system.named import separated
from offbeat.core.system.signals import exit_code, terminable
from offbeat.experiments.experiment import Experiment, Selection
from offbeat.experiments.forking import possible, start_server
from offbeat.experiments.halving import tuned_how
from offbeat.experiments.keeping import finished
from offbeat.experiments.memory import WORTH_SAYING
from offbeat.experiments.study import Study, parse_over, study
from offbeat.experiments.workers import wanted
from offbeat.results.figure import check_saved_as
from offbeat.results.run import Comparison, Run
from offbeat.results.table import tuning_table
from offbeat.tasks import TASKS
from offbeat.world.world import measured

LONG = 100_000
"""Updates beside those of one run, if no agent ever waits: less than so many are made in a few seconds."""

WORKERS = (
    "How many processes make runs at the same time; default: one for each core, where the runs are so long "
    "that it pays and memory suffices. 1: this one alone. The results are the same."
)
OVER = (
    "Compare in several worlds: 'topology=ring,torus'; repeat it for more, every combination is one. "
    "Learning rates are tuned in each."
)
FIGURE = (
    "Draw accuracy (or loss) over time to this file: .pdf, .svg, .png or .html; repeatable. A panel for each "
    "value of the first --over. 'offbeat plot' draws others."
)
OUT = (
    "Keep every finished run in this folder at once. The same command goes on with what is there, after "
    "Ctrl-C or a crash; 'offbeat table', 'plot' and 'show' take the folder."
)
CHECK = "Hold every algorithm to the contract, event by event: slower, for one of your own."
TUNING = "Print what every tuned learning rate gave, too."


@with_settings(Selection, Experiment)
def compare(
    asked: dict[str, Any],
    over: list[str] | None = option(None, TASK, OVER),
    workers: int | None = option(None, RUNNING, WORKERS),
    out: Path | None = option(None, RUNNING, OUT, metavar="FOLDER"),
    json: Path | None = JSON,
    csv: Path | None = CSV,
    figure: list[Path] | None = option(None, RUNNING, FIGURE),
    spread: str = option("range", RUNNING, SPREAD),
    report: Path | None = REPORT,
    traces: Path | None = option(None, RUNNING, "Write the trace of every run to this folder, as .npz."),
    show_tuning: bool = option(False, RUNNING, TUNING, "--show-tuning"),
    check: bool = option(False, RUNNING, CHECK, "--check"),
    dry_run: bool = DRY_RUN,
    quiet: bool = QUIET,
) -> None:
    """Run several algorithms in the same simulated world, and compare them.

    All meet the same delays and minibatches, and published models the same losses. The unit of time is the
    mean time of one gradient, and by default also that of sending one model. Runs are made on all cores, the
    longest first. Ctrl-C, SIGTERM and a dropped connection keep those that are finished.

    Examples:

      offbeat compare --case combined --target 0.9 --report report.html
      offbeat compare --task mnist --data DIR --seeds 5 --lr tuned --json out.json
      offbeat compare --over topology=ring,complete --spread std --figure out.pdf
      offbeat compare --algorithms adsgd,rfast --loss 0.3 \\
          --crash 'agent 3 at 100 until 200'
      offbeat compare --algorithms 'adsgd,mine.py:Mine,mine.py:Mine(h=10)' --check
    """
    check_writable(json, csv, *(figure or []), report, folder=traces)
    check_spread(spread)
    for path in figure or []:
        check_saved_as(path)
    workers = wanted(workers)
    if workers > 1 and not dry_run and asked["device"] == "cpu" and _is_long(asked):
        start_server()
    plan = study(**_with_rates(asked), over=parse_over(over or []), check=check)
    if traces is not None:
        plan.check_traces()
    elif report is None:
        plan = plan.without_traces()
    if dry_run:
        if not quiet:
            say_ahead(plan, traces is not None, out, _announced(plan, report, traces, 0.0))
        return
    output = Outputs(quiet)
    result, code = _carry_out(plan, workers, traces, out, _announced(plan, report, traces), output)
    output.results(result, json, report, spread, csv)
    by = next(iter(plan.over), None)
    for path in figure or [] if result.runs else []:
        output.save(path, lambda path: result.main_figure(band=spread, by=by).save(path))
    if out is not None and result.interrupted and output.error is None and (kept := finished(out)):
        complain(f"Kept in {out}, with those of tuning: {kept:,} of the runs. The same command goes on.")
    if show_tuning and result.runs:
        output.show(lambda width: tuning_table(result))
    output.close()
    if code:
        raise typer.Exit(code)


def _with_rates(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What is asked for, its learning rates read."""
    rates: dict[str, Any] = {"lr": parse_lrs(asked["lr"] or [])}
    if (grid := asked["tune_grid"]) is not None:
        expected = "numbers with commas between, as in 0.01,0.1"
        rates["tune_grid"] = numbers(float, grid, f"--tune-grid {grid}", expected)
    return {**asked, **rates}


def _is_long(asked: Mapping[str, Any]) -> bool:
    """Whether workers will probably be wanted, to get ready while data are loaded. Nothing is checked yet."""
    task, until, runs = asked["task"], asked["until"], len(separated(asked["algorithms"])) * asked["seeds"]
    until = until if until is not None else TASKS[task].until if task in TASKS else 0.0
    return bool((asked["agents"] or USUAL_AGENTS) * until * (runs - 1) >= LONG and possible())


def _announced(
    plan: Study, report: Path | None, traces: Path | None, worth_saying: float = WORTH_SAYING
) -> list[str]:
    said = [text for each in plan.plans for text in measured(each.setups[0].world)]
    said += dict.fromkeys(filter(None, (getattr(each.setups[0].task, "remark", "") for each in plan.plans)))
    said += [f"Left out: {why}" for why in plan.left_out]
    said += dict.fromkeys(text for each in plan.plans for text in tuned_how(each.specs, each.ladders))
    if plan.memory > worth_saying:
        free, on_gpu = machine.available(), plan.plans[0].experiment.device != "cpu"
        there = f", most of it on {plan.plans[0].experiment.device}" if on_gpu else ""
        there += "" if free == inf or on_gpu else f"; {free / 1e9:.1f} GB are free"
        memory = f"{plan.memory / 1e9:.1f} GB" if plan.memory >= 1e8 else f"{plan.memory / 1e6:.1f} MB"
        said.append(f"The largest run needs about {memory} of memory{there}.")
    if plan.untraced and report is not None and traces is None:
        said.append(
            f"The traces of {', '.join(plan.untraced)} would take too much memory, so they are not held: the "
            "report will have no timeline of them. Everything else is as with traces."
        )
    return said


def _carry_out(
    plan: Study, workers: int, traces: Path | None, out: Path | None, announced: list[str], output: Outputs
) -> tuple[Comparison, int]:
    """Make the runs with a progress bar, and the exit code. A signal or an error ends it, and keeps what is
    finished; a trace that cannot be written costs no result.
    """
    runs: list[Run] = []
    try:
        with terminable(), RunsShown(plan.count, output.quiet, over=plan.over) as shown:

            def on_run(run: Run) -> Run:
                if traces is not None and run.trace is not None:
                    output.make(traces)
                    worlds = [str(run.settings[name]) for name in plan.over]
                    name = "-".join([run.algorithm, *worlds, f"lr{run.lr!r}", f"seed{run.seed}"])
                    output.save(traces / (as_file_name(name) + ".npz"), run.trace.save, name=False)
                shown.on_run(run)
                return run if run.seed == plan.plans[0].setups[0].seed else replace(run, trace=None)

            for text in announced:
                shown.on_notice(text)
            made = plan.runs(
                shown.on_progress, traces is not None, workers, on_run, shown.on_notice, out, shown.on_there
            )
            for run in made:
                runs.append(run)
    except KeyboardInterrupt as interrupt:
        return Comparison(runs, interrupted=True, planned=plan.planned), exit_code(interrupt)
    except Exception as error:  # whatever it is, it costs no run that is finished
        output.error = error
        return Comparison(runs, interrupted=True, planned=plan.planned), 1
    return Comparison(runs), int(all(run.error is not None for run in runs))
