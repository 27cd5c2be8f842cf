"""What can be said of a world: its settings as they are declared, and an example of each."""

from offbeat.core.settings import WORLD, declared
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.setup import checked
from offbeat.experiments.worlds import world_of

EXAMPLES: dict[str, object] = {
    "case": "comp-straggler", "straggler": "3,7", "slowdown": 5.0, "loss": 0.1,
    "crash": "agent 3 at 100 until 200", "compute": "gamma 0.5", "communication": "lognormal 2",
    "speeds": "lognormal:0.5", "links": "1,1,2,10", "latency": "rtt:rtt.npz:rtt:1 mean 0.5",
    "bandwidth": "file:links.csv", "sending": "unicast", "network": "fair",
    "event": "cut {0,1} from the rest at 100 until 200", "availability": "phones.csv",
    "byzantine": "agent 3 flips",
}  # fmt: skip


def sayings() -> dict[str, str]:
    """Option -> what it says, with an example; it is marked where only the simulator can do that."""
    known = {name: each for name, each in declared(Experiment).items() if each.scope == WORLD}
    return {f"--{name}": f"{each.help}\nAs in: {_example(name)}" for name, each in known.items()}


def _example(name: str) -> str:
    each, value = declared(Experiment)[name], EXAMPLES[name]
    (word,) = each.kind.words(each.kind.record(each.checked(value)))
    said = f"--{name} {word}" if " " not in word and "{" not in word else f"--{name} '{word}'"
    return f"{said} (simulated only)" if not each.live or _simulated_only(name) else said


def _simulated_only(name: str) -> bool:
    """Whether real processes do not heed the example; what is said by link, they do."""
    world = world_of(checked(Experiment(**{name: EXAMPLES[name]})), 4, 1000.0, 0)  # type: ignore[arg-type]
    return bool(world.simulated_only)
