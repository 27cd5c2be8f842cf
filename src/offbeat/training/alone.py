"""Who trains alone: a script without `offbeat launch`, by mistake or in a notebook."""

import os
import sys
from collections.abc import Mapping

STARTERS = {
    "WORLD_SIZE": ("torchrun", "RANK"),
    "OMPI_COMM_WORLD_SIZE": ("mpirun", "OMPI_COMM_WORLD_RANK"),
    "PMI_SIZE": ("mpirun or srun", "PMI_RANK"),
    "SLURM_STEP_NUM_TASKS": ("srun", "SLURM_PROCID"),  # SLURM_NTASKS is in a batch script too, one process
}
"""What others tell each process that they start: how many there are -> who says it, and which one it is."""


def interactive() -> bool:
    """Whether what was run may be run again: at Python's prompt, or in a notebook."""
    return hasattr(sys, "ps1")


def one_of_several(environment: Mapping[str, str] = os.environ) -> str:
    """What the first of several processes is to say if somebody else has started them; or nothing."""
    for variable, (starter, rank) in STARTERS.items():
        count = environment.get(variable, "")
        if count.isdecimal() and int(count) > 1 and environment.get(rank, "0") == "0":
            return (
                f"{starter} has started {count} processes ({variable}), none of which is an agent of a run: "
                "every one of them trains alone, on all of the data. Expected one command instead, which "
                f"starts them all: offbeat launch -n {count} SCRIPT"
            )
    return ""
