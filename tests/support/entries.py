"""What is expected of every row of the table of algorithms, by tests/algorithms/test_every_row.py."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from under_way import pushed_mass, shared_weights, tracked_mass

from offbeat.engines.sim.simulator import Simulator

Sum = Callable[[Simulator], tuple[np.ndarray, np.ndarray]]
"""What is conserved: the two sides of an equation, at any instant."""


@dataclass(frozen=True)
class Entry:
    """What is expected of an algorithm, or of a form of it. Limits are looked at on a ring of four.

    Attributes:
        lr: with which it is held to its limit (`offbeat.theory.limit`)
        until: by when it is there
        near: how near all models are then; of an expectation: the mean over three times as long again
            a text: why no limit is known
        expected: whether the limit is an expectation
        alone: one agent alone is SGD with this multiple of the learning rate; or why it is not
        rounded: whether that holds up to rounding only, and not to the bit
        conserved: its conservation law, or why it has none
    """

    lr: float
    until: float
    conserved: Sum | str
    near: float | str = 1e-9
    expected: bool = False
    alone: float | str = 1.0
    rounded: bool = False


ROWS_ONLY = "the rows of W sum to 1, and what an agent mixes is as old as its links make it: the mean moves"

LOCAL = "steps between two mixings take every model towards its own minimiser, the more the faster it is"
OUTER = "its steps are those of its outer optimizer"

OTHER_OBJECTIVE = "it has another objective"

ROUND_BY_ROUND = "agents are in different rounds: test_rounds"

DELAYED = "what has come by each of its gradients depends on delays"

OWN_MOMENTUM = "it has a momentum of its own"
CENTRE = "the centre holds it back"

IN_FLIGHT = "displacements in flight: test_server"

ENTRIES: dict[str, Entry] = {
    "adsgd": Entry(0.3, 300, ROWS_ONLY),
    "adsgd:theta=0.5": Entry(0.3, 450, ROWS_ONLY, alone=0.5),
    "adsgd:local_steps=3": Entry(0.3, 300, ROWS_ONLY, near=LOCAL),
    "adpsgd": Entry(0.02, 800, "displacements in flight: test_conservation", near=0.02, expected=True),
    "adpsgd:wait": Entry(0.02, 800, "as adpsgd", near=0.02, expected=True),
    "adpsgd:atomic": Entry(0.02, 800, "as adpsgd", near=0.02, expected=True),
    "adpsgd:atomic+wait": Entry(0.02, 800, "as adpsgd", near=0.02, expected=True),
    "adpsgd:local_steps=3": Entry(0.02, 800, "as adpsgd", near=LOCAL),
    "rfast": Entry(0.5, 1500, tracked_mass, near=1e-6),
    "rfast:matched": Entry(0.1, 1500, tracked_mass, near=1e-6),
    "dsgd": Entry(0.3, 300, ROWS_ONLY),
    "dsgd:after": Entry(0.3, 450, ROWS_ONLY),
    "dsgd:local_steps=3": Entry(0.1, 800, ROWS_ONLY, near=LOCAL),
    "dpsgd:local_steps=3": Entry(0.1, 1200, ROWS_ONLY, near=LOCAL),
    "sgp:local_steps=3": Entry(0.1, 1200, shared_weights, near=LOCAL),
    "allreduce:local_steps=3": Entry(0.2, 600, "its models are averaged", near=LOCAL),
    "adsgd:memory-efficient+local_steps=3": Entry(0.1, 800, ROWS_ONLY, near=LOCAL),
    "dpsgd": Entry(0.3, 450, ROWS_ONLY),
    "dsgt": Entry(0.1, 1500, ROUND_BY_ROUND),
    "d2": Entry(0.1, 1500, ROUND_BY_ROUND),
    "d2:theta=0.5": Entry(0.1, 1500, ROUND_BY_ROUND),
    "qg-dsgdm": Entry(0.1, 2000, ROWS_ONLY, alone=OWN_MOMENTUM),
    "sgp": Entry(0.3, 450, shared_weights),
    "osgp": Entry(0.3, 450, shared_weights),
    "osgp:tau=3": Entry(0.3, 450, shared_weights, near=DELAYED),
    "qg-dsgdm:beta=0.5": Entry(0.05, 1500, ROWS_ONLY, alone=OWN_MOMENTUM),
    "allreduce": Entry(0.2, 600, "all agents have one model"),
    "adsgd:memory-efficient": Entry(0.3, 300, ROWS_ONLY, rounded=True),
    "adsgd:memory-efficient+theta=0.5": Entry(0.3, 450, ROWS_ONLY, alone=0.5),
    "asbcd": Entry(0.3, 525, "blocks are never mixed", rounded=True),
    "swift": Entry(0.3, 300, ROWS_ONLY),
    "swift:every=3": Entry(0.3, 300, ROWS_ONLY, near="what is heard between two mixings depends on speeds"),
    "dgd-atc": Entry(0.3, 300, ROWS_ONLY),
    "dgd-atc:local_steps=3": Entry(0.3, 300, ROWS_ONLY, near=LOCAL),
    "prox-dgd": Entry(0.3, 300, ROWS_ONLY),
    "apsgd": Entry(0.01, 800, "gradients are spent", near=0.02, expected=True),
    "spsgd": Entry(0.2, 800, "there is one model"),
    "prox-dgd:local_steps=3": Entry(0.3, 300, ROWS_ONLY, near=LOCAL),
    "easgd": Entry(0.02, 800, IN_FLIGHT, near=0.02, expected=True, alone=CENTRE),
    "easgd:beta=0.3": Entry(0.02, 800, IN_FLIGHT, near=0.02, expected=True, alone=CENTRE),
    "easgd:momentum=0.5": Entry(0.01, 800, IN_FLIGHT, near=0.02, expected=True, alone=CENTRE),
    "easgd:every=3": Entry(0.02, 800, IN_FLIGHT, near="models move apart meanwhile", alone=CENTRE),
    "ringmaster": Entry(0.01, 800, "as apsgd", near=0.02, expected=True),
    "ringmaster:r=3": Entry(0.01, 800, "as apsgd", near="test_server: updates do not say who was ignored"),
    "ringleader": Entry(0.1, 800, "as apsgd"),
    "prox-dgd:l1=0.3": Entry(0.3, 300, ROWS_ONLY, near="test_free_running", alone=OTHER_OBJECTIVE),
    "diloco": Entry(0.3, 300, "all have one phi", near="phi: test_diloco", alone=OUTER),
    "diloco:h=20": Entry(0.3, 300, "all have one phi", near="phi: test_diloco", alone=OUTER),
    "diloco:outer_lr=1": Entry(0.3, 300, "all have one phi", near="phi: test_diloco", alone=OUTER),
    "diloco:outer_momentum=0.5": Entry(0.3, 300, "all have one phi", near="phi: test_diloco", alone=OUTER),
    "noloco": Entry(0.3, 300, "test_noloco", near="phi: test_noloco", alone=OUTER),
    "noloco:h=20": Entry(0.3, 300, "test_noloco", near="phi: test_noloco", alone=OUTER),
    "noloco:outer_lr=1": Entry(0.3, 300, "test_noloco", near="phi: test_noloco", alone=OUTER),
    "noloco:outer_momentum=0.1": Entry(0.3, 300, "test_noloco", near="phi: test_noloco", alone=OUTER),
    "amelie": Entry(0.2, 800, "there is one model"),
    "amelie:batch=3": Entry(0.2, 1500, "there is one model", alone="of three gradients at one model"),
    "a2cid2": Entry(0.02, 800, "as adpsgd: test_a2cid2", near=0.02, expected=True),
    "a2cid2:eta=0.2": Entry(0.02, 800, "as adpsgd: test_a2cid2", near=0.02, expected=True),
    "a2cid2:alpha=0.5": Entry(0.02, 800, "as adpsgd: test_a2cid2", near=0.02, expected=True),
    "kungurtsev": Entry(0.5, 1500, tracked_mass, near=1e-5),
    "rasgp": Entry(0.003, 1500, pushed_mass, near=0.05),
}
"""Name with options -> what is expected of it."""
