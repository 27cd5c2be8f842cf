"""Pieces of text and HTML."""

import html
import re
from collections.abc import Iterable, Sequence


def escaped(text: object) -> str:
    """Text as HTML."""
    return html.escape(str(text))


def linked(text: str) -> str:
    """Escaped, with links to the papers on arXiv."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r'<a href="https://arxiv.org/abs/\1">\g<0></a>', escaped(text))


def time_text(time: float | None) -> str:
    """A time to a target: no digits that mean nothing, for it is interpolated."""
    return "never" if time is None else f"{time:,.0f}" if time >= 1000 else f"{time:.4g}"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], name: str, best: Sequence[int] = ()) -> str:
    """A table of text that scrolls in a box of its own."""
    head = "".join(f'<th scope="col">{escaped(cell)}</th>' for cell in heads)
    body = "".join(
        f"<tr{' class=best' if index in best else ''}>"
        f"{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>\n"
        for index, row in enumerate(rows)
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{name}"><table class="{name}">'
        f"<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>"
    )
