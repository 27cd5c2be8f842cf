"""The command line of sweeps."""

from pathlib import Path

import typer

from offbeat.cli.console import complain
from offbeat.cli.dry import DRY_RUN, announce, listed
from offbeat.cli.options import QUIET, option
from offbeat.cli.outputs import Outputs, check_writable
from offbeat.cli.progress import RunsShown
from offbeat.core.errors import SettingError
from offbeat.core.settings import RUNNING
from offbeat.core.system.ray_cluster import local
from offbeat.core.system.signals import exit_code, terminable
from offbeat.engines.live.cluster.wanted import RAY
from offbeat.experiments.loading import load
from offbeat.experiments.sweep import running
from offbeat.experiments.sweep.grid import Point, read_grid
from offbeat.experiments.sweep.running import Outcome
from offbeat.experiments.sweep.store import Store
from offbeat.results.speedup import speedup_table

OUT = "The Parquet file; default: the name of the grid, in this folder."
NO_SHIP = "On a cluster: every machine has this folder already."
SPEEDUP = "Show at the end what more agents gain: speed-up and efficiency, to be had from a list of agents."


def sweep(
    grid: Path = typer.Argument(help="A TOML file, as shown above."),
    out: Path | None = option(None, RUNNING, OUT),
    workers: int | None = option(None, RUNNING, "How many runs at once; default: one for each core."),
    ray: str | None = option(None, RUNNING, RAY, metavar="ADDRESS"),
    no_ship: bool = option(False, RUNNING, NO_SHIP, "--no-ship"),
    speedup: bool = option(False, RUNNING, SPEEDUP, "--speedup"),
    dry_run: bool = DRY_RUN,
    quiet: bool = QUIET,
) -> None:
    r"""Run a whole grid of settings on all cores, and write one Parquet file.

    The names are those of 'offbeat compare' (eval_every for --eval-every), and algorithm, lr, seed. Example,
    with 30 runs:

      \[fixed]                       # one value each
      task = "digits"
      until = 4000
      crash = \["agent 3 at 100 until 200"]
      \[grid]                        # lists: every combination is run
      case = \["base", "combined"]
      algorithm = \["adsgd", "dsgd:after", "rfast"]
      seed = \[0, 1, 2]
      lr = \[0.01, 0.03]             # as --lr: rfast's times n
      \[lr]                          # as --lr rfast=0.05: its own
      rfast = 0.05                  # or several: \[0.05, 0.1]

    All runs are checked before the first starts. A path is relative to the folder in which you give the
    command. Every finished run is kept in FILE.parquet.runs, under a hash of its settings: after Ctrl-C or a
    crash the same command goes on where it stopped, and a grid that has grown runs only what is new. What
    fails is listed, the others go on, the exit code is 1, and the next start tries it again.

    The file has one row for a run: settings, results, digest, and the curve as lists. 'loss' is the setting;
    what was trained has 'final_loss'. The same grid gives the same bytes.

    With --ray, every machine of the cluster needs the same offbeat (pip install 'offbeat\[ray]'). This folder
    travels, your own code and what else the grid names in it, but for what .gitignore names; with --no-ship
    every machine has it under the same path. Data are each machine's own, under the path that the grid names.
    """
    path = out or Path(f"{grid.stem}.parquet")
    if path.resolve() == grid.resolve():
        raise SettingError(f"The results would be written over the grid, {grid}; name another --out.")
    check_writable(path)
    if no_ship and ray is None:
        raise SettingError("--no-ship is of a sweep on a cluster. Expected --ray ADDRESS beside it.")
    ship = None if no_ship or ray is None or local(ray) is not None else Path.cwd()
    points = read_grid(grid)
    if speedup and len({point.settings["agents"] for point in points}) < 2:
        raise SettingError("A speed-up needs several numbers of agents: [grid] agents = [4, 8, 16].")
    if not dry_run:
        _run(points, path, workers, ray, ship, quiet, speedup)
    elif not quiet:
        store = Store(path)
        missing = [point.named for point in points if not store.has(point)]
        announce(len(points), len(points) - len(missing), missing)


def _run(
    points: list[Point],
    path: Path,
    workers: int | None,
    ray: str | None,
    ship: Path | None,
    quiet: bool,
    speedup: bool,
) -> None:
    """Sweep, say how it went, and exit with the code for it."""
    failures, code, output = list[Outcome](), 0, Outputs(quiet)
    with terminable(), RunsShown(len(points), quiet) as shown:
        try:
            running.sweep(points, path, workers, ray, shown.on_sweep, failures.append, shown.on_notice, ship)
        except KeyboardInterrupt as interrupt:
            code = exit_code(interrupt)
        except Exception as error:  # whatever it is, it costs no run that is finished
            output.error = error
    done = f"{shown.done:,} of {len(points):,} runs are done"
    if code:
        complain(f"Stopped. {done}, and are in {path}. Give the same command again to go on.")
    else:
        output.say(f"{done}." if output.error is not None else f"{done}. Written: {path}")
    if speedup and path.exists():
        output.show(lambda width: speedup_table(load(path)))
    lines = [f"Failed: {one.point.named}: {one.failure}" for one in failures]
    listed(complain, lines, "and {:,} more failed")
    if failures:
        complain("The same command tries these again.")
    output.close()
    if code or failures:
        raise typer.Exit(code or 1)
