"""The pages of evaluations that were made again, docs/reproduction/*.md, from the tables of runs beside them.

python tests/support/reproduced.py      # writes them again, and their figures; `make docs` does so too
"""

from pathlib import Path

from offbeat.experiments.loading import load
from offbeat.experiments.reproduction.running import PAPERS, Making
from offbeat.results.reproduction import Reproduction, as_markdown

FOLDER = Path(__file__).parents[2] / "docs" / "reproduction"
TABLES = sorted(FOLDER.glob("*.parquet"))


def reproduction(table: Path) -> Reproduction:
    """What there is to say of the runs of this table."""
    (paper, _, part), runs = table.stem.partition("-"), load(table).runs
    return Making(PAPERS[paper], PAPERS[paper].parts[part], FOLDER, data=Path("DIR")).made(runs, len(runs))


def page(made: Reproduction) -> str:
    return as_markdown(made, ".svg")


if __name__ == "__main__":
    for each in TABLES:
        found = reproduction(each)
        each.with_suffix(".md").write_text(page(found), "utf-8")
        for drawn in found.drawn:
            drawn.figure.save(FOLDER / f"{drawn.name}.svg")
