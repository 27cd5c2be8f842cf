"""How a part is made: what it will cost, its sweep, the answers of its runs, its page and figures."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from offbeat.algorithms import find
from offbeat.core.errors import SettingError
from offbeat.core.system.files import write_atomically
from offbeat.experiments.reproduction.adpsgd import ADPSGD
from offbeat.experiments.reproduction.adsgd import ADSGD
from offbeat.experiments.reproduction.cifar import CIFAR
from offbeat.experiments.reproduction.evidence import Evidence
from offbeat.experiments.reproduction.part import Paper, Part, Picture, Table
from offbeat.experiments.runs import Job, run_one
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.sweep.grid import Point, points
from offbeat.experiments.sweep.store import Store
from offbeat.results.reproduction import Answer, Drawn, Reproduction, as_html, as_markdown
from offbeat.results.run import Comparison, Run
from offbeat.results.values import value_text

PAPERS = {paper.name: paper for paper in (ADSGD, ADPSGD, CIFAR)}
PRINTED = (".svg", ".pdf")
QUICKLY = (
    "A quick run is of a smaller problem, and with fewer seeds: it shows that all of it works, and its "
    "verdicts are about that problem. In place of what is said above:"
)
RTT = (
    "--rtt FILE, FILE:ARRAY or FILE:ARRAY:SLICE: a square matrix, or one for each slice, of at least as many "
    "machines as agents; github.com/uofa-rzhu3/NetLatency-Data has some"
)
PIECE = 100  # a run is timed by one, and two, of so many parts of it
LONG = 5.0  # seconds


@dataclass(frozen=True)
class Cost:
    """What a part takes, of its runs that are still to be made.

    Attributes:
        runs: how many of all
        gradients: about how many, if no agent waits and no run ends before its time
        seconds: of one core, by pieces of a run of each algorithm
    """

    runs: int
    total: int
    gradients: float
    seconds: float

    def text(self, workers: int) -> str:
        """In words."""
        if not self.runs:
            return f"All {self.total:,} runs are done."
        hours = f"{_span(self.seconds)} of one core, {_span(self.seconds / workers)} with {workers} at a time"
        return (
            f"{self.runs:,} of {self.total:,} runs to do: at most about {self.gradients:.2g} gradients, "
            f"{hours}, by pieces of a run of each algorithm. A run that meets its target ends there; Ctrl-C "
            "keeps what is finished, and the same command goes on."
        )


def _span(seconds: float) -> str:
    return (
        f"{seconds / 3600:.1f} h"
        if seconds >= 5400
        else f"{seconds / 60:.0f} min"
        if seconds >= 90
        else f"{seconds:.0f} s"
    )


@dataclass(frozen=True)
class Making:
    """One part, to be made in a folder; data and device are given for all of its runs, and which measured
    round-trip times they have, where they have any: FILE, FILE:ARRAY, FILE:ARRAY:SLICE.
    """

    paper: Paper
    part: Part
    folder: Path
    quick: bool = False
    data: Path | None = None
    device: str | None = None
    rtt: str | None = None

    @property
    def name(self) -> str:
        """Of its files, without an ending."""
        return f"{self.paper.name}-{self.part.name}" + "-quick" * self.quick

    @property
    def lacking(self) -> bool:
        """Whether it cannot be made without round-trip times, and has none."""
        return self.part.measured and self.rtt is None and not self.quick

    @property
    def table(self) -> Path:
        """The Parquet file of its runs."""
        return self.folder / f"{self.name}.parquet"

    @property
    def command(self) -> str:
        """What makes it again."""
        words = ["offbeat", "reproduce", self.paper.name, "--part", self.part.name, *["--quick"] * self.quick]
        words += ["--device", self.device] if self.device else []
        words += ["--rtt", self.rtt] if self.rtt and self.part.measured and not self.quick else []
        return shlex.join(words) + " --data DIR" * (self.data is not None)

    def points(self) -> list[Point]:
        """Its runs, each checked; the files that they name are written. Raises SettingError or DataError."""
        if self.lacking:
            raise SettingError(f"Part '{self.part.name}' is of measured round-trip times; expected {RTT}.")
        for name, text in self.part.files.items():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / name, text.encode())
        data = None if self.data is None else str(self.data)
        grids = self.part.grids(self.quick, data=data, device=self.device)
        return [each for grid in grids for each in points(self._there(grid))]

    def _there(self, grid: Table) -> Any:
        """With the folder and the round-trip times that it names."""
        return _placed(grid, {"folder": str(self.folder), "rtt": str(self.rtt)})

    def cost(self, every: Sequence[Point]) -> Cost:
        """What the runs that are not done will take: short pieces of one of each algorithm are made."""
        store, seconds, gradients = Store(self.table), dict[Any, float](), 0.0
        missing, total = [point for point in every if not store.has(point)], 0.0
        for point in missing:
            setup = prepare(point.experiment, point.seed)
            gradients += setup.updates
            key = point.algorithm, setup.settings["model"], setup.topology.n, setup.updates
            if key not in seconds:
                seconds[key] = _seconds(point, setup)
            total += seconds[key]
        return Cost(len(missing), len(every), gradients, total)

    def write(self, runs: Sequence[Run], planned: int) -> list[Path]:
        """The page, for a browser and for a site, and the figures, of runs of which so many are planned; the
        files.
        """
        made, written = self.made(runs, planned), list[Path]()
        endings = PRINTED if find_spec("matplotlib") is not None else ()
        for each in made.drawn:
            for ending in endings:
                written.append(self.folder / (each.name + ending))
                each.figure.save(written[-1])
        pages = {".html": as_html(made), ".md": as_markdown(made, next(iter(endings), ""))}
        if made.comparison is not None:
            table = Comparison(runs)
            pages |= {".csv": table.to_csv(), ".tex": table.to_latex(label=f"tab:{self.name}")}
        for ending, text in pages.items():
            written.append(self.folder / (self.name + ending))
            write_atomically(written[-1], text.encode())
        return written

    def made(self, runs: Sequence[Run], planned: int) -> Reproduction:
        """What the page says of these runs, of which so many are planned."""
        evidence, part = Evidence(runs), self.part
        about = [*part.about, *[f"{QUICKLY} {_smaller(self._there(part.quick))}."] * self.quick]
        if len(runs) < planned:
            about.append(f"Of {planned} runs {len(runs)} are done; what is said here is of these.")
        answers = [Answer(each.name, each.says, each.found(evidence), each.choice) for each in part.claims]
        drawn = [each for picture in part.pictures if (each := self._drawn(picture, evidence)) is not None]
        comparison = Comparison(runs) if runs else None
        return Reproduction(
            part.title + ", quick" * self.quick, about, answers, drawn, comparison, self.command
        )

    def _drawn(self, picture: Picture, evidence: Evidence) -> Drawn | None:
        """None where there is no run for it."""
        some = evidence.where(**picture.only or {}).runs
        if not some:
            return None
        by = picture.by if picture.by and len(Evidence(some).values(picture.by)) > 1 else None
        figure = Comparison(some).figure(
            picture.metric, picture.x, by=by, log=picture.log, width=6.9 if by else 3.3
        )
        return Drawn(f"{self.name}-{picture.name}", picture.caption, figure)


def _smaller(quick: Table) -> str:
    """What has another value in a quick run, in words."""
    several = {name: ", ".join(map(value_text, each)) for name, each in quick.get("grid", {}).items()}
    words = {name: value_text(value) for name, value in quick.get("fixed", {}).items()} | several
    return "; ".join(f"{name} {said}" for name, said in words.items()) or "nothing"


def _placed(grid: Any, where: Mapping[str, str]) -> Any:
    """The grid with these places where it names them."""
    if isinstance(grid, dict):
        return {key: _placed(value, where) for key, value in grid.items()}
    if isinstance(grid, list):
        return [_placed(value, where) for value in grid]
    if isinstance(grid, str):
        for name, place in where.items():
            grid = grid.replace(f"{{{name}}}", place)
    return grid


def _seconds(point: Point, setup: Setup) -> float:
    """How long this run takes on one core, if it does not end before its time, from two pieces of it.

    What every run takes, however long it is, is in both. The longer one is made first: in it is what only the
    first takes. On the processor its time counts, for others may be at work there. Of a network for which two
    gradients of each agent take long, a piece is no more than one of each.
    """
    clock = time.perf_counter if point.experiment.device != "cpu" else time.process_time

    def spent(share: float) -> float:
        return _spent(point, setup.shortened(setup.until * share), clock)

    share, least = 1 / PIECE, setup.topology.n / setup.updates
    slow = spent(2 * least) if setup.settings["model"] is not None and least < share else 0.0
    share, two = (least, slow) if slow > LONG else (share, spent(2 * share))
    one = spent(share)
    return one + (1 / share - 1) * max(two - one, one / 10)


def _spent(point: Point, piece: Setup, clock: Callable[[], float]) -> float:
    """Seconds for the beginning of a run."""
    began = clock()
    run_one(Job(piece, find(point.algorithm), point.lr, point.experiment.executor, keep_trace=False))
    return clock() - began
