"""The docs site: `make docs` builds it into build/docs, from the pages as they are in the repository.

The source is the root of the repository, so that a link between README.md, docs/ and examples/ leads to the
same place here as where the repository is read.
"""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version as version_of
from itertools import pairwise, takewhile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

project, author = "offbeat", "the authors of offbeat"
version = release = version_of("offbeat")
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
include_patterns = [
    "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md", "examples/study/README.md",
    "docs/*.md", "docs/reproduction/*.md", "docs/api/*.rst",
]  # fmt: skip
exclude_patterns = [".venv", ".git", "build", "dist"]

myst_heading_anchors = 4
highlight_language = "text"  # what is indented: commands, what they print, formulas
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar, napoleon_attr_annotations = True, False

html_theme = "furo"
html_title = f"offbeat {version}"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["static/index.html"]
html_show_sphinx = html_show_copyright = False
html_copy_source = False


def as_rst(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText.

    One backtick is code, as is what is indented after an empty line; *emphasis* is emphasis, and nothing else
    is markup: x_i and |x*| in a formula are what they look like.
    """
    made, section, code = list[str](), False, False
    for before, line in pairwise(["", *_one_name_each(lines)]):
        if line and not line.startswith("    "):
            section, code = bool(re.fullmatch(r"(Args|Attributes|Raises|Returns|Yields):", line)), False
        elif line and not (section or code or before):
            made += ["::", ""]
            code = True
        made.append(line if code else MARKS.sub(_marked, line))
    return made


MARKS = re.compile(r"`(?P<code>[^`]+)`(?P<close>\w?)|(?<![\w*])\*(?=\w)[^*]*\w\*(?![\w*])|[*|\\]|_(?!\w)")


def _marked(found: re.Match[str]) -> str:
    if found["code"]:
        return f"``{found['code']}``" + f"\\ {found['close']}" * bool(found["close"])
    return found[0] if len(found[0]) > 1 else f"\\{found[0]}"


def _one_name_each(lines: list[str]) -> Iterator[str]:
    """`me, n: ...` among attributes twice, for napoleon reads a type there."""
    rest = lines
    while rest:
        entry = re.match(r"    (\w+(?:, ?\w+)+): ", rest[0])
        more = list(takewhile(lambda line: line.startswith("     "), rest[1:])) if entry else []
        for name in re.split(", ?", entry[1]) if entry else []:
            yield from [f"    {name}: {rest[0][len(entry[0]) :]}", *more] if entry else []
        yield from [] if entry else rest[:1]
        rest = rest[1 + len(more) :]


def _docstring(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    if what in ("property", "attribute"):  # napoleon takes what is before its first colon for a type
        lines[:1] = lines[0].replace(": ", ":\n", 1).split("\n")
    lines[:] = as_rst(lines)


def _signature(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
    """With a default that Python can read, so that Sphinx can: `<factory>` of a dataclass is none."""
    return signature and signature.replace("<factory>", "..."), returns


def setup(app: Sphinx) -> None:
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-process-docstring", _docstring, priority=400)  # before napoleon
