"""The page of the algorithms, docs/algorithms.md, from their rows and docstrings.

python tests/support/algorithms_page.py      # writes it again; `make docs` does so too
"""

import inspect
import re
from pathlib import Path

from offbeat.algorithms import ALGORITHMS, Algorithm

PAGE = Path(__file__).parents[2] / "docs" / "algorithms.md"
HEAD = """# The algorithms

Of each: what its row in `src/offbeat/algorithms/table/` says, and its docstring. On the command line:
`offbeat list algorithms`, and `offbeat list algorithms adsgd` for one. Options stand behind a colon:
`--algorithms adsgd:theta=0.5,adpsgd:atomic+wait`. This page is written by `make docs`.
"""

TAIL = """## Not here, and why

- Fragile SGD ([arXiv:2405.16218](https://arxiv.org/abs/2405.16218)), of which `amelie` is the form for
  unequal data: it supposes that all agents draw from one distribution, and would go to where the fast ones
  and those near the pivot have theirs. What waits for a link is summed there by the step that it belongs to;
  of the three ways to send here none does that.
- Of `noloco` and `kungurtsev` the formulas are those of their authors' programs
  ([jkolehm/noloco](https://github.com/jkolehm/noloco), [MMorafah/Asy-SGD](https://github.com/MMorafah/Asy-SGD));
  the papers themselves were not at hand. Random routing through the stages of a pipeline, the other half of
  NoLoCo, is not here: a model is one piece.
"""


def page() -> str:
    return "\n".join([HEAD, *(section(row) for row in ALGORITHMS.values()), TAIL])


def section(row: Algorithm) -> str:
    title, *facts = row.facts()
    link = re.sub(r"arXiv:(\d{4}\.\d{5}|\d{4}\.\d{4})", r"[\g<0>](https://arxiv.org/abs/\1)", title)
    said = "\n".join(f"- {fact}" for fact in facts)
    doc = inspect.getdoc(type(row.prototype)) or ""
    return f"## `{row.name}`\n\n{link}\n\n{said}\n\n```text\n{doc}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
