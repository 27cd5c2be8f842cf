"""The table: one row for each algorithm."""

from dataclasses import replace

from offbeat.algorithms.a2cid2 import A2CiD2
from offbeat.algorithms.adpsgd import ADPSGD
from offbeat.algorithms.adsgd import ADSGD
from offbeat.algorithms.adsgd_memory import MemoryEfficientADSGD
from offbeat.algorithms.allreduce import AllReduceSGD
from offbeat.algorithms.amelie import Amelie
from offbeat.algorithms.apsgd import APSGD
from offbeat.algorithms.asbcd import ASBCD
from offbeat.algorithms.d2 import D2
from offbeat.algorithms.dgd_atc import DGDATC
from offbeat.algorithms.diloco import DiLoCo
from offbeat.algorithms.dpsgd import DPSGD
from offbeat.algorithms.dsgd import DSGD
from offbeat.algorithms.dsgt import DSGT
from offbeat.algorithms.easgd import EASGD
from offbeat.algorithms.kungurtsev import Kungurtsev
from offbeat.algorithms.noloco import NoLoCo
from offbeat.algorithms.osgp import OSGP
from offbeat.algorithms.prox_dgd import ProxDGD
from offbeat.algorithms.qg_dsgdm import QGDSGDm
from offbeat.algorithms.rasgp import RASGP
from offbeat.algorithms.rfast import RFAST
from offbeat.algorithms.ringleader import Ringleader
from offbeat.algorithms.ringmaster import Ringmaster
from offbeat.algorithms.row import WORKER, Algorithm, Option
from offbeat.algorithms.sgp import SGP
from offbeat.algorithms.spsgd import SPSGD
from offbeat.algorithms.swift import SWIFT

THETA = Option("", "makes steps of {} lr with weights as much nearer to I", low=0, high=1, above=True)

