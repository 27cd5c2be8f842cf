"""The page of an evaluation that was made again: every claim beside what was measured."""

from collections.abc import Sequence
from dataclasses import dataclass

from offbeat.results.columns import cells
from offbeat.results.figure import Figure
from offbeat.results.markup import escaped, linked, table
from offbeat.results.notes import notes
from offbeat.results.page import document
from offbeat.results.shelf import Shelf
from offbeat.results.values import ComparisonValues

CONFIRMED, NOT, UNDECIDED, UNTESTABLE = "confirmed", "not confirmed", "undecided", "not testable"
ELSEWHERE = "another part"
VERDICTS = (CONFIRMED, NOT, UNDECIDED, UNTESTABLE, ELSEWHERE)
"""Undecided: the runs end too early to tell. Not testable: there are no runs for it."""
HINGES = "What answers hinge on, by number:"
HEADS = ("claim", "the paper says", "with", "verdict", "measured", "hinges on")


@dataclass(frozen=True)
class Finding:
    """What runs say to a claim.

    Attributes:
        verdict: one of `VERDICTS`
        measured: the numbers, with their spread over the seeds
        reading: of what the paper leaves open, where there are several
    """

    verdict: str
    measured: str
    reading: str = ""


@dataclass(frozen=True)
class Answer:
    """A claim with a finding for each reading. choice: what the answer hinges on"""

    name: str
    says: str
    findings: Sequence[Finding]
    choice: str = ""


@dataclass(frozen=True)
class Drawn:
    """A figure with its caption; name: of its files, without an ending."""

    name: str
    caption: str
    figure: Figure


@dataclass(frozen=True)
class Reproduction:
    """All that a page says.

    Attributes:
        about: paragraphs
        comparison: the runs; None where none were made
        command: what makes all of it again
    """

    title: str
    about: Sequence[str]
    answers: Sequence[Answer]
    drawn: Sequence[Drawn]
    comparison: ComparisonValues | None
    command: str

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The table of the claims, by `HEADS`; what an answer hinges on by its number among `choices`."""
        number = {choice: f"({k})" for k, choice in enumerate(self.choices, start=1)} | {"": ""}
        return [
            (each.name, each.says, found.reading, found.verdict, found.measured, number[each.choice])
            for each in self.answers
            for found in each.findings
        ]

    @property
    def choices(self) -> list[str]:
        """All that answers hinge on, each once."""
        return [*dict.fromkeys(each.choice for each in self.answers if each.choice)]

    @property
    def counts(self) -> str:
        """How many readings of claims came out how, in words."""
        found = [row[3] for row in self.rows]
        said = [f"{found.count(each)} {each}" for each in VERDICTS if each in found]
        readings, claims = (
            f"{count} {what}{'s' * (count != 1)}"
            for count, what in ((len(found), "reading"), (len(self.answers), "claim"))
        )
        return f"{', '.join(said)}, of {readings} of {claims}"


def as_html(made: Reproduction) -> str:
    """One self-contained page."""
    shelf = Shelf()
    body = [f"<h1>{escaped(made.title)}</h1>", *(f"<p>{linked(text)}</p>" for text in made.about)]
    if made.answers:
        body += ["<h2>Claims</h2>", f"<p>{escaped(made.counts)}.</p>", table(HEADS, made.rows, "claims")]
    if made.choices:
        body += [f"<p>{HINGES}</p>", "<ol>", *(f"<li>{linked(each)}</li>" for each in made.choices), "</ol>"]
    body += ["<h2>Figures</h2>"] * bool(made.drawn)
    body += [shelf.describe(each.figure, escaped(each.caption)) for each in made.drawn]
    if made.comparison is not None:
        heads, rows = cells(made.comparison, "range")
        said = [f'<p class="soft">{linked(note)}</p>' for note in notes(made.comparison, "range")]
        body += ["<h2>All runs</h2>", table(heads, rows, "results"), *said]
    body += ["<h2>Run it again</h2>", f"<pre><code>{escaped(made.command)}</code></pre>"]
    return document(made.title, "\n".join(body), shelf)


def as_markdown(made: Reproduction, ending: str = "") -> str:
    """The same for a site. ending: of the files of the figures, beside it; empty: there are none"""
    lines = [f"# {made.title}", "", *(line for text in made.about for line in (text, ""))]
    if made.answers:
        lines += ["## Claims", "", f"{made.counts}.", "", *_rows(HEADS, made.rows), ""]
    if made.choices:
        lines += [HINGES, "", *(f"{k}. {each}" for k, each in enumerate(made.choices, start=1)), ""]
    lines += ["## Figures", ""] * bool(made.drawn and ending)
    for each in made.drawn if ending else ():
        lines += [
            f"![{each.caption}]({each.name}{ending})",
            "",
            " ".join([each.caption, *each.figure.notes]),
            "",
        ]
    if made.comparison is not None:
        heads, rows = cells(made.comparison, "range")
        lines += ["## All runs", "", *_rows(heads, rows), ""]
        lines += [line for note in notes(made.comparison, "range") for line in (note, "")]
    return "\n".join([*lines, "## Run it again", "", f"    {made.command}", ""])


def _rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    every = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in every]
