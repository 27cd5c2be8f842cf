"""Rows of those that wait for a server, to which all gradients or models go."""

from offbeat.algorithms.apsgd import APSGD
from offbeat.algorithms.easgd import EASGD
from offbeat.algorithms.ringleader import Ringleader
from offbeat.algorithms.ringmaster import Ringmaster
from offbeat.algorithms.row import WORKER, Algorithm, Option
from offbeat.algorithms.spsgd import SPSGD

SERVER = "nothing: its server is the hub of the graph, or agent 0 where there is none"
STANDS = "mail is never lost; all stand still while the server is lost"
AT_ANY_TIME = "the server makes a step whenever a gradient comes, also while its own script computes one"
SINGLE = "its server steps along each gradient, or along the mean of them"
SERVED, WAITED_FOR = frozenset({"loss", "return", WORKER}), frozenset({"loss", "return"})

ROWS = (
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
)  # fmt: skip
