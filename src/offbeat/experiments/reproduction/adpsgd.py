"""The evaluation of arXiv:1710.06952 (AD-PSGD): slowed workers and links, shared networks, more workers.

What was measured in the paper was not recovered, so what runs are held to are the predictions of a model,
derived here: how many gradients n workers on a ring apply in the time of one. One worker, or the link between
two, is s times slower, and b models are sent in the time of a gradient; what is sent while a gradient is
computed costs nothing, but where it takes longer.

    slow is    adpsgd                                  dsgd                     allreduce
    a worker   n - 1 + 1 / s                           n / s                    n / s
    a link     n - 2 + 2 / (1/2 + max(1, 2 s / b) / 2) n / max(1, (1 + s) / b)  n / max(1 + a (s + 1), 2 a s)
    nobody     n / max(1, 2 / b)                       n / max(1, 2 / b)        n / (1 + 2 a)

A worker of AD-PSGD asks one of two neighbours and is answered, here at once, as if no answer ever waited for
another transmission; one of DSGD sends its model to both. All-reduce computes, then passes 2 (n - 1) pieces
of a gradient on, each an n-th of it, so a = (n - 1) / (n b): who has all sums computes while others still
send, so that half of the pieces hold up who sends on the slow link, or all of them the link. `dsgd:after`
computes, then sends: n / (1 + (1 + s) / b).
"""

from collections.abc import Sequence
from statistics import median
from typing import Any

from offbeat.experiments.reproduction.evidence import Evidence, verdict
from offbeat.experiments.reproduction.part import Claim, Paper, Part, Picture, Table
from offbeat.results.reproduction import Finding

WITHIN = 0.1  # of its prediction a throughput confirms it
STAYS = 0.85  # of the throughput, or more, is little lost
WORKERS, FAST = 16, 100.0  # models in the time of a gradient, where nothing else is said
TITLE = "AD-PSGD, arXiv:1710.06952"
WORLD = {
    "task": "cifar10", "model": "resnet20", "agents": WORKERS, "topology": "ring", "partition": "iid",
    "batch": 128, "augment": "crop+flip", "eval_samples": 2000, "until": 2000, "eval_every": 50,
    "target": 0.8, "lr": 0.1, "optimizer": "momentum:0.9", "compute": "constant",
    "communication": "constant", "bandwidth": FAST,
}  # fmt: skip
SMALL: Table = {
    "fixed": {"task": "digits", "model": "mlp", "width": 16, "batch": 16, "augment": "none", "until": 400,
              "eval_every": 20, "target": 0.8, "eval_samples": 300},
    "grid": {"seed": [0, 1]},
}  # fmt: skip
METHODS = ["adpsgd", "dsgd", "allreduce"]
ABOUT = (
    "Sixteen workers on a ring train ResNet-20 on uniformly split CIFAR-10. The unit of time is that of a "
    "gradient; a model takes a hundredth of it to send ('InfiniBand'), unless it is said otherwise. Delays "
    "are constant, so that throughputs can be held to predictions, which are derived here from these times: "
    "the paper's own tables were not to be had. Measured are gradients applied in a unit of time, in the "
    "second half of a run, medians over the seeds, with the smallest and the largest where they differ. They "
    "do not depend on which network is trained; accuracies and losses do."
)


def rates(evidence: Evidence) -> list[float]:
    """Of each run the gradients applied in a unit of time, in its second half: at first those who are far
    from a slow worker do not yet wait for it.
    """
    each = list[float]()
    for run in evidence.runs:
        half = len(run.curve.time) // 2
        updates, times = run.curve.updates, run.curve.time
        each.append((updates[-1] - updates[half]) / (times[-1] - times[half]))
    return each


def predicted(algorithm: str, n: int, slow: float, models: float, link: bool = False) -> float:
    """Gradients in the time of one, by the model above.

    Args:
        slow: how many times slower one worker is, or one link
        models: how many are sent in the time of a gradient
        link: whether it is a link that is slow
    """
    if not link and slow > 1:
        return n - 1 + 1 / slow if algorithm == "adpsgd" else n / slow
    if algorithm == "allreduce":
        pieces = (n - 1) / n / models
        return n / max(1 + pieces * (slow + 1), 2 * pieces * slow)
    if algorithm.startswith("dsgd"):
        sends = (1 + slow) / models
        return n / (1 + sends if algorithm == "dsgd:after" else max(1, sends))
    if link:
        return n - 2 + 2 / (1 / 2 + max(1, 2 * slow / models) / 2)
    return n / max(1, 2 / models)


def _said(values: Sequence[float]) -> str:
    """Their median, with the smallest and the largest where these differ."""
    middle, low, high = (f"{value:.3g}" for value in (median(values), min(values), max(values)))
    return middle if low == high else f"{middle} [{low} to {high}]"


def slowed_worker(evidence: Evidence) -> list[Finding]:
    """One worker s times slower."""
    made = []
    for name in evidence.values("algorithm"):
        holds, words = list[bool](), list[str]()
        for slow, found in sorted(_by(evidence.where(algorithm=name), "slowdown")):
            value = predicted(name, WORKERS, slow, FAST)
            holds.append(abs(median(found) - value) <= WITHIN * value)
            words.append(f"{slow:g} times: {_said(found)}, predicted {value:.3g}")
        made.append(Finding(verdict(holds), "; ".join(words), name))
    return made


def slowed_link(evidence: Evidence) -> list[Finding]:
    """How much throughput stays where one link is slower."""
    made = []
    for name in evidence.values("algorithm"):
        found = {_times(value): some for value, some in _by(evidence.where(algorithm=name), "bandwidth")}
        words = "; ".join(
            f"{slow:g} times: {_said(some)}, predicted {predicted(name, WORKERS, slow, FAST, True):.3g}"
            for slow, some in found.items()
        )
        middles = [median(some) for some in found.values()]
        stays = min(middles) >= STAYS * max(middles)
        made.append(Finding(verdict([stays == (name == "adpsgd")]), words, name))
    return made


