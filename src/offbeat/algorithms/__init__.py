"""The algorithms: one file each, one row each in `table.ALGORITHMS`.

A file reads next to its paper, and imports the contract alone: `core.agent`, `core.vector`, `core.errors`,
`core.forms`, and of the mechanisms that it has in common with others: `core.newest`, `core.summed`,
`core.rounds`, `core.push_sum`, `core.pairs`, `core.server`, `core.ring`, `core.tree`.
What a row says is in `row`, which imports `world` too, to say which graphs an algorithm accepts; `finding`
has an algorithm for a name, a class, or a file of the user's.
"""

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
from offbeat.algorithms.finding import check_codec, find, row_of, told_apart, with_local_steps, with_options
from offbeat.algorithms.kungurtsev import Kungurtsev
from offbeat.algorithms.noloco import NoLoCo
from offbeat.algorithms.osgp import OSGP
from offbeat.algorithms.prox_dgd import ProxDGD
from offbeat.algorithms.qg_dsgdm import QGDSGDm
from offbeat.algorithms.rasgp import RASGP
from offbeat.algorithms.rfast import RFAST
from offbeat.algorithms.ringleader import Ringleader
from offbeat.algorithms.ringmaster import Ringmaster
from offbeat.algorithms.row import Algorithm, Option
from offbeat.algorithms.sgp import SGP
from offbeat.algorithms.spsgd import SPSGD
from offbeat.algorithms.swift import SWIFT
from offbeat.algorithms.table import ALGORITHMS, USUAL

__all__ = [
    "ADPSGD",
    "ADSGD",
    "ALGORITHMS",
    "APSGD",
    "ASBCD",
    "D2",
    "DGDATC",
    "DPSGD",
    "DSGD",
    "DSGT",
    "EASGD",
    "OSGP",
    "RASGP",
    "RFAST",
    "SGP",
    "SPSGD",
    "SWIFT",
    "USUAL",
    "A2CiD2",
    "Algorithm",
    "AllReduceSGD",
    "Amelie",
    "DiLoCo",
    "Kungurtsev",
    "MemoryEfficientADSGD",
    "NoLoCo",
    "Option",
    "ProxDGD",
    "QGDSGDm",
    "Ringleader",
    "Ringmaster",
    "check_codec",
    "find",
    "row_of",
    "told_apart",
    "with_local_steps",
    "with_options",
]
