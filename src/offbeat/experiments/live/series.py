"""The runs of one `offbeat live`, one after another: made, gone on with, or taken as they are."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offbeat.core.errors import DiskError, SettingError
from offbeat.core.system.reading import reading
from offbeat.core.system.signals import exit_code
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.outfolder import SERIES, set_damaged_aside, undone
from offbeat.engines.live.launcher.screen import Screen, shown
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.settings import CheckpointPolicy, ExperimentProgram, RunSettings
from offbeat.experiments import comparison
from offbeat.experiments.limits import refuse_processes
from offbeat.experiments.live.folder import EXPECTED, asked_before
from offbeat.experiments.live.running import LiveRun
from offbeat.experiments.setup import Setup
from offbeat.results.run import Comparison, Run

YEAR = 366 * 86_400.0
"""Seconds."""

ALL = "all"
"""What live.json calls the learning rate of all algorithms that have none of their own."""


def parse_unit(text: str) -> float:
    """'20ms' or '0.5s' in seconds. Raises SettingError for anything else."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*(ms|s)\s*", text)
    try:
        seconds = float(match[1]) * (1e-3 if match[2] == "ms" else 1.0) if match else 0.0
    except ValueError:
        seconds = 0.0
    if not 1e-5 <= seconds <= 3600:
        raise SettingError(
            f"Cannot read the unit '{text}'; expected a time like '20ms' or '0.5s', at most an hour."
        )
    return seconds


@dataclass(frozen=True)
class Series:
    """The runs of one experiment: one for each algorithm and learning rate."""

    setup: Setup
    runs: list[LiveRun]

    @staticmethod
    def of(asked: Mapping[str, Any], how: Mapping[str, Any]) -> Series:
        """All runs that are asked for. Raises SettingError or DataError; nothing has run then."""
        unit, agents = asked["unit"], asked["agents"]
        e = {name: value for name, value in asked.items() if name not in ("algorithms", "lr", "seed", "unit")}
        e["until"] = 30.0 / unit if e["until"] is None else e["until"]
        refuse_processes(agents)
        if not e["until"] * unit <= YEAR:
            raise SettingError(
                f"Until time {e['until']:g}, {e['until'] * unit:.3g} s, it would run for years."
            )
        lr = {"" if name == ALL else name: rates for name, rates in asked["lr"].items()}
        plan = comparison.plan(asked["algorithms"], lr=lr, seed=asked["seed"], **e)
        if None in plan.lrs:
            raise SettingError(
                "Live runs do not tune; tune with 'offbeat compare --lr tuned', then name the learning rate."
            )
        runs = [
            LiveRun(
                plan.setups[0], spec,
                RunSettings(
                    agents=agents, folder=Path(), program=ExperimentProgram(e, rate), algorithm=spec.name,
                    seed=asked["seed"], unit=unit, max_restarts=how["max_restarts"], on_nan=how["on_nan"],
                    fault=tuple(parse_fault(text, agents) for text in how["fault"]),
                    checkpoint_every=CheckpointPolicy.parse(how["checkpoint_every"]),
                ),
            )
            for spec, rates in zip(plan.specs, plan.lrs, strict=True) for rate in rates or []
        ]  # fmt: skip
        return Series(plan.setups[0], runs)

    def within(self, folder: Path) -> Series:
        """The same, in that folder."""
        return replace(self, runs=[run.within(folder) for run in self.runs])

    def ended(self, on_notice: Callable[[str], None]) -> dict[Path, Run]:
        """The runs that have ended by themselves. Raises SettingError if one that began cannot go on."""
        found = {}
        for each in self.runs:
            if (run := each.result()) is not None:
                found[each.folder] = run
            elif each.begun:
                set_damaged_aside(each.folder, on_notice)
                if why := each.why_not_resumable():
                    raise SettingError(why)
        return found

    def run(self, ended: Mapping[Path, Run], screen: Screen | None) -> Outcome:
        """Make the others; a signal or an error ends them and keeps what there is."""
        outcome = Outcome()
        for k, each in enumerate(self.runs):
            name = f"{each.folder.name} ({k + 1} of {len(self.runs)})"
            if screen is not None and each.folder in ended:
                screen.print(f"{name} has ended, and is taken as it is")
            elif screen is not None and each.begun:
                screen.print(f"{name} goes on from its checkpoints")
            run: Run | None = ended.get(each.folder)
            if run is None:
                try:
                    run, number = self._one(each, name, screen, outcome.remarks)
                except KeyboardInterrupt as interrupt:  # while it is evaluated
                    outcome.code = exit_code(interrupt)
                except Exception as error:  # whatever it is, it costs no run that has ended
                    outcome.error = error
                else:
                    outcome.code = 128 + number if number else 0
                    if not number and not each.has_ended:
                        outcome.error = DiskError(
                            f"What is in {each.folder} is not the whole run: see above."
                        )
            outcome.runs += [run] if run is not None else []
            if outcome.interrupted:
                break
        return outcome

    def _one(
        self, each: LiveRun, name: str, screen: Screen | None, remarks: list[str]
    ) -> tuple[Run | None, int]:
        """One run, from its checkpoints if it had begun, and the signal that ended it."""
        folder = each.folder

        def on_progress(now: float) -> None:
            if screen is not None:
                screen.about = f"{name}, time {now:,.0f} of {self.setup.until:,.0f}"

        on_progress(0.0)
        run = replace(each, settings=replace(each.settings, resume=each.begun))
        fresh = [] if folder.exists() else [folder]
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DiskError(f"Cannot make the folder {folder}: {error.strerror or error}.") from error
        with undone(folder, fresh), shown(screen, metrics := Metrics(folder)) as (on_output, watch):
            result = run.run(on_output, watch, on_progress)
        remarks += metrics.remarks
        return result

    @property
    def begun(self) -> bool:
        """Whether there is anything of any run."""
        return any(run.begun for run in self.runs)

    def how_to_go_on(self, folder: Path) -> str:
        """After an interruption: what to do, in a sentence or two."""
        left = [run for run in self.runs if run.begun and not run.has_ended]
        whys = [why for run in left if (why := run.why_not_resumable())]
        return " ".join([*whys, f"To go on: offbeat live --resume --out {shlex.quote(str(folder))}"])


@dataclass
class Outcome:
    """What came out of a series.

    Attributes:
        code: the exit code, if a signal ended it
        error: or the error that did
        remarks: what is to be said of the runs
    """

    runs: list[Run] = field(default_factory=list)
    code: int = 0
    error: Exception | None = None
    remarks: list[str] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        """Whether there were to be more runs."""
        return self.code != 0 or self.error is not None

    @property
    def comparison(self) -> Comparison:
        """The runs there are."""
        return Comparison(self.runs, interrupted=self.interrupted)


def resumed(
    out: Path | None, asked: Mapping[str, Any], how: Mapping[str, Any], given: Set[str]
) -> tuple[dict[str, Any], dict[str, Any], Series]:
    """What was asked for when the run in this folder was started, how it goes on, and its runs. See
    `asked_before`.
    """
    before, then = asked_before(out, asked, how, given)
    assert out is not None
    with reading(out / SERIES, EXPECTED):
        if "fault" not in given:
            slow = [text for text in then["fault"] if parse_fault(text, before["agents"]).kind == "slow"]
            then["fault"] = slow
        return before, then, Series.of(before, then)
