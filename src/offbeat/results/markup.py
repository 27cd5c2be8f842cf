"""HTML of the page: text that is safe in it, links to papers, tables."""

import html
import re
from collections.abc import Iterable, Sequence

WIDE = 12  # columns; of a table with more, cells are set closer, and in print smaller


def escaped(text: object) -> str:
    return html.escape(str(text))


def linked(text: str) -> str:
    """Escaped, with links to the papers on arXiv."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">\g<0></a>', escaped(text))


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], name: str, best: Sequence[int] = ()) -> str:
    """A table of text that scrolls in a box of its own."""
    head = "".join(f'<th scope="col">{_kept(cell)}</th>' for cell in heads)
    body = ""
    for index, row in enumerate(rows):
        line = "".join(f"<td>{_kept(cell)}</td>" for cell in row)
        body += f"<tr{' class=best' * (index in best)}>{line}</tr>\n"
    wide = " wide" * (len(heads) > WIDE)
    content = f'<table class="{name}{wide}"><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>'
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{name}">{content}</div>'


def _kept(cell: str) -> str:
    """Escaped, with a number and its % in one line."""
    return escaped(cell).replace(" %", "&nbsp;%")
