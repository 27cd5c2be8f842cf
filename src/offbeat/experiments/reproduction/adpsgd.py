"""The evaluation of arXiv:1710.06952 (AD-PSGD): slowed workers and links, shared networks, more workers.

What was measured in the paper was not recovered, so what runs are held to are the predictions of a model,
derived here: how many gradients are applied in a unit of time, the mean time of one.

    one worker s times slower    asynchronous n - 1 + 1 / s, synchronous n / s
    all alike                    n
"""

from collections.abc import Sequence

from offbeat.experiments.reproduction.evidence import Evidence, verdict
from offbeat.experiments.reproduction.part import Claim, Paper, Part, Picture, Table
from offbeat.results.reproduction import Finding

WITHIN = 0.1  # of its prediction a throughput confirms it
TITLE = "AD-PSGD, arXiv:1710.06952"
SYNCHRONOUS = ("dsgd", "allreduce")
WORLD = {
    "task": "cifar10", "model": "resnet20", "agents": 16, "topology": "ring", "partition": "iid",
    "batch": 128, "augment": "crop+flip", "eval_samples": 2000, "until": 2000, "eval_every": 50,
    "target": 0.8, "lr": 0.1, "optimizer": "momentum:0.9", "compute": "constant",
    "communication": "constant", "bandwidth": 100.0,
}  # fmt: skip
SMALL: Table = {
    "fixed": {"task": "digits", "model": "mlp", "width": 16, "batch": 16, "augment": "none", "until": 400,
              "eval_every": 20, "target": 0.8, "eval_samples": 300, "seed": 0},
}  # fmt: skip
METHODS = ["adpsgd", "dsgd", "allreduce"]
ABOUT = (
    "Sixteen workers train ResNet-20 on uniformly split CIFAR-10. The unit of time is that of a gradient; a "
    "model takes a hundredth of it to send ('InfiniBand'), unless it is said otherwise. Delays are constant, "
    "so that throughputs can be held to their predictions, which are derived here; the paper's own tables "
    "were not to be had."
)


def _throughput(evidence: Evidence) -> float:
    """Gradients applied in a unit of time in the second half of a run, the mean over the seeds: at first
    those who are far from a slow worker do not yet wait for it.
    """
    each = []
    for run in evidence.runs:
        half = len(run.curve.time) // 2
        updates, times = run.curve.updates, run.curve.time
        each.append((updates[-1] - updates[half]) / (times[-1] - times[half]))
    return sum(each) / len(each)


def _held(names: Sequence[str], predicted: Sequence[tuple[str, Evidence, float]]) -> list[Finding]:
    """Throughputs of each of these algorithms beside their predictions."""
    made = []
    for name in names:
        rows = [(what, some.where(algorithm=name), value) for what, some, value in predicted]
        found = [(what, _throughput(some), value) for what, some, value in rows if some.runs]
        words = "; ".join(f"{what}: {got:.3g}, predicted {value:.3g}" for what, got, value in found)
        made.append(
            Finding(verdict(abs(got - value) <= WITHIN * value for _, got, value in found), words, name)
        )
    return made


def slowed_worker(evidence: Evidence) -> list[Finding]:
    """One worker s times slower."""
    n, made = 16, list[Finding]()
    slow = [(s, evidence.where(slowdown=float(s))) for s in sorted(evidence.values("slowdown"))]
    waits = [(f"{s:g} times", some, n / s) for s, some in slow]
    never_waits = [(f"{s:g} times", some, n - 1 + 1 / s) for s, some in slow]
    for names, predicted in ((("adpsgd",), never_waits), (SYNCHRONOUS, waits)):
        made += _held(names, predicted)
    return made


def slowed_link(evidence: Evidence) -> list[Finding]:
    """How much throughput stays where one link is slower: of AD-PSGD all but what that link's ends wait."""
    made = []
    for name in evidence.values("algorithm"):
        here = evidence.where(algorithm=name)
        rates = {value: _throughput(here.where(bandwidth=value)) for value in here.values("bandwidth")}
        words = ", ".join(f"{_times(value)}: {rate:.3g}" for value, rate in rates.items())
        stays = min(rates.values()) >= 0.85 * max(rates.values())
        made.append(Finding(verdict([stays == (name == "adpsgd")]), words, name))
    return made


def _times(bandwidth: object) -> str:
    """How many times slower the link is, by the name of its file."""
    return f"{str(bandwidth).rpartition('-')[2].removesuffix('.csv')} times"


