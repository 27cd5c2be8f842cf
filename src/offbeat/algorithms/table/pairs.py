"""Rows of those that wait for one other agent, drawn at random."""

from offbeat.algorithms.a2cid2 import A2CiD2
from offbeat.algorithms.adpsgd import ADPSGD
from offbeat.algorithms.noloco import NoLoCo
from offbeat.algorithms.row import LOCAL, Algorithm, Option

ROWS = (
    Algorithm(
        "adpsgd", ADPSGD(), "Asynchronous decentralized parallel SGD", "arXiv:1710.06952",
        waits_for="the answer of one random neighbour",
        needs="an undirected connected graph; with :atomic a bipartite one", graph="undirected",
        note="biased towards the data of fast agents", vectors=(2.5, 0.0),
        keeps=(3, 0), sends="its model to one random neighbour, which sends a difference back",
        options={
            "wait": Option(
                "averages while it computes", "computes, then averages and waits for the answer"
            ),
            "atomic": Option("", "asks on one side of the graph only, so that every averaging is atomic"),
            "local_steps": LOCAL,
        },
        bound="C_1 > 0, C_2 >= 0, C_3 <= 1 of its paper (recalled, constants uncertain)",
    ),
    Algorithm(
        "a2cid2", A2CiD2(), "Pairwise averaging with a continuous momentum", "arXiv:2306.08289",
        waits_for="the answer of one random neighbour", graph="undirected",
        needs="an undirected connected graph",
        note="biased towards the data of fast agents; eta and alpha follow from the graph's spectrum if "
        "they are not said", vectors=(4.0, 0.0), keeps=(4, 0),
        sends="as adpsgd",
        options={
            "eta": Option("", "mixes its two models at the rate {}", low=0, example=0.1),
            "alpha": Option(
                "", "moves its second model by {} of what parts it from another", low=0, example=1
            ),
        },
        no_local="its rates eta and alpha follow from one averaging at each gradient",
    ),
    Algorithm(
        "noloco", NoLoCo(), "Low-communication training in random pairs", "arXiv:2506.10911", local="h",
        waits_for="one random agent, at each h-th gradient",
        needs="nothing: pairs are drawn among all, on any topology", tolerates=frozenset({"loss"}),
        vectors=(6.0, 0.0), keeps=(5, 0),
        sends="at each h-th gradient two models to one random agent: phi, and what was added to it",
        note="stands still when an agent is lost, which cannot be told to all who are paired with it",
        options={
            "h": Option("", "takes {} steps of its own between two exchanges", low=1),
            "outer_lr": Option("", "steps {} times as far as its pair went", low=0, above=True),
            "outer_momentum": Option("", "keeps {} of the outer momentum", low=0, high=0.999),
        },
    ),
)  # fmt: skip
