"""The folder of a comparison: every finished run is kept in it at once, and the same command goes on there.

- FOLDER/comparison.json: what was asked for, and how many runs of each algorithm there are to be
- FOLDER/KEY.run: a run, as `offbeat.experiments.sweep.rows` keeps it: its place, and its record. The place
  is that of its world, its algorithm, its learning rate and its seed: it stays where there come more seeds
- FOLDER/KEY.npz: its trace, where one is held
- FOLDER/tuning/KEY.run: a run that a learning rate was tuned by
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from offbeat.algorithms import Algorithm
from offbeat.core.errors import DataError, OffbeatError, SettingError
from offbeat.core.settings import Settings
from offbeat.core.system.files import LOCK, write_atomically
from offbeat.core.system.own import of_versions, together
from offbeat.core.system.reading import json_in, reading, refuse_newer
from offbeat.engines.trace import Trace
from offbeat.experiments.batches import PlannedRun
from offbeat.experiments.setup import Setup
from offbeat.experiments.sweep.grid import GENERATION, key_of
from offbeat.experiments.sweep.rows import RUN, Rows, rows_in
from offbeat.results.records import run_from
from offbeat.results.run import Comparison, Run

if TYPE_CHECKING:
    from offbeat.experiments.comparison import Plan  # which keeps its runs by this

ASKED, TUNING = "comparison.json", "tuning"
FORMAT = "comparison 1"
ALGORITHMS, SEEDS = "algorithms", "seeds"
EXPECTED = "the folder of a comparison"


@dataclass(frozen=True)
class Kept:
    """The finished runs of one world of a comparison, in its folder.

    Attributes:
        world: its place among the worlds
    """

    folder: Path
    plan: "Plan"
    world: int

    def read(self, planned: PlannedRun) -> Run | None:
        """The run, if it is finished, and its trace is there where one is to be held. It has no models."""
        setup, key = self._setup(planned), self._key(planned)
        row = self._rows(planned).read(key)
        try:
            run = run_from(row["run"], setup.settings)
            trace = Trace.load(self.folder / f"{key}.npz") if planned.keep_trace else None
        except (OffbeatError, LookupError, TypeError, ValueError):
            return None
        return replace(run, trace=trace, graph=setup.topology)

    def write(self, planned: PlannedRun, run: Run) -> None:
        """Keep a run, and its trace if it has one. Raises DiskError where it cannot be written."""
        key, rows = self._key(planned), self._rows(planned)
        try:
            if run.trace is not None:
                run.trace.save(self.folder / f"{key}.npz")
            if planned.tuning:
                rows.folder.mkdir(exist_ok=True)
        except OSError as error:
            raise rows.full(error) from error
        algorithm, at = planned.key
        place = [self.world, algorithm, *divmod(at, len(self.plan.setups))]
        rows.write(key, {"place": place, "run": run.record()})

    def _rows(self, planned: PlannedRun) -> Rows:
        return Rows(self.folder / TUNING if planned.tuning else self.folder)

    def _setup(self, planned: PlannedRun) -> Setup:
        """The world of a run that is compared; for one of tuning the first, which differs by its seed."""
        setups = self.plan.setups
        return next((setup for setup in setups if setup.seed == planned.seed), setups[0])

    def _key(self, planned: PlannedRun) -> str:
        spec, setup = self.plan.specs[planned.key[0]], self._setup(planned)
        named = {"algorithm": spec.asked, "name": spec.name, "seed": planned.seed}
        settings = {**setup.settings, **named, "trial": vars(planned.trial)}
        return key_of(settings, together(setup.settings["code"], spec.code))


@contextmanager
def keeping(folder: Path, plans: Sequence["Plan"]) -> Iterator[list[Kept]]:
    """Keep the runs of these worlds in this folder, which is made if it is not there.

    Raises SettingError, before anything is written, for what has no name that outlives this process, for a
    folder of anything else, or of another comparison, with the settings that differ; and if another process
    writes there.
    """
    found, asked = kept_by(folder, plans), _asked(plans)
    rows = Rows(folder)
    refusal = f"Another comparison is writing to {folder}. Wait for its end, or name another folder."
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(rows.locked(refusal))
            _check(folder, asked)  # again: somebody may have been faster
            planned = [plan.planned for plan in plans]
            names = dict.fromkeys(name for each in planned for name in each)
            total = {name: sum(each.get(name, 0) for each in planned) for name in names}
            code = together(*(plan.code for plan in plans))
            said = {"format": FORMAT, "asked": asked, "planned": total, "code": code}
            write_atomically(folder / ASKED, (json.dumps(said, indent=1) + "\n").encode())
        except OSError as error:
            raise rows.full(error) from error
        yield found


def kept_by(folder: Path, plans: Sequence["Plan"]) -> list[Kept]:
    """The same, only to look at: nothing is made, written or locked."""
    for plan in plans:
        _refuse_objects(plan)
    _check(folder, _asked(plans))
    return [Kept(folder, plan, world) for world, plan in enumerate(plans)]


def _refuse_objects(plan: "Plan") -> None:
    objects = [*plan.setups[0].settings["own"], *map(_object, plan.specs)]
    if found := list(filter(None, objects)):
        raise SettingError(
            f"With a folder for results, everything must have a name that lasts; {found[0]} is an object of "
            "Python's. Expected one of ours, or FILE.py:NAME; or no folder."
        )


def _object(spec: Algorithm) -> str:
    return f"the algorithm {spec.name}" * (spec.user_defined and not spec.named)


def _asked(plans: Sequence["Plan"]) -> dict[str, Any]:
    """What makes this comparison: name -> value, or the list of values where worlds differ."""
    said = []
    for plan in plans:
        rates = {spec.name: lrs or "tuned" for spec, lrs in zip(plan.specs, plan.lrs, strict=True)}
        settings = {
            name: value for name, value in plan.setups[0].settings.items() if name not in ("own", "code")
        }
        more = {
            "algorithms": [spec.asked for spec in plan.specs], "lr": rates,
            "seed": plan.setups[0].seed, "seeds": len(plan.setups), "check": plan.check,
            "generation of results": GENERATION,
        }  # fmt: skip
        more |= {f"tune_{name}": value for name, value in vars(plan.tune).items() if None in plan.lrs}
        ladders = [each for each in plan.ladders if each is not None]
        more |= {"tune": [f"{each.asked}: {each}" for each in ladders]} if ladders else {}
        said.append(json.loads(json.dumps({**settings, **more})))
    found = {}
    for name in dict.fromkeys(name for each in said for name in each):
        values = [each.get(name) for each in said]
        found[name] = values[0] if all(value == values[0] for value in values) else {"worlds": values}
    return found


def _check(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raise SettingError unless this folder is new, empty, or of this very comparison, perhaps with fewer
    seeds.
    """
    path = folder / ASKED
    if folder.is_file():
        raise SettingError(f"{folder} is a file; expected a folder for the runs of a comparison.")
    if not path.exists():
        if folder.is_dir() and any(each.name != LOCK for each in folder.iterdir()):
            said = f"{folder} has files, and no {ASKED}: it is of something else"
            raise SettingError(f"{said}. Expected an empty folder, or a new one.")
        return
    there = asked_in(folder)["asked"]
    names = [name for name in dict.fromkeys([*asked, *there]) if there.get(name) != asked.get(name)]
    if names == [SEEDS] and asked[SEEDS] > there[SEEDS]:
        return
    each = [f"{name} is {_said(there.get(name))} there, {_said(asked.get(name))} now" for name in names]
    if not each:
        return
    if names == [SEEDS]:
        few = f"{folder} has {there[SEEDS]} seeds, and with {asked[SEEDS]} some would be left out"
        table = f"'offbeat table {folder}' shows those that are there"
        raise SettingError(f"{few}. Expected as many, or more, which are added; {table}.")
    do = "the same command, or another folder"
    if ALGORITHMS in names:
        do += f", which 'offbeat merge {folder} OTHER --out all.json' puts together with it"
    raise SettingError(f"{folder} is of another comparison: {'; '.join(each)}. Expected {do}.")


