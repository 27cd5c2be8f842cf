"""What a live run is told: one value from the command line to every agent's process, and into the trace.

As JSON it lies in the run's shared memory (`run.json`), where its agents read it, and later in the trace.
`RunSettings.of` reads it back with checks; what earlier versions wrote is understood.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offbeat.core.codecs import NONE, Codec, codec_of
from offbeat.core.errors import SettingError
from offbeat.core.settings import LEARNING, RUNNING, WORLD, Kind, setting
from offbeat.core.system.own import pinned
from offbeat.core.system.reading import refuse_newer, refuse_unknown
from offbeat.engines.live.launcher.stop_after import StopAfter
from offbeat.engines.live.members import Stage, grown_of
from offbeat.engines.live.node.faults import Fault, parse_fault
from offbeat.engines.live.node.guard import IGNORE, POLICIES, SKIP
from offbeat.engines.live.shm.board import MOST
from offbeat.world.growth import Growing, Newcomer
from offbeat.world.topology import build

FORMAT = "run 1"
DEATHS = STOP, CONTINUE = "stop", "continue"  # what --on-death takes

KINDS: dict[str, set[type]] = {
    "agents": {int}, "seed": {int}, "folder": {str}, "algorithm": {str}, "unit": {int, float},
    "faults": {list}, "checkpoint_every": {int, str}, "resume": {bool}, "max_restarts": {int},
    "on_nan": {str}, "topology": {str}, "script": {list}, "experiment": {dict}, "lr": {int, float},
    "format": {str}, "damaged": {list}, "code": {dict}, "weights": {str}, "compress": {str},
    "on_death": {str}, "missing": {list}, "stop_after": {str}, "grown": {list}, "left": {list},
    "earlier": {list},
}  # fmt: skip
"""The names in JSON, and what their values may be; `damaged`, `missing` and `left` are said of a trace."""
PLAIN = ("agents", "algorithm", "seed", "unit", "resume", "max_restarts", "on_death", "on_nan")
"""Settings that are in JSON what they are here."""
EARLIER = {
    "folder": ".", "unit": 1.0, "faults": [], "checkpoint_every": 0, "resume": False, "max_restarts": 3,
    "on_death": STOP, "on_nan": IGNORE, "script": [], "format": FORMAT, "code": {},
}  # fmt: skip
"""What is meant by JSON of earlier versions where it does not say."""


@dataclass(frozen=True)
class CheckpointPolicy:
    """How often an agent is saved: after so many steps, or so many seconds; if both are 0, never."""

    steps: int = 0
    seconds: float = 0.0

    @staticmethod
    def parse(text: str | int) -> "CheckpointPolicy":
        """'500' steps, '60s', or '0': never. Raises SettingError for anything else."""
        text = str(text)
        try:
            number = text.removesuffix("s")
            policy = CheckpointPolicy(int(text)) if number == text else CheckpointPolicy(0, float(number))
        except ValueError:
            raise SettingError(f"Cannot read '{text}'; expected steps, '500', or seconds, '60s'.") from None
        if not 0 < max(policy.steps, policy.seconds) < math.inf and text != "0":
            raise SettingError(f"Checkpoints every {text}: expected more than 0, and less than for ever.")
        return policy

    def __bool__(self) -> bool:
        return self != CheckpointPolicy()

    def __str__(self) -> str:
        return f"{self.seconds:.15g}s" if self.seconds else str(self.steps)

    def record(self) -> int | str:
        return str(self) if self.seconds else self.steps

    def due(self, steps: int, passed: float) -> bool:
        return steps % self.steps == 0 if self.steps else 0 < self.seconds <= passed


def _as_is(name: str, value: Any) -> Any:
    return value


POLICY = Kind(str, "string", _as_is, _as_is, str)
FAULTS = Kind(list[str], "list string", _as_is, _as_is)  # kinds of values; `RunSettings` checks them

CHECKPOINTS = (
    "Steps ('500') or seconds ('60s') between checkpoints, for --resume and offbeat export; 0: none."
)
FAULT = (
    "A fault on purpose: 'kill agent 2 at step 100', 'cut machine 1 from 10 s to 20 s'; repeat it for more."
)
RESTARTS = "How often one agent is started again; one restart is forgiven for every 10 min of steps."
ON_DEATH = "Once its restarts are used up: stop the run, or continue without that agent."
ON_NAN = "What an agent does with an update that is not finite: skip it, stop the run, or ignore it."


@dataclass(frozen=True)
class ScriptProgram:
    """Every agent runs the user's own script: `command` is the script and its arguments."""

    topology: str
    command: tuple[str, ...] = ()
    weights: str | None = None
    compress: str = NONE

    @property
    def codec(self) -> Codec | None:
        return codec_of(self.compress)


@dataclass(frozen=True)
class ExperimentProgram:
    """Every agent trains its part of an experiment of the simulator's, of which these are the settings."""

    experiment: Mapping[str, Any]
    lr: float

    @property
    def topology(self) -> str:
        return str(self.experiment["topology"])

    @property
    def weights(self) -> str | None:
        return self.experiment.get("weights")

    @property
    def codec(self) -> Codec | None:
        return codec_of(self.experiment.get("compress", NONE))


