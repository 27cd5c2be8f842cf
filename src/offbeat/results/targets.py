"""Targets: which metric is to meet which level, and when a curve first did."""

import math
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from offbeat.core.errors import SettingError

EXPECTED = "expected 0.9, or a metric with its level: accuracy=0.9, loss=0.5, 'consensus<=0.01'"
WRITTEN = re.compile(r"(?:\s*([^\s=<>]+)\s*(>=|<=|=))?\s*(\S+)\s*")
SIGNS = {"=": None, ">=": True, "<=": False}  # None: as `rises` says

Said = float | str
"""A target as settings have it: a level alone (of accuracy where the task has one, else of the loss), or
"NAME=LEVEL", "NAME>=LEVEL", "NAME<=LEVEL"."""


def rises(metric: str) -> bool:
    """Whether more of a metric is better: of accuracy it is, of all others less."""
    return metric == "accuracy"


@dataclass(frozen=True)
class Target:
    """A level that a metric is to meet: not to be below it if `rising`, else not to be above it."""

    metric: str
    level: float
    rising: bool

    @staticmethod
    def of(said: Said, measure: str) -> "Target":
        """What is said where a bare level is one of `measure`. Raises SettingError for what says nothing."""
        name, sign, level = _parsed(said)
        metric = name or measure
        usual = SIGNS[sign]
        return Target(metric, level, rises(metric) if usual is None else usual)

    def said(self, measure: str) -> Said:
        """As short as it can be said."""
        if self.rising != rises(self.metric):
            return f"{self.metric}{'>=' if self.rising else '<='}{self.level!r}"
        return self.level if self.metric == measure else f"{self.metric}={self.level!r}"

    def __str__(self) -> str:
        """In words: '90 %', 'loss 0.5', 'consensus >= 0.1'."""
        usual, percent = self.rising == rises(self.metric), self.metric == "accuracy"
        level = f"{100 * self.level:g} %" if percent else f"{self.level:g}"
        if usual:
            return level if percent else f"{self.metric} {level}"
        return f"{self.metric} {'>=' if self.rising else '<='} {level}"

    @property
    def is_loss(self) -> bool:
        """Whether the training loss is to fall so far."""
        return self.metric == "loss" and not self.rising

    def met(self, value: float) -> bool:
        sign = 1 if self.rising else -1
        return math.isfinite(value) and sign * (value - self.level) >= 0

    def crossing(self, values: Sequence[float], time: Sequence[float]) -> float | None:
        """When values first met it, interpolated linearly between two evaluations; None: at none."""
        k = next((k for k, value in enumerate(values) if self.met(value)), None)
        if k is None or k == 0 or not math.isfinite(values[k - 1]):
            return None if k is None else time[k]
        share = (self.level - values[k - 1]) / (values[k] - values[k - 1])
        return time[k - 1] + share * (time[k] - time[k - 1])


def checked(name: str, value: Any) -> Said:
    """A target as settings have it, spelt in one way. Raises SettingError, with the setting's name."""
    try:
        metric, sign, level = _parsed(value)
    except SettingError as error:
        raise SettingError(f"'{name}': {error}") from None
    return f"{metric}{sign}{level!r}" if metric else level


def _parsed(said: Any) -> tuple[str, str, float]:
    """Metric (empty: the task's measure), sign and level."""
    if isinstance(said, int | float) and not isinstance(said, bool):
        return "", "=", float(said)
    if isinstance(said, str) and (found := WRITTEN.fullmatch(said)):
        with suppress(ValueError):
            return found[1] or "", found[2] or "=", float(found[3])
    advice = ""
    if isinstance(said, str) and said.strip().endswith("%"):
        with suppress(ValueError):
            *name, percent = re.split(r"(?<=[=<>])", said.strip()[:-1])
            advice = f" Write {''.join(name)}{float(percent) / 100:g}."
    raise SettingError(f"cannot read the target {said!r}; {EXPECTED}.{advice}")