SERVER = "nothing: its server is the hub of the graph, or agent 0 where there is none"
SERVED, WAITED_FOR = frozenset({"loss", "return", WORKER}), frozenset({"loss", "return"})
STANDS = "mail is never lost; all stand still while the server is lost"
AT_ANY_TIME = "the server makes a step whenever a gradient comes, also while its own script computes one"
TRACKS = "what it tracks are the gradients at the models that were mixed, each of which counts once"
SINGLE = "its server steps along each gradient, or along the mean of them"
LOCAL = Option("", "makes {} steps for each exchange", low=1)

ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        Algorithm(
            "adsgd", ADSGD(), "Asynchronous decentralized SGD, Algorithm 2", "arXiv:2505.10322",
            needs="an undirected connected graph, symmetric weights", graph="symmetric", vectors=(2.5, 0.0),
            keeps=(2, 1), sends="its model to all neighbours, after every gradient", free_running=True,
            bound="quadratics: lr h_i < 2 w_ii, whatever the delays (derived here)",
            options={"theta": THETA, "local_steps": LOCAL},
        ),
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
            "rfast", RFAST(), "Robust fully asynchronous gradient tracking", "arXiv:2307.11617",
            needs="a strongly connected graph, row- and column-stochastic weights",
            note="its default learning rate is n times --lr, our choice: a model is moved by a share of the "
            "tracked gradient only",
            scale_lr_by_n=True, vectors=(4.0, 4.0), keeps=(5, 4),
            sends="its model to all neighbours, and to each another sum of tracked gradients",
            no_local=TRACKS,
            bound="rates that shrink exponentially in B, D and n (recalled, constants uncertain)",
        ),
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
            "adsgd:memory-efficient", MemoryEfficientADSGD(), "Asynchronous decentralized SGD, Algorithm 3",
            "arXiv:2505.10322", needs="an undirected connected graph, symmetric weights", graph="symmetric",
            note="mail is never lost; when a neighbour is lost, the others are asked for whole models",
            vectors=(4.0, 0.0), keeps=(4, 0), sends="the change of its model to all neighbours, as mail",
            bound="quadratics: as adsgd", free_running=True,
            options={
                "theta": THETA,
                "local_steps": replace(LOCAL, bends="it keeps what it has not given away yet"),
            },
        ),
        Algorithm(
            "asbcd", ASBCD(), "Asynchronous stochastic block coordinate descent, Algorithm 1",
            "arXiv:2505.10322",
            needs="nothing: everybody hears everybody on any topology",
            note="minimises the objective only if all agents hold the same data", vectors=(4.0, 0.0),
            keeps=(3, 0), sends="its block, 1/n of a model, to everybody, after every gradient",
            by_event="it gives pieces of its model, to agents that are no neighbours",
            bound="lr < 2 / ((2 D + 1) L), D the delay in updates (derived here)",
            no_local="all work on one model, of which each step is given away",
        ),
        Algorithm(
            "swift", SWIFT(), "Shared wait-free transmission", "arXiv:2210.14026",
            needs="an undirected connected graph, symmetric weights", graph="symmetric", vectors=(2.5, 0.0),
            keeps=(3, 1), sends="its model of before the step to all neighbours, at every gradient",
            free_running=True,
            options={"every": Option("", "mixes once in {} gradients", low=1)},
            no_local="it gives its model away at every gradient; swift:every=4 mixes once in 4",
            bound="quadratics: as adsgd",
        ),
        Algorithm(
            "dgd-atc", DGDATC(), "Asynchronous decentralized gradient descent, adapt then combine",
            "arXiv:2312.06508", needs="an undirected connected graph, symmetric weights", graph="symmetric",
            vectors=(3.0, 0.5), keeps=(3, 1), sends="its stepped model to all neighbours, at every gradient",
            free_running=True,
            options={"local_steps": LOCAL},
            bound="quadratics: lr h_i < 2, whatever the delays (derived here)",
        ),
        Algorithm(
            "prox-dgd", ProxDGD(), "Asynchronous proximal decentralized gradient descent", "arXiv:2312.06508",
            needs="an undirected connected graph, symmetric weights", graph="symmetric", vectors=(2.5, 0.5),
            keeps=(2, 1), sends="its model to all neighbours, after every gradient", free_running=True,
            options={
                "l1": Option(
                    "", "adds {} sum |x|, by its proximal step", low=0,
                    bends="what its proximal step makes is no linear form",
                    unscripted="its proximal step is as long as the learning rate, which a script's "
                    "optimizer does not tell",
                ),
                "local_steps": LOCAL,
            },
            bound="quadratics: as adsgd",
        ),
        Algorithm(
            "apsgd", APSGD(), "Asynchronous SGD at a parameter server", "arXiv:1506.08272",
            waits_for="the server's answer", needs=SERVER, tolerates=SERVED,
            note=f"biased towards the data of fast agents; {STANDS}", vectors=(3.0, 0.0), keeps=(3, 0),
            sends="its gradient to the server, which sends its model back", unscripted=AT_ANY_TIME,
            no_local=SINGLE,
            bound="L lr + 2 (L T lr)^2 <= 1, T the delay in updates (recalled)",
        ),
        Algorithm(
            "spsgd", SPSGD(), "Synchronous SGD at a parameter server",
            "textbook; a baseline of arXiv:1710.06952", waits_for="everybody", needs=SERVER,
            tolerates=WAITED_FOR,
            note="mail is never lost; stands still while an agent is lost; a worker keeps 2 vectors, the "
            "server n and 1 more at most",
            vectors=(4.0, 0.0), bound="lr < 2 / L (textbook)",
            sends="its gradient to the server, which sends its model to all",
            no_local=SINGLE,
        ),
        Algorithm(
            "rasgp", RASGP(), "Robust asynchronous stochastic gradient-push", "arXiv:1811.03982",
            needs="a strongly connected graph; weights are its own, 1 / (out-degree + 1)",
            note="what a lost agent holds is lost with it", vectors=(4.0, 2.0), keeps=(4, 2),
            by_event="how far it steps, and what it pushes, goes by numbers that it hears",
            sends="a running sum to all out-neighbours, at every gradient",
            no_local="its running sums go by how many gradients each agent has taken",
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
            "easgd", EASGD(), "Elastic averaging SGD, asynchronous", "arXiv:1412.6651", local="every",
            waits_for="the server's answer", needs=SERVER, tolerates=SERVED,
            note=f"biased towards the data of fast agents; {STANDS}", vectors=(4.0, 0.0), keeps=(4, 0),
            sends="its model to the server, which sends a difference back",
            options={
                "beta": Option("", "and the centre move by {}/n of the way between them", low=0, above=True),
                "every": Option("", "meets the centre once in {} gradients", low=1),
                "momentum": Option("", "has a momentum of {}, as EAMSGD", low=0, high=0.999),
            },
        ),
        Algorithm(
            "ringmaster", Ringmaster(), "Asynchronous SGD without gradients that are late",
            "arXiv:2501.16168", waits_for="the server's answer", needs=SERVER, tolerates=SERVED,
            note=f"biased towards the data of fast agents; {STANDS}", vectors=(3.0, 0.0), keeps=(3, 0),
            sends="its gradient to the server, which sends its model back", unscripted=AT_ANY_TIME,
            options={"r": Option("", "has its gradient ignored when it is {} steps late", low=1)},
            no_local=SINGLE,
        ),
        Algorithm(
            "ringleader", Ringleader(), "Asynchronous SGD along a table of gradients", "arXiv:2509.22860",
            waits_for="the server's answer, which waits for everybody once a round", needs=SERVER,
            tolerates=WAITED_FOR,
            note="mail is never lost; stands still while an agent is lost; a worker keeps 2 vectors, the "
            "server 2 n and 3 more at most",
            vectors=(5.0, 0.0),
            sends="its gradient to the server, which sends one agent the model at every step",
            unscripted=AT_ANY_TIME,
            no_local=SINGLE,
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
    )
}  # fmt: skip

USUAL = ("adsgd", "adpsgd", "rfast", "dsgd", "allreduce")
"""What is compared if nothing says which: those of the evaluation of arXiv:2505.10322."""
