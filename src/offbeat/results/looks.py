"""How the groups of a figure are told apart: by colour, and without any colour by dashes and markers.

The colours are Okabe and Ito's, which the colour-blind tell apart, without their yellow, which is pale on
white. Their order is such that neighbours differ in grey too: the lightness L* of the first four is 46, 71,
0 and 58.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from offbeat.algorithms import ALGORITHMS, USUAL
from offbeat.core.errors import SettingError
from offbeat.results.values import RunValues

BLUE, VERMILLION = "#0072B2", "#D55E00"
PALETTE = (BLUE, "#E69F00", "#000000", "#009E73", "#CC79A7", VERMILLION, "#56B4E9")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
MARKERS = ("circle", "square", "triangle-up", "diamond", "triangle-down", "pentagon", "star")


@dataclass(frozen=True)
class Look:
    """How a group is drawn; the names are plotly's."""

    colour: str
    dash: str
    marker: str


def looks(
    groups: Mapping[str, Sequence[RunValues]], colours: Mapping[str, str] | None = None
) -> dict[str, Look]:
    """A look for every group, by its label; no two are the same, up to 42 groups of one colour.

    An algorithm of offbeat's own has its colour in every figure, whichever others are in it; its forms
    (`dsgd:after`), learning rates and settings share the colour, and differ by dashes and marker. Own
    algorithms have the colours that are left, in their order. Where all groups are of one algorithm, each
    has a colour.

    Args:
        colours: algorithm -> its colour, in place of ours
    """
    for name, colour in (colours or {}).items():
        if not re.fullmatch("#[0-9a-fA-F]{6}", str(colour)):
            raise SettingError(f"A colour is written as in '#0072B2'; got {colour!r} for {name}.")
    names = {label: runs[0].algorithm for label, runs in groups.items()}
    bases = list(dict.fromkeys(base(name) for name in names.values()))
    if unknown := {*(colours or {})} - {*bases, *names.values()}:
        raise SettingError(
            f"There is no algorithm {' or '.join(sorted(unknown))} to be coloured; these are there: "
            f"{', '.join(bases)}."
        )
    own = [*dict.fromkeys((*USUAL, *ALGORITHMS)), *(base for base in bases if base not in ALGORITHMS)]
    found, taken = dict[str, Look](), set[Look]()
    for place, (label, name) in enumerate(names.items()):
        nth = own.index(base(name)) if len(bases) > 1 else place
        colour = (colours or {}).get(name) or (colours or {}).get(base(name)) or PALETTE[nth % len(PALETTE)]
        turns = (Look(colour, DASHES[k % 6], MARKERS[k % 7]) for k in range(nth, nth + 42))
        found[label] = next(
            (look for look in turns if look not in taken), Look(colour, DASHES[0], MARKERS[0])
        )
        taken.add(found[label])
    return found


def faint(colour: str) -> str:
    """The colour mixed with as much white, to fill a bar."""
    return "#" + "".join(f"{(int(colour[k : k + 2], 16) + 255) // 2:02X}" for k in (1, 3, 5))


def base(name: str) -> str:
    """The algorithm without its options."""
    return name.partition(":")[0]
