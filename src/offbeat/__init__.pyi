# What `import offbeat` offers, and where it is: imported when it is first used, for torch takes a second.
from . import algorithms as algorithms
from . import cli as cli
from . import core as core
from . import engines as engines
from . import experiments as experiments
from . import results as results
from . import tasks as tasks
from . import training as training
from . import world as world
from .algorithms import ADPSGD, ADSGD, ALGORITHMS, DSGD, RFAST, Algorithm, AllReduceSGD
from .core.agent import Agent, View
from .core.errors import ContractError, DataError, OffbeatError, SettingError
from .core.forms import concat, mix, pin, split, total, zero
from .core.rules import SGD, AdamW, Momentum, Nesterov
from .core.vector import Vector, opaque
from .engines.trace import Staleness, Trace
from .experiments.comparison import plan
from .experiments.experiment import Experiment
from .experiments.loading import load
from .experiments.study import compare, simulate
from .results.run import Comparison, Run
from .results.values import Curve
from .tasks import TASKS, Logistic, ModuleTask, Quadratic
from .tasks.metrics.evaluation import Evaluation
from .tasks.task import Task
from .training.member import Member, join
from .world.delays import Delay, empirical
from .world.graphs import TOPOLOGIES
from .world.topology import Topology, with_weights
from .world.world import CASES, Crash, World

__version__: str

__all__ = [
    "ADPSGD", "ADSGD", "ALGORITHMS", "CASES", "DSGD", "RFAST", "SGD", "TASKS", "TOPOLOGIES", "AdamW",
    "Agent", "Algorithm", "AllReduceSGD", "Comparison", "ContractError", "Crash", "Curve", "DataError",
    "Delay", "Evaluation", "Experiment", "Logistic", "Member", "ModuleTask", "Momentum", "Nesterov",
    "OffbeatError", "Quadratic", "Run", "SettingError", "Staleness", "Task", "Topology", "Trace",
    "Vector", "View", "World", "__version__", "compare", "concat", "empirical", "join", "load", "mix",
    "opaque", "pin", "plan", "simulate", "split", "total", "with_weights", "zero",
]  # fmt: skip