def shared_network(evidence: Evidence) -> list[Finding]:
    """How many times as fast as all-reduce AD-PSGD applies gradients, the slower the network."""
    ratios = {}
    for value in sorted(evidence.values("bandwidth")):
        ours, theirs = (evidence.where(bandwidth=value, algorithm=name) for name in ("adpsgd", "allreduce"))
        if ours.runs and theirs.runs:
            ratios[value] = _throughput(ours) / _throughput(theirs)
    words = ", ".join(
        f"a model in {1 / value:g} gradients' time: {ratio:.1f}x" for value, ratio in ratios.items()
    )
    holds = [any(4 <= ratio <= 8 for ratio in ratios.values())] * bool(ratios)
    return [Finding(verdict(holds), words)]


def linear(evidence: Evidence) -> list[Finding]:
    """Throughput over the number of workers, as a multiple of that of the fewest."""
    made = []
    for name in evidence.values("algorithm"):
        rates = {
            n: _throughput(evidence.where(algorithm=name, agents=n))
            for n in sorted(evidence.values("agents"))
        }
        fewest = min(rates)
        shares = {n: rate / rates[fewest] * fewest / n for n, rate in rates.items()}
        words = ", ".join(
            f"{n}: {rates[n]:.3g} ({100 * share:.0f} % of linear)" for n, share in shares.items()
        )
        made.append(Finding(verdict([min(shares.values()) >= 0.9]), words, name))
    return made


SLOWER = (1, 2, 10, 100)
LINKS = {f"slow-link-{s}.csv": f"from,to,value\n*,*,100\n0,1,{100 / s:g}\n1,0,{100 / s:g}\n" for s in SLOWER}
MOVING = "how sending and computing overlap: DSGD sends while it computes, all-reduce does not (ours)"

SLOW_WORKER = Part(
    "slow-worker", f"{TITLE}: one worker slowed", (ABOUT,),
    [{"fixed": {**WORLD, "case": "comp-straggler", "straggler": 0},
      "grid": {"slowdown": [2.0, 10.0, 100.0], "algorithm": METHODS, "seed": [0, 1, 2]}}],
    SMALL,
    (Claim("B1", "predicted throughput with one of 16 workers 2, 10, 100 times slower: 15.5, 15.1, 15.01 "
           "where nobody waits, 8, 1.6, 0.16 where all do", slowed_worker, MOVING),),
    (Picture("accuracy", "Test accuracy of the average model over time.", "accuracy", by="slowdown"),),
)  # fmt: skip

SLOW_LINK = Part(
    "slow-link", f"{TITLE}: one link slowed",
    (ABOUT, "The link between workers 0 and 1 is 1, 2, 10 and 100 times slower than the others."),
    [{"fixed": {**WORLD, "bandwidth": None, "sending": "unicast"},
      "grid": {"bandwidth": [f"file:{{folder}}/{name}" for name in LINKS], "algorithm": METHODS,
               "seed": [0, 1, 2]}}],
    SMALL,
    (Claim("B2", "a slow link costs AD-PSGD little and the synchronous ones much (no numbers were to be had)",
           slowed_link, MOVING),),
    files=LINKS,
)  # fmt: skip

SHARED = Part(
    "shared-network", f"{TITLE}: a shared network",
    (ABOUT, "Here the network is shared: what a worker sends to several goes at max-min fair rates, and a "
     "model takes 0.01 to 1 of the time of a gradient."),
    [{"fixed": {**WORLD, "bandwidth": None, "network": "fair"},
      "grid": {"bandwidth": [100.0, 10.0, 4.0, 2.0, 1.0], "algorithm": METHODS, "seed": [0, 1, 2]}}],
    SMALL,
    (Claim("B3", "an epoch is 4 to 8 times as fast as with synchronous training in a shared network",
           shared_network, "how slow the network is against a gradient: each is shown"),),
)  # fmt: skip

SCALING = Part(
    "scaling", f"{TITLE}: more workers",
    ("Timing only: gradients of a small quadratic stand for those of any network, and a model takes 0.01 "
     "of the time of one to send.",),
    [{"fixed": {"task": "quadratic", "topology": "ring", "until": 100, "eval_every": 50, "lr": 0.01,
                "compute": "constant", "communication": "constant", "seed": 0},
      "grid": {"bandwidth": [100.0], "agents": [4, 8, 16, 32, 64, 128], "algorithm": METHODS}}],
    {"grid": {"agents": [4, 16, 64]}},
    (Claim("B4", "linear speed-up", linear, "of throughput; what more gradients help is the task's"),),
)  # fmt: skip

ADPSGD = Paper(
    "adpsgd", TITLE, {part.name: part for part in (SLOW_WORKER, SLOW_LINK, SHARED, SCALING)}
)  # fmt: skip
