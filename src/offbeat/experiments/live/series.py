"""The runs of one `offbeat live`, one after another: made, gone on with, or taken as they are.

In their folder `live.json` says what was asked for; it is written before anything starts. Below it every run
has a folder `NAME-lrRATE` (see `offbeat.experiments.live.running`).
"""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from offbeat.core.errors import DiskError, SettingError
from offbeat.core.system.files import as_file_name, write_atomically
from offbeat.core.system.own import pinned, together
from offbeat.core.system.reading import json_in, reading, refuse_newer, refuse_unknown
from offbeat.core.system.signals import exit_code
from offbeat.engines.live.launcher.launch import StartProcesses
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.outfolder import SERIES, named, set_damaged_aside, undone
from offbeat.engines.live.launcher.screen import Screen, shown
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.node.saving import refuse_other
from offbeat.engines.live.settings import CONTINUE, STOP, CheckpointPolicy, ExperimentProgram, RunSettings
from offbeat.experiments import comparison
from offbeat.experiments.live.running import LiveRun
from offbeat.experiments.setup import Setup
from offbeat.experiments.worlds import BY_LINK
from offbeat.results.run import Comparison, Run

YEAR = 366 * 86_400.0  # seconds
ALL = "all"  # what live.json calls the learning rate of all algorithms that have none of their own

FORMAT = "live 1"

SEVERAL: dict[str, set[type]] = {  # steps, or '60s'; a level, or a metric with its level; or by link
    "checkpoint_every": {int, str, type(None)}, "target": {int, float, str, type(None)},
    "straggler": {int, list, type(None)}, **{name: {int, float, str} for name in BY_LINK},
}  # fmt: skip


def parse_unit(text: str) -> float:
    """'20ms' or '0.5s' in seconds. Raises SettingError for anything else."""
    match = re.fullmatch(r"\s*([0-9]+\.?[0-9]*|\.[0-9]+)\s*(ms|s)\s*", text)
    seconds = float(match[1]) * (1e-3 if match[2] == "ms" else 1.0) if match else 0.0
    if not 1e-5 <= seconds <= 3600:
        raise SettingError(f"Cannot read the unit '{text}'; expected '20ms' or '0.5s', at most an hour.")
    return seconds