def _said(value: Any) -> str:
    values = value["worlds"] if isinstance(value, dict) and "worlds" in value else [value]
    return ", ".join(map(_word, values))


def _word(value: Any) -> str:
    return "not said" if value is None else value if isinstance(value, str) else json.dumps(value)


def finished(folder: Path) -> int:
    """How many runs are finished in the folder of a comparison, those of tuning included."""
    return sum(1 for _ in folder.rglob(f"*{RUN}"))


def is_kept(folder: Path) -> bool:
    """Whether it is the folder of a comparison."""
    return (folder / ASKED).is_file()


def asked_in(folder: Path) -> dict[str, Any]:
    """What is said about the comparison in this folder. Raises DataError."""
    path = folder / ASKED
    with reading(path, "what a comparison was asked for"):
        found: dict[str, Any] = json_in(path)
        refuse_newer(path, found["format"], FORMAT)
        if found["format"] != FORMAT or not isinstance(found["asked"], dict):
            raise ValueError("it is JSON of something else")
        planned, code = found["planned"], found["code"]
        if not all(type(count) is int for count in planned.values()) or not isinstance(code, dict):
            raise ValueError("its numbers of runs, or its versions of code, are none")
    return found


def kept_in(folder: Path, usual: Settings) -> Comparison:
    """The runs that are finished in the folder of a comparison, in its order, as far as they are of the files
    (code, and what says the world) that it was started with last. Raises DataError.
    """
    said, found = asked_in(folder), []
    what, advice = "a finished run of a comparison", "Remove it, and the comparison makes it anew."
    for path, row in rows_in(folder, what, advice):
        with reading(path, what, advice):
            run, place = run_from(row["run"], usual), [int(each) for each in row["place"]]
            if of_versions(run.settings.get("code") or {}, said["code"]):
                found.append((place, run))
    if not found:
        raise DataError(f"No run in {folder} has ended; the command that made it goes on with it.")
    runs = [run for _, run in sorted(found, key=lambda each: each[0])]
    missing = len(runs) < sum(said["planned"].values())
    return Comparison(runs, interrupted=missing, planned=said["planned"] if missing else {})
