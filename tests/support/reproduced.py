"""The pages of evaluations that were made again, docs/reproduction/*.md, from the tables of runs beside them;
of what is counted, not run, there is no table.

python tests/support/reproduced.py      # writes them again, and their figures; `make docs` does so too
"""

from collections.abc import Sequence
from pathlib import Path

from offbeat.experiments.loading import load
from offbeat.experiments.reproduction.running import PAPERS, Making
from offbeat.results.reproduction import Reproduction, as_markdown
from offbeat.results.run import Run

FOLDER = Path(__file__).parents[2] / "docs" / "reproduction"
COUNTED = [
    f"{paper.name}-{name}"
    for paper in PAPERS.values()
    for name, part in paper.parts.items()
    if not part.tables
]
PAGES = sorted([*(path.stem for path in FOLDER.glob("*.parquet")), *COUNTED])
QUICK = "-quick"


def reproduction(name: str) -> Reproduction:
    """What there is to say of the runs of the table of this name."""
    paper, _, part = name.removesuffix(QUICK).partition("-")
    runs = [] if name in COUNTED else load(FOLDER / f"{name}.parquet").runs
    data = Path("DIR") if any(run.settings["data"] for run in runs) else None
    making = Making(
        PAPERS[paper], PAPERS[paper].parts[part], FOLDER, name.endswith(QUICK), data, rtt=_measured(runs)
    )
    return making.made(runs, len(runs))


def _measured(runs: Sequence[Run]) -> str | None:
    """The round-trip times of these runs, as `--rtt` names them."""
    said = {str(run.settings["latency"]) for run in runs}
    found = {each.removeprefix("rtt:").rpartition(" mean ")[0] for each in said if each.startswith("rtt:")}
    return found.pop() if found else None


def page(made: Reproduction) -> str:
    return as_markdown(made, ".svg")


if __name__ == "__main__":
    for each in PAGES:
        found = reproduction(each)
        (FOLDER / f"{each}.md").write_text(page(found), "utf-8")
        for drawn in found.drawn:
            drawn.figure.save(FOLDER / f"{drawn.name}.svg")
