"""The logistic regression of arXiv:2505.10322 where messages take what was measured."""

from collections.abc import Callable
from dataclasses import replace

from offbeat.experiments.reproduction.adsgd_claims import RFAST, over_asynchronous, savings
from offbeat.experiments.reproduction.evidence import Evidence
from offbeat.experiments.reproduction.part import MEASURED, Claim, Part, Picture
from offbeat.results.reproduction import Finding

MEANS = 0.3, 1, 3  # of what a message takes on average, in times of a gradient
NODES = "0,20,90,150\n20,0,80,140\n90,80,0,200\n150,140,200,0\n"  # round-trip times, for a quick run


def _each(evidence: Evidence, asked: Callable[[Evidence, str], list[Finding]]) -> list[Finding]:
    """Of the runs of each latency, and what that is called."""
    return [
        finding
        for latency in evidence.values("latency")
        for finding in asked(
            evidence.where(latency=latency), f"latencies {latency.rpartition(' ')[2]} on average"
        )
    ]


def sooner_than_asynchronous(evidence: Evidence) -> list[Finding]:
    def asked(here: Evidence, mean: str) -> list[Finding]:
        return [replace(each, reading=f"{mean}, {each.reading}") for each in over_asynchronous(here, 0.5)]

    return _each(evidence, asked)


def sooner_than_synchronous(evidence: Evidence) -> list[Finding]:
    return _each(evidence, lambda here, mean: [replace(savings(here, ["dsgd"], 0.28, 0.75), reading=mean)])


INTERNET = Part(
    "internet", "ADSGD, arXiv:2505.10322: logistic regression between measured machines",
    (
        "Multi-class logistic regression on MNIST, all data sorted by label, nine agents in a 3x3 grid, as "
        "in part 'lr'; but a message takes half of the round-trip time that was measured between two "
        "machines, and nothing else. Which machines the agents are is drawn for each seed; the times are "
        "scaled so that their mean is 0.3, 1 or 3 times that of a gradient.",
        "The paper has no such world: its claims A4 and A7 are asked here of ours. Less than 0 % is saved "
        "where ADSGD takes longer: at -100 % twice as long.",
    ),
    [{
        "fixed": {"task": "mnist", "agents": 9, "topology": "grid", "target": 0.89, "lr": 0.01, "skew": 1.0,
                  "until": 40000, "eval_every": 200, "stop_at": "target", "communication": "constant",
                  "bandwidth": 1e6},
        "grid": {"latency": [f"rtt:{MEASURED} mean {mean}" for mean in MEANS],
                 "case": ["base", "comp-straggler"],
                 "algorithm": ["adsgd", "adpsgd", "rfast", "rfast:matched", "dsgd"], "seed": [0, 1, 2, 3, 4]},
    }],
    {"fixed": {"task": "digits", "target": 0.9, "until": 6000, "seed": 0, "eval_every": 100, "agents": 4},
     "grid": {"latency": [f"rtt:{{folder}}/internet.csv mean {mean}" for mean in MEANS],
              "case": ["comp-straggler"], "algorithm": ["adsgd", "rfast", "dsgd"]}},
    (
        Claim("A4", "ADSGD is at 89 % at least 50 % sooner than the other asynchronous ones",
              sooner_than_asynchronous, f"how long messages take, each is shown; {RFAST}"),
        Claim("A7", "ADSGD saves 28 % to 75 % of DSGD's time", sooner_than_synchronous,
              "how long messages take: each is shown"),
    ),
    (Picture("time", "Time to the target over how long messages take.", "time_to_target", x="latency",
             by="case"),),
    {"internet.csv": NODES},
)  # fmt: skip