Program = ScriptProgram | ExperimentProgram


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """The settings of a live run. Raises SettingError for what makes no sense."""

    agents: int
    folder: Path  # where output, traces and checkpoints go
    program: Program
    algorithm: str = "adsgd"
    seed: int = 0
    unit: float = 1.0  # seconds
    fault: tuple[Fault, ...] = setting((), WORLD, FAULT, FAULTS)
    checkpoint_every: CheckpointPolicy = setting(CheckpointPolicy(), RUNNING, CHECKPOINTS, POLICY)
    resume: bool = False  # from what is saved in the folder
    max_restarts: int = setting(3, RUNNING, RESTARTS)
    on_death: str = setting(STOP, RUNNING, ON_DEATH)
    on_nan: str = setting(SKIP, LEARNING, ON_NAN)
    stop_after: StopAfter | None = None  # when there is enough; None: its programs end by themselves
    code: Mapping[str, str] = field(default_factory=dict)  # file -> version, of the user's own
    grown: tuple[Newcomer, ...] = ()  # who has joined while it went on
    earlier: tuple[Stage, ...] = ()  # from whose checkpoints it goes on, one after another

    def __post_init__(self) -> None:
        if self.on_nan not in POLICIES:
            raise SettingError(f"Got --on-nan {self.on_nan}; expected one of {', '.join(POLICIES)}.")
        if self.on_death not in DEATHS:
            raise SettingError(f"Got --on-death {self.on_death}; expected one of {', '.join(DEATHS)}.")
        if not 0 < self.agents <= self.count <= MOST:
            raise SettingError(f"Expected 1 to {MOST:,} agents; got {self.count:,}.")
        if self.max_restarts < 0:
            raise SettingError(f"Expected --max-restarts of 0 or more; got {self.max_restarts}.")
        if not 0 < self.unit < math.inf:
            raise SettingError(f"A unit of time takes more than 0 s; got {self.unit}.")

    @property
    def count(self) -> int:
        """How many agents there are, with those who have joined."""
        return self.agents + len(self.grown)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """All stages of the run, this one the last."""
        program = self.program
        return (*self.earlier, Stage(self.agents, program.topology, program.weights, self.grown))

    def growing(self, which: int = -1) -> Growing:
        """The graph with which a stage began, and how it grows. Raises SettingError."""
        agents, topology, weights = self.stages[which].graph
        with pinned(self.code, self.code):
            return Growing(build(topology, agents, self.seed, weights), self.seed, weights)

    def record(self) -> dict[str, Any]:
        program: dict[str, Any] = {**vars(self.program)}
        if isinstance(self.program, ScriptProgram):
            program = {"topology": self.program.topology, "script": [*self.program.command]}
            program |= {"weights": self.program.weights} if self.program.weights else {}
            program |= {"compress": self.program.compress} if self.program.codec else {}
        plain = {name: getattr(self, name) for name in PLAIN}
        faults, every = [fault.text for fault in self.fault], self.checkpoint_every.record()
        more = {"folder": str(self.folder), "faults": faults, "checkpoint_every": every}
        more |= {"stop_after": self.stop_after.text} if self.stop_after is not None else {}
        code: dict[str, Any] = {"code": {**self.code}} if self.code else {}
        code |= {"grown": [each.record() for each in self.grown]} if self.grown else {}
        code |= {"earlier": [each.record() for each in self.earlier]} if self.earlier else {}
        return program | {"format": FORMAT} | plain | more | code

    @staticmethod
    def of(record: Mapping[str, Any], path: str | Path) -> "RunSettings":
        """Of what `record` gave, also an earlier version's, in this file; call it within `reading`. Raises
        DataError for what is newer, ValueError and others for what is no such record.
        """
        said = {**EARLIER, **record}
        refuse_newer(path, said["format"], FORMAT)
        refuse_unknown(record, KINDS)
        if "experiment" in said:
            program: Program = ExperimentProgram(said["experiment"], said["lr"])
        else:
            script, weights = tuple(map(str, said["script"])), said.get("weights")
            program = ScriptProgram(said["topology"], script, weights, said.get("compress", NONE))
        plain = {name: said[name] for name in PLAIN}
        try:
            grown = grown_of(said.get("grown", []), said["agents"])
            faults = tuple(parse_fault(text, said["agents"] + len(grown)) for text in said["faults"])
            folder, every = Path(said["folder"]), CheckpointPolicy.parse(said["checkpoint_every"])
            enough = StopAfter.parse(said["stop_after"]) if "stop_after" in said else None
            more = {"fault": faults, "checkpoint_every": every, "stop_after": enough, "code": said["code"]}
            more |= {"grown": grown, "earlier": tuple(map(Stage.of, said.get("earlier", [])))}
            return RunSettings(program=program, folder=folder, **more, **plain)
        except SettingError as error:
            raise ValueError(str(error)) from error
