"""A small sweep."""

from typing import Any

SMALL: dict[str, Any] = {
    "fixed": {"task": "quadratic", "until": 20, "agents": 4},
    "grid": {"algorithm": ["adsgd", "dsgd"], "case": ["base", "combined"], "seed": [0, 1]},
}
"""Eight runs of a few milliseconds."""


def text_of(grid: dict[str, Any]) -> str:
    return "\n".join(
        f"[{name}]\n" + "\n".join(f"{key} = {value!r}" for key, value in table.items())
        for name, table in grid.items()
    )
