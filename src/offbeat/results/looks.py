"""How the groups of a figure are told apart: by colour, and without any colour by dashes and markers.

The colours are Okabe and Ito's, which the colour-blind tell apart, without their yellow, which is pale on
white. Their order is such that neighbours differ in grey too: the lightness L* of the first four is 46, 71,
0 and 58.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offbeat.algorithms import ALGORITHMS
from offbeat.core.errors import SettingError
from offbeat.results.values import RunValues

PALETTE = ("#0072B2", "#E69F00", "#000000", "#009E73", "#CC79A7", "#D55E00", "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "star")


@dataclass(frozen=True)
class Look:
    """How a group is drawn; the names are plotly's."""

    colour: str
    dash: str
    marker: str


def looks(groups: Mapping[str, Sequence[RunValues]], colours: Mapping[str, str] | None = None) -> dict[str, Look]:
    """A look for every group, by its label; no two are the same, up to 42 groups of one colour.

    An algorithm of offbeat's own has its colour in every figure, whichever others are in it; its forms
    (`dsgd:after`), learning rates and settings share the colour, and differ by dashes and marker. Own
    algorithms have the colours that are left, in their order. Where all groups are of one algorithm, each
    has a colour.

    Args:
        colours: algorithm -> its colour, in place of ours
    """
    names = {label: runs[0].algorithm for label, runs in groups.items()}
    bases = list(dict.fromkeys(_base(name) for name in names.values()))
    if unknown := {*(colours or {})} - {*bases, *names.values()}:
        raise SettingError(
            f"There is no algorithm {' or '.join(sorted(unknown))} to be coloured; these are there: "
            f"{', '.join(bases)}."
        )
    own = [*ALGORITHMS, *(base for base in bases if base not in ALGORITHMS)]
    found, taken = dict[str, Look](), set[tuple[str, str]]()
    for place, (label, name) in enumerate(names.items()):
        nth = own.index(_base(name)) if len(bases) > 1 else place
        colour = (colours or {}).get(name) or (colours or {}).get(_base(name)) or PALETTE[nth % len(PALETTE)]
        turns = [(nth + k) % len(DASHES) for k in range(len(DASHES))]
        free = [turn for turn in turns if (colour, DASHES[turn]) not in taken]
        dash = DASHES[(free or turns)[0]]
        same = sum(other.colour == colour for other in found.values())
        taken.add((colour, dash))
        found[label] = Look(colour, dash, MARKERS[(nth + same) % len(MARKERS)])
    return found


def _base(name: str) -> str:
    """The algorithm without its options."""
    return name.partition(":")[0]
