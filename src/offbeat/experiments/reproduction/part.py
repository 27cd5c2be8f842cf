"""What a part of a paper's evaluation is: a grid of runs, the claims that are asked of them, and figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offbeat.experiments.reproduction.evidence import Evidence
from offbeat.results.reproduction import Finding

MEASURED = "{rtt}"
"""In a grid: the round-trip times that the user names."""

Table = Mapping[str, Mapping[str, Any]]
"""A grid of settings, as in a sweep's TOML: "fixed", "grid" and "lr"."""


@dataclass(frozen=True)
class Claim:
    """What a paper states, and how runs answer.

    Attributes:
        name: what it is called here
        says: the statement, in our words, with its number
        found: what the runs say, one finding for each reading of what the paper leaves open
        choice: the open choice on which the answer hinges; empty: none is known
    """

    name: str
    says: str
    found: Callable[[Evidence], Sequence[Finding]]
    choice: str = ""


@dataclass(frozen=True)
class Picture:
    """A figure of the runs, as `Comparison.figure` describes it.

    Attributes:
        name: of its files
        only: the settings of the runs that are drawn
    """

    name: str
    caption: str
    metric: str
    x: str = "time"
    by: str | None = None
    only: Mapping[str, Any] | None = None
    log: str | None = None


@dataclass(frozen=True)
class Part:
    """A part of an evaluation.

    Attributes:
        name: as it is asked for
        about: what is run, in sentences, our readings of what the paper leaves open among them
        tables: grids, whose runs are asked together; none where nothing is run
        quick: what of each is another value in a quick run: "fixed", "grid" and "lr" again
        files: name -> content, of files that lie in the folder of the results; a setting names them by
            "file:{folder}/NAME"
    """

    name: str
    title: str
    about: Sequence[str]
    tables: Sequence[Table]
    quick: Table
    claims: Sequence[Claim]
    pictures: Sequence[Picture] = ()
    files: Mapping[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether it is of measured round-trip times."""
        return MEASURED in repr(self.tables)

    def grids(self, quick: bool, **fixed: Any) -> list[Table]:
        """The whole grids, or the quick ones; with these settings, where they are not None."""
        given = {name: value for name, value in fixed.items() if value is not None}
        changes: list[Table] = [*[self.quick] * quick, {"fixed": given}]
        made = list[Table]()
        for table in self.tables:
            for change in changes:
                table = {
                    name: {**table.get(name, {}), **change.get(name, {})} for name in {**table, **change}
                }
            made.append({name: _apart(name, of, table) for name, of in table.items()})
        return made


def _apart(name: str, of: Mapping[str, Any], table: Table) -> Mapping[str, Any]:
    """Of the grid what is not fixed, for a quick run may fix what has several values; None: not given."""
    fixed = [key for key, value in table.get("fixed", {}).items() if value is not None and name == "grid"]
    return {key: value for key, value in of.items() if value is not None and key not in fixed}


@dataclass(frozen=True)
class Paper:
    """A paper, or a benchmark, and the parts of its evaluation."""

    name: str
    title: str
    parts: Mapping[str, Part]
