"""Which runs are one line of a figure, and which lines are in one panel."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from offbeat.core.errors import SettingError
from offbeat.results.values import ComparisonValues, RunValues, value_text

Labelled = Mapping[str, Sequence[RunValues]]
"""The runs of a panel by the label of their line: what is under one label differs by its seed alone."""

MOST = 24  # panels of a figure


def panels_by(comparison: ComparisonValues, by: str | None) -> dict[str, Labelled]:
    """The panels by title, one for each value of the setting `by`: its lines. One without a title: None.

    Of several settings ("topology,case") there is one for each combination of values. Raises SettingError for
    too many panels.
    """
    if by is None:
        return {"": lines_of(comparison)}
    parts: dict[str, Sequence[RunValues]] = {"": comparison.runs}
    for name in by.split(","):
        parts = {
            f"{title}{', ' * bool(title)}{name} {value_text(value)}": some
            for title, runs in parts.items()
            for value, some in by_value(runs, name).items()
        }
    if len(parts) > MOST:
        raise SettingError(f"There would be {len(parts)} panels by '{by}'; at most {MOST} are drawn.")
    return {title: lines_of(replace(comparison, runs=runs)) for title, runs in parts.items()}


def settings_of(runs: Sequence[RunValues]) -> list[str]:
    """The settings that figures may be made by, or over."""
    return list(dict.fromkeys(each for run in runs for each in run.settings if each != "own"))


def by_value(runs: Sequence[RunValues], name: str) -> dict[Any, list[RunValues]]:
    """The runs by their value of a setting: numbers in their order, others as they come."""
    parts: dict[Any, list[RunValues]] = {}
    for run in runs:
        value = run.settings.get(name)
        parts.setdefault(tuple(value) if isinstance(value, list) else value, []).append(run)
    if are_numbers(parts):
        return dict(sorted(parts.items()))
    return parts


def are_numbers(values: Iterable[Any]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def lines_of(comparison: ComparisonValues) -> Labelled:
    """The runs of every line, by its label."""
    return {comparison.label(key): runs for key, runs in comparison.groups().items()}
