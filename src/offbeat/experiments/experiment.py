"""One experiment: its settings, each declared here and nowhere else.

A new setting is one line below. The options of `offbeat compare` and `offbeat live`, the keys of a sweep,
JSON, the columns of the Parquet file and the command on the page follow from it; what it does is
`setup.prepare`'s business.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import networkx as nx

from offbeat.algorithms import USUAL
from offbeat.core.codecs import NONE
from offbeat.core.rules import NewRule
from offbeat.core.settings import LEARNING, PATH, RUNNING, TASK, USUAL_AGENTS, WORLD, declared, setting
from offbeat.experiments.kinds import (
    BYZANTINES,
    CHANGES,
    COMPRESS,
    CRASHES,
    DELAY,
    GRAPH,
    LR,
    NAMED_TASK,
    NAMES,
    NUMBERS,
    OPTIMIZER,
    PARTITION,
    PER_LINK,
    RANGES,
    SCHEDULE,
    SPEEDS,
    STRAGGLERS,
    TARGET,
    one_of,
)  # fmt: skip
from offbeat.experiments.measuring import METRIC_NAMES
from offbeat.experiments.tuning import BUDGET, GRID, SEEDS
from offbeat.tasks import LINEAR, MODELS, REG, TASKS
from offbeat.tasks.metrics import METRICS, OF_RUN
from offbeat.tasks.objective import AGENTS as AGENTS_ALIKE
from offbeat.tasks.partition import DEFAULT
from offbeat.tasks.task import Task
from offbeat.tasks.trained import AUGMENTATIONS
from offbeat.world.changes import Byzantine, Change
from offbeat.world.delays import Delay, parse
from offbeat.world.topology import Topology
from offbeat.world.weights import WEIGHTS
from offbeat.world.world import CASES, NETWORKS, SENDING, Crash, World

EVALUATIONS = 200  # how often a run is evaluated when `eval_every` does not say

SPLIT = (
    "How data are split, as in 'dirichlet:0.1': 'offbeat list partitions'. Default: 'skew:1'; of shakespeare "
    "'natural:role'."
)
SKEW = "Short for --partition skew:S: the fraction that is split by sorted label."
OBJECTIVE = (
    "What unequal shards minimise: the mean over 'agents', or over 'samples', for which gradients are scaled "
    "by an agent's share of the data."
)
MANY = f"How many; default: the task's, the graph's, or {USUAL_AGENTS}."
WHO = (
    "Who hears whom: 'offbeat list topologies'. Some take a number: 'random-regular:4'. A file of "
    "your own: .gml, .graphml, .edgelist, .csv (from,to[,weight]), or mine.py:graph."
)
WEIGHED = (
    f"Of the mixing: {', '.join(WEIGHTS)} ('offbeat list weights'). Default: metropolis; of a directed graph "
    "uniform; of a graph that has its own, these."
)
MODEL = f"What is trained on the data: {', '.join(MODELS)}; 'offbeat list models'. Default: the task's."
WIDTH = "Channels or units of a network, for smaller ones; default: its own ('offbeat list models')."
AUGMENT = (
    f"How images are varied, for networks: {', '.join(AUGMENTATIONS)}; drawn from the agent's own stream."
)
JUDGED_ON = (
    "Of how many training samples the loss of a network is measured, and of how many test samples its "
    "accuracy; default: all."
)
WHAT = f"What is trained: {', '.join(TASKS)}; your own: mine.py:make_task."
DATA = "Folder with the files of data sets (docs/data.md); default: OFFBEAT_DATA, or they are downloaded."
COMPUTE = (
    "How long gradients take, mean 1: 'gamma CV', 'lognormal CV', 'exponential', 'constant', 'file PATH', "
    "'file PATH:COLUMN'."
)
TARGETS = (
    "What the average model is to reach: 0.9 (test accuracy; on a task without, the loss), or a metric by "
    "name: accuracy=0.9, loss=0.5, 'consensus<=0.01'; default: the task's."
)
SPEED = (
    "How fast agents compute, 2 is twice as fast: 'lognormal:CV' or 'gamma:CV' (mean 1, drawn once for each "
    "seed), '1,1,2,10', 'file:PATH', 'file:PATH:COLUMN'. Default: all alike."
)
REGULARISER = (
    f"lambda in lambda * sum x^2 / (1 + x^2); default: {REG:g} of logistic regression, 0 of networks."
)
LINK = "How fast agents send, likewise."
OPTIMIZERS = (
    "What an agent makes of a gradient: 'sgd', 'momentum:0.95', 'nesterov', 'adamw:weight_decay=0.1'; "
    "'offbeat list optimizers'."
)
SCHEDULES = (
    "How the learning rate changes over time: 'cosine', 'warmup:20+cosine', 'step:100', 'sqrt', "
    "'diminishing:10', 'delay-adaptive'; 'offbeat list schedules'."
)
MEASURE = (
    f"What else is measured, with commas between: {', '.join([*METRICS, *OF_RUN])}; 'offbeat list metrics' "
    "says what these are."
)
JUDGE = (
    "Whose loss, accuracy and target: of the 'average' model, of the 'server' (the hub of a star), of the "
    "'worst' agent's own model, or 'each': the mean over the agents' own models."
)
PER_AGENT = "Keep the accuracy (or loss) of every agent's own model at every evaluation."
COMPRESSED = (
    "How what agents send is compressed: 'none', 'bf16' or 'int8' (models, and what is accumulated), or "
    "'top-k:0.01', a hundredth of what is accumulated. See docs/compression.md."
)
LOSS = (
    "Probability that a receiver misses a published model: a number, or 'file:PATH' by link; mail always "
    "arrives."
)
LATENCY = (
    "Time from the end of a transmission until it is there: a number; by link 'file:PATH' (from,to,value in "
    "each line, or a matrix), or 'rtt:PATH[:ARRAY[:SLICE]]', half of measured round-trip times; with ' mean "
    "0.5' scaled."
)
BANDWIDTH = "How many times as fast as drawn a link carries a model: a number, or 'file:PATH' by link."
SEND = "'multicast': one transmission to all receivers; 'unicast': one to each, one after another."
NETWORK = (
    "'serial': an agent sends one thing at a time; 'fair': to all receivers at a time, max-min fair rates."
)
EVENT = (
    "'agent 3 slows by 5 at 100 until 200', or 'computes slower', 'sends slower'; 'cut {0,1} from the rest "
    "at 100 until 200'; repeat it for more."
)
AVAILABILITY = "When agents are there: a file with lines agent,on,off. Who is not there has crashed."
LIES = "'agent 3 flips' or 'agent 3 adds noise 0.5': all that it sends is wrong; repeat it for more."
EXECUTOR = (
    "How the arithmetic is done: 'auto', 'levels', 'batched', or 'event-by-event', the slow oracle. The "
    "results are the same."
)
DEVICE = (
    "Where models and data lie and the arithmetic is done: 'cpu', or 'cuda' or 'cuda:1' for a GPU. The "
    "trace is the same everywhere; models and losses differ by rounding."
)


def _usual_delay(name: str, settings: Mapping[str, Any]) -> str:
    """The default however it is spelt; measured delays are not parsed."""
    said, default = str(settings[name]), str(declared(Experiment)[name].default)
    measured = said.split()[0] in ("file", "empirical")
    return said if not measured and str(parse(said)) == default else default


def _sampled(settings: Mapping[str, Any]) -> bool:
    return bool(settings["task"] != "quadratic")


def _drawn(settings: Mapping[str, Any]) -> bool:
    """Whether offbeat draws the minibatches: an object of the user's own does that by itself."""
    return _sampled(settings) and f"the task {settings['task']}" not in settings["own"]


