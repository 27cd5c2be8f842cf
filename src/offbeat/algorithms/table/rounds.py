"""Rows of those that go by rounds, with a barrier among neighbours."""

from offbeat.algorithms.d2 import D2
from offbeat.algorithms.dpsgd import DPSGD
from offbeat.algorithms.dsgd import DSGD
from offbeat.algorithms.dsgt import DSGT
from offbeat.algorithms.osgp import OSGP
from offbeat.algorithms.qg_dsgdm import QGDSGDm
from offbeat.algorithms.row import LOCAL, TRACKS, Algorithm, Option
from offbeat.algorithms.sgp import SGP

ROWS = (
    Algorithm(
        "dsgd", DSGD(), "Decentralized SGD", "arXiv:1705.09056",
        waits_for="all neighbours of the same round",
        needs="an undirected connected graph, symmetric weights", graph="symmetric",
        note="mail is never lost", vectors=(2.0, 0.5), keeps=(2, 1),
        sends="its model to all neighbours, once a round",
        options={
            "after": Option("sends its model while it computes", "computes, then sends its model"),
            "local_steps": LOCAL,
        },
        bound="lr < (1 + lambda_n) / L, exact gradients (derived here)",
    ),
    Algorithm(
        "dpsgd", DPSGD(), "Decentralized parallel SGD, adapt then combine",
        "arXiv:1705.09056, in the other order",
        waits_for="all neighbours of the same round",
        needs="an undirected connected graph, symmetric weights", graph="symmetric",
        note="mail is never lost", vectors=(2.0, 1.0), keeps=(2, 1),
        sends="its stepped model to all neighbours, once a round", options={"local_steps": LOCAL},
        bound="quadratics: lr h_i < 2 (derived here)",
    ),
    Algorithm(
        "dsgt", DSGT(), "Decentralized stochastic gradient tracking", "arXiv:1805.11454",
        waits_for="all neighbours of the same round",
        needs="an undirected connected graph, symmetric weights", graph="symmetric",
        tolerates=frozenset({"loss", "crash"}),
        note="goes on without who is lost, whose last gradient stays in what is tracked; takes nobody "
        "back, who would be in it twice",
        vectors=(4.0, 2.0), keeps=(4, 2),
        sends="its stepped model and its tracker to all neighbours, once a round",
        no_local=TRACKS,
    ),
    Algorithm(
        "d2", D2(), "D2, decentralized training over decentralized data", "arXiv:1803.07068",
        waits_for="all neighbours of the same round",
        needs="an undirected connected graph, symmetric weights without eigenvalues below -1/3",
        graph="symmetric", smallest=-1 / 3, tolerates=frozenset({"loss", "crash"}),
        note="goes on without who is lost, whose last gradient stays in the corrections; takes nobody "
        "back, who would be in them twice",
        vectors=(4.0, 1.0), keeps=(4, 1),
        sends="its stepped and corrected model to all neighbours, once a round",
        options={
            "theta": Option("", "mixes with (1 - {0}) I + {0} W", low=0, high=1, above=True),
        },
        no_local="what it corrects a step by is the gradient before it, at the model that was mixed",
    ),
    Algorithm(
        "qg-dsgdm", QGDSGDm(), "Decentralized SGD with quasi-global momentum", "arXiv:2102.04761",
        waits_for="all neighbours of the same round",
        needs="an undirected connected graph, symmetric weights", graph="symmetric",
        note="mail is never lost; with its momentum a step is 1 / (1 - beta) times as long in the end",
        vectors=(3.0, 1.0), keeps=(3, 1), sends="its stepped model to all neighbours, once a round",
        options={"beta": Option("", "has momentum {}", low=0, high=0.99)},
        no_local="its momentum is made of how far one step and one mixing go",
    ),
    Algorithm(
        "sgp", SGP(), "Stochastic gradient push", "arXiv:1811.10792",
        waits_for="all who give to it, in the same round",
        needs="a strongly connected graph, column-stochastic weights",
        note="mail is never lost; what an agent holds is lost with it, sum and weight alike",
        vectors=(3.0, 1.0), keeps=(3, 1),
        sends="shares of its sum and of its weight, once a round: equal ones in one transmission",
        options={"local_steps": LOCAL},
    ),
    Algorithm(
        "osgp", OSGP(), "Overlap stochastic gradient push", "arXiv:1811.10792",
        waits_for="what has not come tau gradients after it was sent",
        needs="a strongly connected graph, column-stochastic weights",
        note="mail is never lost; what an agent holds is lost with it, sum and weight alike",
        vectors=(3.0, 1.0), keeps=(4, 1),
        sends="shares of its sum and of its weight, every tau gradients, while it computes",
        options={"tau": Option("", "exchanges every {} gradients", low=1)}, local="tau",
    ),
)  # fmt: skip
