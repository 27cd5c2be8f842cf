"""The page of the algorithms, docs/algorithms.md, from their rows and docstrings.

python tests/support/algorithms_page.py      # writes it again; `make docs` does so too
"""

import inspect
import re
from pathlib import Path

from offbeat.algorithms import ALGORITHMS, Algorithm

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"
HEAD = """# The algorithms

Of each: what its row in `src/offbeat/algorithms/table.py` says, and its docstring. On the command line:
`offbeat list algorithms`, and `offbeat list algorithms adsgd` for one. Options stand behind a colon:
`--algorithms adsgd:theta=0.5,adpsgd:atomic+wait`. This page is written by `make docs`.
"""


def page() -> str:
    return "\n".join([HEAD, *(section(row) for row in ALGORITHMS.values())])


def section(row: Algorithm) -> str:
    title, *facts = row.facts()
    link = re.sub(r"arXiv:(\d{4}\.\d{5}|\d{4}\.\d{4})", r"[\g<0>](https://arxiv.org/abs/\1)", title)
    said = "\n".join(f"- {fact}" for fact in facts)
    doc = inspect.getdoc(type(row.prototype)) or ""
    return f"## `{row.name}`\n\n{link}\n\n{said}\n\n```text\n{doc}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
