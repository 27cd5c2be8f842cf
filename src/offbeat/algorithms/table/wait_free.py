"""Rows of those that wait for nobody: what has come by the time when a gradient is done enters then."""

from offbeat.algorithms.adsgd import ADSGD
from offbeat.algorithms.adsgd_memory import MemoryEfficientADSGD
from offbeat.algorithms.asbcd import ASBCD
from offbeat.algorithms.dgd_atc import DGDATC
from offbeat.algorithms.kungurtsev import Kungurtsev
from offbeat.algorithms.prox_dgd import ProxDGD
from offbeat.algorithms.rasgp import RASGP
from offbeat.algorithms.rfast import RFAST
from offbeat.algorithms.row import LOCAL, TRACKS, Algorithm, Option
from offbeat.algorithms.swift import SWIFT

THETA = Option("", "makes steps of {} lr with weights as much nearer to I", low=0, high=1, above=True)

ROWS = (
    Algorithm(
        "adsgd", ADSGD(), "Asynchronous decentralized SGD, Algorithm 2", "arXiv:2505.10322",
        needs="an undirected connected graph, symmetric weights", graph="symmetric", vectors=(2.5, 0.0),
        keeps=(2, 1), sends="its model to all neighbours, after every gradient",
        bound="quadratics: lr h_i < 2 w_ii, whatever the delays (derived here)",
        options={"theta": THETA, "local_steps": LOCAL},
    ),
    Algorithm(
        "adsgd:memory-efficient", MemoryEfficientADSGD(), "Asynchronous decentralized SGD, Algorithm 3",
        "arXiv:2505.10322", needs="an undirected connected graph, symmetric weights", graph="symmetric",
        note="mail is never lost; when a neighbour is lost, the others are asked for whole models",
        vectors=(4.0, 0.0), keeps=(4, 0), sends="the change of its model to all neighbours, as mail",
        bound="quadratics: as adsgd",
        options={
            "theta": THETA,
            "local_steps": LOCAL,
        },
    ),
    Algorithm(
        "asbcd", ASBCD(), "Asynchronous stochastic block coordinate descent, Algorithm 1",
        "arXiv:2505.10322",
        needs="nothing: everybody hears everybody on any topology",
        note="minimises the objective only if all agents hold the same data", vectors=(4.0, 0.0),
        keeps=(3, 0), sends="its block, 1/n of a model, to everybody, after every gradient",
        bound="lr < 2 / ((2 D + 1) L), D the delay in updates (derived here)",
        no_local="all work on one model, of which each step is given away",
    ),
    Algorithm(
        "swift", SWIFT(), "Shared wait-free transmission", "arXiv:2210.14026",
        needs="an undirected connected graph, symmetric weights", graph="symmetric", vectors=(2.5, 0.0),
        keeps=(3, 1), sends="its model of before the step to all neighbours, at every gradient",
        options={"every": Option("", "mixes once in {} gradients", low=1)},
        no_local="it gives its model away at every gradient; swift:every=4 mixes once in 4",
        bound="quadratics: as adsgd",
    ),
    Algorithm(
        "dgd-atc", DGDATC(), "Asynchronous decentralized gradient descent, adapt then combine",
        "arXiv:2312.06508", needs="an undirected connected graph, symmetric weights", graph="symmetric",
        vectors=(3.0, 0.5), keeps=(3, 1), sends="its stepped model to all neighbours, at every gradient",
        options={"local_steps": LOCAL},
        bound="quadratics: lr h_i < 2, whatever the delays (derived here)",
    ),
    Algorithm(
        "prox-dgd", ProxDGD(), "Asynchronous proximal decentralized gradient descent", "arXiv:2312.06508",
        needs="an undirected connected graph, symmetric weights", graph="symmetric", vectors=(2.5, 0.5),
        keeps=(2, 1), sends="its model to all neighbours, after every gradient",
        options={
            "l1": Option(
                "", "adds {} sum |x|, by its proximal step", low=0,
                unscripted="its proximal step is as long as the learning rate, which a script's "
                "optimizer does not tell",
            ),
            "local_steps": LOCAL,
        },
        bound="quadratics: as adsgd",
    ),
    Algorithm(
        "rfast", RFAST(), "Robust fully asynchronous gradient tracking", "arXiv:2307.11617",
        needs="a strongly connected graph, row- and column-stochastic weights",
        note="its default learning rate is n times --lr, our choice: a model is moved by a share of the "
        "tracked gradient only",
        scale_lr_by_n=True, vectors=(4.0, 4.0), keeps=(5, 4),
        sends="its model to all neighbours, and to each another sum of tracked gradients",
        no_local=TRACKS,
        options={"matched": Option(
            "", "makes steps of lr (2 - w_ii) / a_ii, by which the average model goes as far as that of SGD "
            "with lr, if what is mixed is one round old; its default learning rate is that of the others",
            plain_lr=True,
        )},
        bound="rates that shrink exponentially in B, D and n (recalled, constants uncertain)",
    ),
    Algorithm(
        "kungurtsev", Kungurtsev(), "Asynchronous stochastic gradient tracking with one running sum",
        "arXiv:2110.10406", tolerates=frozenset({"loss", "crash"}),
        needs="a strongly connected graph, row-stochastic weights; its shares are 1 / (out-degree + 1)",
        note="goes on without who is lost; takes nobody back, for whom the running sum would have to "
        "begin anew; its default learning rate is n times --lr, as that of rfast",
        scale_lr_by_n=True, vectors=(5.0, 3.0), keeps=(6, 3),
        sends="two models at once to all out-neighbours, at every gradient: its own, and a running sum",
        no_local=TRACKS,
        bound="rates that shrink exponentially in B, D and n (recalled, constants uncertain)",
    ),
    Algorithm(
        "rasgp", RASGP(), "Robust asynchronous stochastic gradient-push", "arXiv:1811.03982",
        needs="a strongly connected graph; weights are its own, 1 / (out-degree + 1)",
        note="what a lost agent holds is lost with it", vectors=(4.0, 2.0), keeps=(4, 2),
        sends="a running sum to all out-neighbours, at every gradient",
        no_local="its running sums go by how many gradients each agent has taken",
    ),
)  # fmt: skip