@dataclass(frozen=True)
class Series:
    """The runs of one experiment: one for each algorithm and learning rate.

    `asked` and `how` are as the command line has them, JSON-ready: the experiment, and how it is run.
    """

    asked: Mapping[str, Any]
    how: Mapping[str, Any]
    setup: Setup
    runs: list[LiveRun]
    code: Mapping[str, str]

    @staticmethod
    def of(asked: Mapping[str, Any], how: Mapping[str, Any]) -> "Series":
        """All runs that are asked for. Raises SettingError or DataError; nothing has run then."""
        how = {"on_death": STOP, **how}  # which folders of earlier versions do not say
        unit, agents, seed = asked["unit"], asked["agents"], asked["seed"]
        e = {name: value for name, value in asked.items() if name not in ("algorithms", "lr", "seed", "unit")}
        until = e["until"] = 30.0 / unit if e["until"] is None else e["until"]
        if not until * unit <= YEAR:
            raise SettingError(f"Until time {until:g}, {until * unit:.3g} s, it would run for years.")
        lr = {"" if name == ALL else name: rates for name, rates in asked["lr"].items()}
        plan = comparison.plan(asked["algorithms"], lr=lr, seed=seed, **e)
        if None in plan.lrs:
            raise SettingError("Live runs do not tune; name a learning rate that 'offbeat compare' found.")
        if only := plan.setups[0].world.simulated_only:
            heeded = "speeds, latency, bandwidth and loss by link, unicast, slowdowns and cuts"
            what = f"Real processes do not heed {' and '.join(only)}, which 'offbeat compare' simulates"
            raise SettingError(f"{what}; expected a world without. They heed {heeded}.")
        faults = tuple(parse_fault(text, agents) for text in how["fault"])
        policy = CheckpointPolicy.parse(how["checkpoint_every"])
        runs = []
        for spec in plan.specs if how["on_death"] == CONTINUE else []:
            spec.check_goes_on(plan.setups[0].topology)
        for spec, rates in zip(plan.specs, plan.lrs, strict=True):
            for rate in rates or []:
                settings = RunSettings(
                    agents=agents, seed=seed, unit=unit, algorithm=spec.asked, fault=faults,
                    program=ExperimentProgram(e, rate), checkpoint_every=policy,
                    folder=Path(as_file_name(f"{spec.name}-lr{rate!r}")),
                    max_restarts=how["max_restarts"], on_death=how["on_death"], on_nan=how["on_nan"],
                    code=together(plan.setups[0].settings["code"], spec.code),
                )  # fmt: skip
                said = plan.said.get((spec.name, rate))
                told = plan.setups[0].settings | ({"lr_said": said} if said else {})
                runs.append(LiveRun(replace(plan.setups[0], settings=told), spec, settings))
        if len({run.folder for run in runs}) < len(runs):
            names = ", ".join(spec.name for spec in plan.specs)
            raise SettingError(f"Folders of several runs would have one name; got {names}. Run them apart.")
        return Series(asked, how, plan.setups[0], runs, plan.code)

    @staticmethod
    def resumed(
        out: Path | None, asked: Mapping[str, Any], how: Mapping[str, Any], given: Set[str]
    ) -> "Series":
        """The runs that were asked for when those in this folder were started.

        Of what is `given` this time, by name, `asked` must be what was said then; `how` counts. Raises
        SettingError, with the differences, if it is another experiment, or there is none.
        """
        folder = named(out)
        path = folder / SERIES
        if not path.exists():
            raise SettingError(
                f"{folder} holds no run of offbeat live that could go on: there is no {SERIES}. Expected the "
                "--out of an earlier run; without --resume a new one starts there."
            )
        with reading(path, "the settings of a run of offbeat live"):
            saved = json_in(path)
            refuse_newer(path, saved.get("format", FORMAT), FORMAT)
            before, then = _known(saved["asked"], asked), _known(saved["how"], how)
            now = {name: json.loads(json.dumps(value)) for name, value in asked.items() if name in given}
            what = f"{folder} holds another experiment. Name the same settings, or none, or another --out:"
            refuse_other({name: before.get(name) for name in now}, now, what)
            then |= {name: value for name, value in how.items() if name in given}
            if "fault" not in given:
                slow = [text for text in then["fault"] if parse_fault(text, before["agents"]).kind == "slow"]
                then["fault"] = slow
            code = saved.get("code", {})
            with pinned(code, code):
                return Series.of(before, then)

    def keep_asked(self, folder: Path) -> None:
        """Write down what was asked for. Raises DiskError."""
        path = folder / SERIES
        content: dict[str, Any] = {"format": FORMAT, "asked": self.asked, "how": self.how}
        content |= {"code": {**self.code}} if self.code else {}
        try:
            write_atomically(path, (json.dumps(content, indent=1) + "\n").encode())
        except OSError as error:
            raise DiskError(f"Cannot write {path}: {error.strerror or error}.") from error

    def within(self, folder: Path, processes: StartProcesses | None = None) -> "Series":
        """In this folder; `processes`: what a launcher starts them with, where not on this machine."""
        runs = [
            replace(run, settings=replace(run.settings, folder=folder / run.folder), processes=processes)
            for run in self.runs
        ]
        return replace(self, runs=runs)

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

    def run(self, ended: Mapping[Path, Run], screen: Screen | None) -> "Outcome":
        """Make the others; a signal or an error ends them and keeps what there is."""
        outcome = Outcome()
        for k, each in enumerate(self.runs):
            name = f"{each.folder.name} ({k + 1} of {len(self.runs)})"
            if each.folder in ended:
                if screen is not None:
                    screen.print(f"{name} has ended, and is taken as it is")
                outcome.runs.append(ended[each.folder])
                continue
            if screen is not None and each.begun:
                screen.print(f"{name} goes on from its checkpoints")
            try:
                run, number = self._one(each, name, screen, outcome)
                outcome.runs += [run] if run is not None else []
                outcome.code = 128 + number if number else 0
                if not number and not each.has_ended:
                    raise DiskError(f"What is in {each.folder} is not the whole run: see above.")
            except KeyboardInterrupt as interrupt:  # while it is evaluated
                outcome.code = exit_code(interrupt)
            except Exception as error:  # whatever it is, it costs no run that has ended
                outcome.error = error
            if outcome.interrupted:
                break
        return outcome

    def _one(
        self, each: LiveRun, name: str, screen: Screen | None, outcome: "Outcome"
    ) -> tuple[Run | None, int]:
        folder = each.folder

        def on_progress(now: float) -> None:
            if screen is not None:
                screen.view.about = f"{name}, time {now:,.0f} of {self.setup.until:,.0f}"

        on_progress(0.0)
        fresh = [] if folder.exists() else [folder]
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise DiskError(f"Cannot make the folder {folder}: {error.strerror or error}.") from error
        with undone(folder, fresh), shown(screen, metrics := Metrics(folder)) as (on_output, watch):
            result = each.run(on_output, watch, on_progress)
        outcome.remarks += metrics.remarks
        outcome.missing = outcome.missing or bool(metrics.missing)
        return result

    @property
    def begun(self) -> bool:
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
        missing: whether an agent was left out of a run
    """

    runs: list[Run] = field(default_factory=list)
    code: int = 0
    error: Exception | None = None
    missing: bool = False
    remarks: list[str] = field(default_factory=list)

    @property
    def interrupted(self) -> bool:
        return self.code != 0 or self.error is not None

    @property
    def comparison(self) -> Comparison:
        return Comparison(self.runs, interrupted=self.interrupted)


def _known(saved: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Saved settings, as many and of such types as there are now. Raises ValueError for others."""
    kinds = {}
    for name, value in now.items():
        like = {int, float} if type(value) in (int, float) else {type(value)}
        kinds[name] = SEVERAL.get(name) or (set() if value is None else like | {type(None)})
    refuse_unknown(saved, kinds)
    return {**now, **saved}