def _by(evidence: Evidence, setting: str) -> list[tuple[Any, list[float]]]:
    """The throughputs at each value of a setting."""
    return [(value, rates(evidence.where(**{setting: value}))) for value in evidence.values(setting)]


def _times(bandwidth: object) -> float:
    """How many times slower the link is, by the name of its file."""
    return float(str(bandwidth).rpartition("-")[2].removesuffix(".csv"))


def shared_network(evidence: Evidence) -> list[Finding]:
    """How many times as fast as each other one AD-PSGD applies gradients, the slower the network."""
    made = []
    for rival in (name for name in evidence.values("algorithm") if name != "adpsgd"):
        words, middles = list[str](), list[float]()
        for takes in evidence.values("communication"):
            here = evidence.where(communication=takes)
            ours, theirs = (rates(here.where(algorithm=name)) for name in ("adpsgd", rival))
            if not ours or len(ours) != len(theirs):
                continue
            ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
            mean = _mean(takes)
            one, other = (predicted(name, WORKERS, 1, 1 / mean) for name in ("adpsgd", rival))
            middles.append(median(ratios))
            words.append(
                f"{mean:g}: {_said(ours)} and {_said(theirs)}, ratio {_said(ratios)}, predicted {one:.3g} "
                f"and {other:.3g}, ratio {one / other:.3g}"
            )
        holds = [any(4 <= ratio <= 8 for ratio in middles)] * bool(middles)
        said = f"where a model takes {'; '.join(words)}" if words else ""
        made.append(Finding(verdict(holds), said, f"over {rival}"))
    return made


def _mean(takes: str) -> float:
    """Of 'constant mean 0.1' how long that is; 'constant' is 1."""
    return float(takes.rpartition("mean")[2]) if "mean" in takes else 1.0


def linear(evidence: Evidence) -> list[Finding]:
    """Throughput over the number of workers, as a multiple of that of the fewest."""
    made = []
    for name in evidence.values("algorithm"):
        found = {n: median(some) for n, some in sorted(_by(evidence.where(algorithm=name), "agents"))}
        fewest = min(found)
        shares = {n: rate / found[fewest] * fewest / n for n, rate in found.items()}
        words = "; ".join(
            f"{n}: {found[n]:.3g}, predicted {predicted(name, n, 1, FAST):.3g}, {100 * share:.0f} % of linear"
            for n, share in shares.items()
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
    (Claim("B1", "AD-PSGD does not wait for one slow worker; the synchronous ones are as slow as it (no "
           "numbers were to be had: within 10 % of its prediction a throughput is confirmed)",
           slowed_worker, MOVING),),
    (Picture("accuracy", "Test accuracy of the average model over time.", "accuracy", by="slowdown"),),
)  # fmt: skip

SLOW_LINK = Part(
    "slow-link", f"{TITLE}: one link slowed",
    (ABOUT, "The link between workers 0 and 1 is 1, 2, 10 and 100 times slower than the others."),
    [{"fixed": {**WORLD, "bandwidth": None, "sending": "unicast"},
      "grid": {"bandwidth": [f"file:{{folder}}/{name}" for name in LINKS],
               "algorithm": [*METHODS, "dsgd:after"], "seed": [0, 1, 2]}}],
    SMALL,
    (Claim("B2", "a slow link costs AD-PSGD little and the synchronous ones much (no numbers were to be had)",
           slowed_link,
           f"{MOVING}, both forms of DSGD are shown; and how much of a gradient's time a model takes"),),
    files=LINKS,
)  # fmt: skip

SHARED = Part(
    "shared-network", f"{TITLE}: a shared network",
    (ABOUT, "Here the network is shared: what is sent at the same time goes at max-min fair rates, and a "
     "model takes 0.01 to 1 of the time of a gradient where it has its sender and its receiver for itself. "
     "What is predicted of AD-PSGD is a bound: as if no answer ever waited for another transmission."),
    [{"fixed": {**WORLD, "bandwidth": None, "communication": None, "network": "fair"},
      "grid": {"communication": [f"constant mean {mean}" for mean in (0.01, 0.1, 0.25, 0.5, 1.0)],
               "algorithm": METHODS, "seed": [0, 1, 2]}}],
    SMALL,
    (Claim("B3", "an epoch is 4 to 8 times as fast as with synchronous training in a shared network",
           shared_network, "how slow the network is against a gradient, each is shown; and whether others "
           "use it, too: here nobody does"),),
)  # fmt: skip

SCALING = Part(
    "scaling", f"{TITLE}: more workers",
    ("Timing only: gradients of logistic regression on digits stand for those of any network, and a model "
     "takes 0.01 of the time of one to send. Delays are constant. Measured are gradients applied in a unit "
     "of time, in the second half of a run, beside predictions that are derived here from these times.",),
    [{"fixed": {"task": "digits", "partition": "iid", "batch": 1, "topology": "ring", "until": 100,
                "eval_every": 10, "lr": 0.01, "compute": "constant", "communication": "constant", "seed": 0},
      "grid": {"bandwidth": [FAST], "agents": [4, 8, 16, 32, 64, 128], "algorithm": METHODS}}],
    {"grid": {"agents": [4, 16, 64]}},
    (Claim("B4", "linear speed-up", linear, "of throughput; what more gradients help is the task's"),),
)  # fmt: skip

ADPSGD = Paper(
    "adpsgd", TITLE, {part.name: part for part in (SLOW_WORKER, SLOW_LINK, SHARED, SCALING)}
)  # fmt: skip
