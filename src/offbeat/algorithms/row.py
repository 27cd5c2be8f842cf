"""A row of the table: what is said of an algorithm, and which options it has."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal, cast

import numpy as np

from offbeat.core.agent import Agent
from offbeat.core.codecs import Codec
from offbeat.core.errors import SettingError
from offbeat.core.rounds import Rounds
from offbeat.core.settings import as_word
from offbeat.core.words import Bounds, Parameter, Parameters
from offbeat.world.topology import Topology

WORKER = "crash of a worker"
OWN = (
    "what it waits for, needs and tolerates is its author's to know: runs take it for one that goes on when "
    "an agent is lost, and takes back one that returns"
)
NO_BOUND = "no learning rate is known here with which it surely converges"
CHANGING = "dsgd, dpsgd, dsgt, qg-dsgdm, sgp, osgp"  # what goes by rounds on a graph that changes with them


@dataclass(frozen=True)
class Option(Bounds):
    """A field of an agent that is set by name: 'dsgd:after', or with a number 'adsgd:theta=0.5', within its
    bounds.

    Attributes:
        usual: what an agent does without it; continues "an agent ...", as `chosen` does
        chosen: what it does with it; `{}` is its number
        unscripted: why what has it cannot run in a user's script
        plain_lr: whether what has it takes the others' learning rate, where it would take n times that
    """

    usual: str
    chosen: str
    unscripted: str = ""
    plain_lr: bool = False


LOCAL = Option("", "makes {} steps for each exchange", low=1)
TRACKS = "what it tracks are the gradients at the models that were mixed, each of which counts once"


@dataclass(frozen=True)
class Algorithm:
    """One row of the table.

    Attributes:
        prototype: an agent that every agent of a run is a copy of
        paper: where it was published
        waits_for: what an agent may have to wait for besides its own gradient
        needs: of the graph and its weights
        tolerates: "loss" (of registers), "crash" (the others go on), "return" (of a crashed agent), "crash of
            a worker" (the others go on, unless it is the server)
        note: what else one should know, in particular why something is not tolerated
        keeps: vectors as long as a model that an agent holds, its gradient among them, and those for each
            neighbour: Table 2 of arXiv:2505.10322, where that has the algorithm
        sends: what an agent sends, and when
        bound: for which learning rates theory says that it converges, and who says so; empty: none is known
        options: what may be set by name
        local: which option says how many gradients there are for each exchange
        no_local: why there is none, in an algorithm that makes no local steps
        scale_lr_by_n: whether the default learning rate is n times that of the others
        graph: whether the graph has to be undirected, and its weights symmetric too
        smallest: the smallest eigenvalue that W may have, as the option `theta` mixes it
        vectors: models that an agent of a simulation holds, and those for each neighbour: for its memory
        unscripted: why it cannot run in a user's script (`offbeat launch`); empty: it can
        user_defined: whether it is the user's own, and not in the table
        named: FILE.py:NAME(options), if it was named so, or a name of the table with options that were tuned:
            every process can load it again
        code: then file -> version of what was loaded (`offbeat.core.system.own`)
    """

    name: str
    prototype: Agent
    title: str
    paper: str
    waits_for: str = "nothing"
    needs: str = "a connected graph"
    tolerates: frozenset[str] = frozenset({"loss", "crash", "return"})
    note: str = ""
    keeps: tuple[int, int] | None = None
    sends: str = ""
    bound: str = ""
    options: Mapping[str, Option] = field(default_factory=dict)
    local: str = "local_steps"
    no_local: str = "its class has no such number"
    scale_lr_by_n: bool = False
    graph: Literal["any", "undirected", "symmetric"] = "any"
    smallest: float = -1.0
    vectors: tuple[float, float] = (5.0, 3.0)
    unscripted: str = ""
    user_defined: bool = False
    named: str = ""
    code: Mapping[str, str] = field(default_factory=dict)

    @property
    def asked(self) -> str:
        """What `find` takes to find it again, in any process."""
        return self.named or self.name

    @property
    def form(self) -> str:
        """What an agent does, where there are several forms of the algorithm; continues "an agent ..."."""
        said = [
            option.usual if value == usual else option.chosen.format(as_word(value))
            for option, value, usual in self.chosen().values()
        ]
        return ", ".join(filter(None, said))

    def chosen(self) -> dict[str, tuple[Option, float, float]]:
        """By name: each option, the value that it has here, and the one that it has if it is not named."""
        usual = {each.name: cast(float, each.default) for each in fields(self.prototype)}
        return {
            name: (option, getattr(self.prototype, name), usual[name])
            for name, option in self.options.items()
        }

    @property
    def parameters(self) -> Parameters:
        """What may be set by name, in the order in which it is spelt."""
        bounds = [each.name for each in fields(Bounds)]
        return {
            name: Parameter(usual=usual, **{each: getattr(option, each) for each in bounds})
            for name, (option, _, usual) in sorted(self.chosen().items())
        }

    @property
    def makes_none(self) -> str:
        """That it makes no local steps, and why."""
        return f"{self.name} makes no local steps: {self.no_local}."

    @property
    def gradients(self) -> int:
        """How many there are for each exchange."""
        return int(getattr(self.prototype, self.local)) if self.local in self.options else 1

    def facts(self) -> list[str]:
        """All that the row says, a line for each thing."""
        lines = [f"{self.title} ({self.paper})", self.sends and f"sends {self.sends}"]
        changing = isinstance(self.prototype, Rounds) and self.prototype.changing_graph
        graphs = "; takes graphs that change from round to round" * changing
        if self.user_defined:
            lines += [OWN]
        else:
            lines += [f"waits for {self.waits_for}; needs {self.needs}{graphs}"]
            lines += [f"tolerates {', '.join(sorted(self.tolerates)) or 'nothing'}", self.note]
        if self.keeps is not None:
            own, more = self.keeps
            lines += [
                f"keeps {own} vectors as long as a model" + f", and {more} for each neighbour" * (more > 0)
            ]
        lines += [self.unscripted and f"cannot run in a user's script: {self.unscripted}"]
        models, changes = bool(self.prototype.sends_models), bool(self.prototype.sends_changes)
        lines += ["the models that it sends may be compressed: bf16, int8"] * models
        lines += ["what it accumulates may be compressed: bf16, int8, top-k"] * changes
        lines += [f"converges for {self.bound}" if self.bound else NO_BOUND]
        lines += [self.form and f"{self.name} {self.form}"]
        for name, (option, value, usual) in self.chosen().items():
            flag, place = isinstance(value, bool), name.upper()
            if value != usual:
                continue
            said = option.chosen.format(place) + f"; {place}: {option.takes(value)}" * (not flag)
            colon = "+" if ":" in self.name else ":"
            lines += [f"{self.name}{colon}{name}{f'={place}' * (not flag)} {said}"]
        return [line for line in lines if line]

    def check_script(self) -> None:
        """Raise SettingError if it cannot run in a user's script, as one process of several."""
        of_options = [option.unscripted for option, value, usual in self.chosen().values() if value != usual]
        if why := next(filter(None, [self.unscripted, *of_options]), ""):
            raise SettingError(
                f"{self.name} cannot run in a user's script: {why}. Expected another algorithm here; "
                "'offbeat live' and simulations, whose tasks are offbeat's, take it."
            )

    def default_lr(self, lr: float, n: int) -> float:
        """The learning rate when none was given for this algorithm in particular."""
        return lr * n if self.scale_lr_by_n else lr

    def needed(self, topology: Topology) -> tuple[int, ...]:
        """The agents without whom the others stand still."""
        if "crash" in self.tolerates:
            return ()
        return (topology.hub or 0,) if WORKER in self.tolerates else tuple(range(topology.n))

    @property
    def closed(self) -> str:
        """Why nobody can join a run of it that goes on; empty: an agent can, as it can come back."""
        if self.prototype.blocks:
            return f"{self.name} has one model of all agents, of which each has a block"
        if "return" in self.tolerates and self.tolerates & {"crash", WORKER}:
            return ""
        why = (
            "takes nobody back" if "crash" in self.tolerates else "cannot go on without any one of its agents"
        )
        return f"{self.name} {why}" + (f": {self.note}" if self.note else "")

    def check_newcomers(self, before: Topology, grown: Topology) -> None:
        """Raise SettingError if no agent can join while a run goes on, of which the graph grows like this."""
        if self.closed:
            takes = "Expected an algorithm that takes agents back, as adsgd"
            raise SettingError(f"Nobody can join this run: {self.closed}. {takes}.")
        if self.needed(before) != self.needed(grown):
            (old,), (new,) = self.needed(before), self.needed(grown)
            raise SettingError(
                f"Agent {old} is the server; with these neighbours of the newcomers it would be agent {new}. "
                f"Expected some that leave agent {old} the neighbour of all others."
            )

    def check_moved(self, before: tuple[int, str, str | None]) -> None:
        """Raise SettingError if a run of it cannot go on on another graph than that of these agents, topology
        and weights.
        """
        if self.closed:
            agents, topology, weights = before
            same = f"-n {agents} --topology {topology}" + (f" --weights {weights}" if weights else "")
            raise SettingError(
                f"--resume with other agents or another graph: {self.closed}, so nobody can come or go "
                f"between its checkpoints either. Expected {same}, as before; or a new run, another --out."
            )

    def check_goes_on(self, topology: Topology) -> None:
        """Raise SettingError if none of its agents can be left out."""
        if len(self.needed(topology)) == topology.n:
            why = f": {self.note}" if self.note else ""
            raise SettingError(
                f"--on-death continue: {self.name} cannot go on without any one of its agents{why}. Expected "
                "--on-death stop, which ends the run then; or an algorithm that tolerates a crash: 'offbeat "
                "list algorithms' says which."
            )

    def check(self, topology: Topology) -> None:
        """Raise SettingError if the published algorithm is not for this graph."""
        if topology.rounds is not None:  # all of whose rows and columns sum to 1
            if not self.prototype.changing_graph:
                raise SettingError(
                    f"{self.name} is defined on a graph that stands still; '{topology.name}' changes from "
                    f"round to round, which {CHANGING} take. Expected one of these, or another graph."
                )
            return
        if self.graph != "any" and topology.graph.is_directed():
            raise SettingError(
                f"{self.name} needs an undirected graph; '{topology.name}' is directed. rfast takes directed "
                "graphs."
            )
        if self.graph == "symmetric" and not topology.symmetric:
            raise SettingError(
                f"{self.name} needs symmetric weights, w_ij = w_ji, or it would minimise another objective; "
                f"those of '{topology.name}' are not. Metropolis weights are (the default), rfast takes any."
            )

        if self.smallest > -1.0:
            self._check_spectrum(topology)

    def _check_spectrum(self, topology: Topology) -> None:
        theta = getattr(self.prototype, "theta", 1.0)
        least = 1.0 - theta * (1.0 - float(np.linalg.eigvalsh(topology.dense_w())[0]))
        if least < self.smallest - 1e-9:
            most = (1.0 - self.smallest) / (1.0 - least) * theta
            raise SettingError(
                f"{self.name} diverges if its weights have an eigenvalue below {self.smallest:.3g}; those of "
                f"'{topology.name}' have {least:.3g}. Expected theta={int(100 * most) / 100:g} or less, as "
                f"in '{self.name.partition(':')[0]}:theta={min(0.5, int(100 * most) / 100):g}': it mixes "
                "with (1 - theta) I + theta W."
            )

    def compresses(self, codec: Codec) -> bool:
        """Whether there is a message that this codec is for."""
        return bool(self.prototype.sends_changes or (self.prototype.sends_models and not codec.sums))

    def new(self) -> Agent:
        return copy.deepcopy(self.prototype)