def _ours(settings: Mapping[str, Any]) -> bool:
    return _drawn(settings) and settings["task"] in TASKS


def _of_network(settings: Mapping[str, Any]) -> bool:
    return _ours(settings) and settings.get("model") not in (None, LINEAR)


def _usual_model(settings: Mapping[str, Any]) -> str | None:
    return TASKS[settings["task"]].model if _ours(settings) else None


def _usual_partition(settings: Mapping[str, Any]) -> str:
    return TASKS[settings["task"]].partition if _ours(settings) else DEFAULT


def _usual_reg(settings: Mapping[str, Any]) -> float | None:
    by_file = settings["task"] not in TASKS and f"the task {settings['task']}" not in settings["own"]
    return None if by_file else 0.0 if _of_network(settings) else REG


def _slow(settings: Mapping[str, Any]) -> bool:
    return bool(settings["case"] != "base")


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything about a run but the algorithm, its learning rate and the seed: `offbeat compare --help` says
    what each setting is.

    From Python some may be objects: the task (`offbeat.Task`), the topology (a networkx graph or an
    `offbeat.Topology`), delays (`offbeat.Delay`), crashes (`offbeat.Crash`), the optimizer (a function from a
    learning rate to a local rule, `offbeat.core.rules`).

    Attributes:
        world: an `offbeat.World`, in place of the settings that say one (`worlds.OF_WORLD`); the case comes
            on top of it, and its seed is that of the run

    Raises SettingError for anything that makes no sense, when `prepare` is called.
    """

    task: str | Task = setting("digits", TASK, WHAT, NAMED_TASK)
    model: str | None = setting(
        None, TASK, MODEL, one_of(MODELS), usual=_usual_model, needs=_drawn, brief=True
    )
    width: int | None = setting(None, TASK, WIDTH, needs=_of_network, brief=True)
    agents: int | None = setting(None, TASK, MANY)
    topology: str | nx.Graph | Topology = setting("grid", TASK, WHO, GRAPH)
    weights: str | None = setting(None, TASK, WEIGHED, one_of(WEIGHTS), brief=True)
    case: str = setting("base", WORLD, f"One of {', '.join(CASES)}.")
    straggler: int | str | Sequence[int] | None = setting(
        None, WORLD, "The slow agents, as in 3 or 3,7; default: the graph's centre.", STRAGGLERS, needs=_slow
    )
    slowdown: float = setting(10.0, WORLD, "How many times slower.", needs=_slow)
    partition: str | None = setting(None, TASK, SPLIT, PARTITION, usual=_usual_partition, needs=_sampled)
    skew: float = setting(1.0, TASK, SKEW, needs=lambda settings: False)
    dirichlet: float | None = setting(
        None, TASK, "Short for --partition dirichlet:ALPHA.", needs=lambda settings: False
    )
    objective: str = setting(AGENTS_ALIKE, TASK, OBJECTIVE, brief=True)
    batch: int = setting(32, LEARNING, "Samples in a minibatch.", needs=_drawn)
    reg: float | None = setting(None, LEARNING, REGULARISER, usual=_usual_reg, needs=_drawn)
    augment: str = setting("none", LEARNING, AUGMENT, one_of(AUGMENTATIONS), needs=_of_network, brief=True)
    eval_samples: int | None = setting(None, LEARNING, JUDGED_ON, needs=_of_network, brief=True)
    optimizer: str | NewRule = setting("sgd", LEARNING, OPTIMIZERS, OPTIMIZER, brief=True)
    schedule: str = setting("constant", LEARNING, SCHEDULES, SCHEDULE, brief=True)
    until: float | None = setting(None, LEARNING, "Simulated time at which a run ends; default: the task's.")
    target: float | str | None = setting(None, LEARNING, TARGETS, TARGET)
    stop_at: str = setting(
        "until", LEARNING, "When a run ends: at 'until', or at the evaluation that first meets its 'target'.",
        live=False, brief=True,
    )  # fmt: skip
    eval_every: float | None = setting(
        None, LEARNING, f"Time between evaluations; default: until / {EVALUATIONS}.",
        usual=lambda settings: settings["until"] / EVALUATIONS,
    )  # fmt: skip
    metrics: Any = setting((), LEARNING, MEASURE, METRIC_NAMES, also="metric")
    judge: str = setting("average", LEARNING, JUDGE, brief=True)
    per_agent: bool = setting(False, LEARNING, PER_AGENT, brief=True)
    compress: str = setting(NONE, LEARNING, COMPRESSED, COMPRESS, brief=True)
    loss: float | str = setting(0.0, WORLD, LOSS, PER_LINK, brief=True)
    crash: str | Crash | tuple[str | Crash, ...] = setting(
        (), WORLD, "'agent 3 at 100 until 200'; repeat it for more.", CRASHES, live=False
    )
    compute: str | Delay = setting(
        Delay("gamma"), WORLD, COMPUTE, DELAY, usual=partial(_usual_delay, "compute")
    )
    communication: str | Delay = setting(
        Delay("lognormal"), WORLD, "How long sending a model takes, likewise.", DELAY,
        usual=partial(_usual_delay, "communication"),
    )  # fmt: skip
    speeds: str | Sequence[float] | None = setting(None, WORLD, SPEED, SPEEDS)
    links: str | Sequence[float] | None = setting(None, WORLD, LINK, SPEEDS)
    latency: float | str = setting(0.0, WORLD, LATENCY, PER_LINK, brief=True)
    bandwidth: float | str = setting(1.0, WORLD, BANDWIDTH, PER_LINK, brief=True)
    sending: str = setting("multicast", WORLD, SEND, one_of(SENDING), brief=True)
    network: str = setting("serial", WORLD, NETWORK, one_of(NETWORKS), brief=True)
    event: str | Change | tuple[str | Change, ...] = setting((), WORLD, EVENT, CHANGES)
    availability: str | Path | None = setting(None, WORLD, AVAILABILITY, PATH, live=False)
    byzantine: str | Byzantine | tuple[str | Byzantine, ...] = setting((), WORLD, LIES, BYZANTINES)
    data: str | Path | None = setting(None, TASK, DATA, PATH)
    executor: str = setting("auto", RUNNING, EXECUTOR, live=False, brief=True)
    device: str = setting("cpu", RUNNING, DEVICE, live=False, brief=True)
    world: World | None = None


LRS = (
    "The learning rate: 0.01 (default); several: 0.01,0.03; coupled to the number of agents n: 0.01n, "
    "'0.01sqrt(n)'; tuned; 'rfast=0.05' for one of them (repeatable)."
)
TUNE_BY = (
    "What --lr tuned and --tune go by, as median over seeds that are not compared: loss (default; time until "
    "most of the way down is made), target (time to it), final (the loss at the end)."
)
TUNE_GRID = (
    "The learning rates that --lr tuned tries first: '0.01,0.1,1'; then four more around the best. Default: "
    f"{GRID[0]:g} to {GRID[-1]:g}."
)


LOCAL = "How many gradients for each exchange, of every algorithm: short for adsgd:local_steps=4, diloco:h=4."
TUNE = (
    "Tune hyperparameters together, by successive halving: 'lr=0.001:1:log,h=1:10:int'. Each is lr, a number "
    "of an algorithm (theta, local_steps, one of your own) or of the optimizer (momentum): docs/tuning.md."
)
TUNE_BUDGET = f"How many whole runs' worth of time --tune has for each algorithm; default: {BUDGET:g}."


NAMED = (
    "Names with commas between ('offbeat list algorithms'), or 'all'; options after a colon: 'dsgd:after', "
    "'adsgd:theta=0.5'. Your own: 'mine.py:Mine(h=10)'."
)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which runs of an experiment are made: algorithms, learning rates, seeds."""

    algorithms: Any = setting(",".join(USUAL), TASK, NAMED, NAMES)
    lr: Any = setting(None, LEARNING, LRS, LR)
    local_steps: int | None = setting(None, LEARNING, LOCAL, brief=True)
    tune_by: str | None = setting(None, LEARNING, TUNE_BY, live=False)
    tune_grid: Any = setting(None, LEARNING, TUNE_GRID, NUMBERS, live=False)
    tune_seeds: int | None = setting(
        None, LEARNING, f"How many seeds --lr tuned and --tune use; default: {SEEDS}.", live=False
    )
    tune: Any = setting(None, LEARNING, TUNE, RANGES, live=False)
    tune_budget: float | None = setting(None, LEARNING, TUNE_BUDGET, live=False)
    seed: int = setting(0, RUNNING, "The first seed. One seed, the same bytes.")
    seeds: int = setting(1, RUNNING, "How many seeds.", live=False)
