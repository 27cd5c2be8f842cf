"""Rows of those that wait for all others."""

from offbeat.algorithms.allreduce import AllReduceSGD
from offbeat.algorithms.amelie import Amelie
from offbeat.algorithms.diloco import DiLoCo
from offbeat.algorithms.row import LOCAL, Algorithm, Option

ROWS = (
    Algorithm(
        "allreduce", AllReduceSGD(), "Parallel SGD, ring all-reduce",
        "textbook; a baseline of arXiv:2505.10322", waits_for="everybody",
        needs="nothing: its ring is 0..n-1 on any topology", tolerates=frozenset({"loss"}),
        vectors=(4.0, 0.0), keeps=(2, 0), sends="2 (n - 1) times 1/n of a model to the next on the ring",
        note="stands still when an agent is lost, and does not take one back: a ring with a hole has no "
        "sum",
        options={"local_steps": LOCAL},
        bound="lr < 2 / L, exact gradients (textbook)",
    ),
    Algorithm(
        "amelie", Amelie(), "Amelie SGD, along a spanning tree", "arXiv:2405.16218",
        waits_for="everybody, once for each step, and takes gradients meanwhile",
        needs="an undirected connected graph; its pivot is the hub of a star, else agent 0",
        graph="undirected", tolerates=frozenset({"loss"}), vectors=(5.0, 1.0),
        sends="numbers at every gradient; once a step a sum to the one above it, a model to those below",
        bound="lr <= 1 / (2 L), to an error eps with batch max(sigma^2 / eps, n) / n (Theorem 8)",
        note="stands still when an agent is lost, and does not take one back; an agent keeps 4 vectors, "
        "and one for each that is below it",
        unscripted="the pivot makes a step when all sums are here, also while its script computes one",
        options={
            "batch": Option("", "waits until the harmonic mean of the agents' gradients is {}", low=1)
        },
        no_local="all its gradients are at one model; amelie:batch=4 takes about 4 of each for a step",
    ),
    Algorithm(
        "diloco", DiLoCo(), "Distributed low-communication training", "arXiv:2311.08105", local="h",
        waits_for="everybody, at each h-th gradient",
        needs="nothing: its ring is 0..n-1 on any topology", tolerates=frozenset({"loss"}),
        vectors=(6.0, 0.0), keeps=(5, 0),
        sends="at each h-th gradient 2 (n - 1) times 1/n of a model to the next on the ring",
        note="stands still when an agent is lost, and does not take one back, as allreduce",
        options={
            "h": Option("", "takes {} steps of its own between two averagings", low=1),
            "outer_lr": Option("", "steps {} times as far as all went on average", low=0, above=True),
            "outer_momentum": Option("", "keeps {} of the outer momentum", low=0, high=0.999),
        },
    ),
)  # fmt: skip
