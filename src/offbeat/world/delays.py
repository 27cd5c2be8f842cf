"""Distributions of delays, of which the mean is a parameter.

A `Delay` is a value: a family, its mean (in units of simulated time) and, where the family has one, its
coefficient of variation cv = standard deviation / mean. Measured delays may have an overhead, which no
slowdown multiplies. They are read from a file with one number a line, or with an array of one dimension; what
has more is refused unless it is said which part is meant, lest times or names are taken for delays:

    PATH          text with one number a line; .npy, or .npz with one array, of one dimension
    PATH:COLUMN   this column: its number, from 1, or its name in the first line; an array of an .npz
    PATH:all      all numbers of a matrix; NaN stands for what was not measured
"""

import math
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from offbeat.core.errors import SettingError, unknown
from offbeat.core.system.reading import LARGEST_JSON, array, arrays, content, reading

FAMILIES = {
    "gamma": "gamma with shape 1 / cv^2; at least 0, moderate tail",
    "lognormal": "lognormal with sigma^2 = log(1 + cv^2); heavy tail",
    "exponential": "exponential; cv is 1",
    "constant": "always the mean",
    "empirical": "drawn with replacement from measured values; on the command line 'file PATH' or "
    "'file PATH:COLUMN'",
}
DEFAULT_CV = {"gamma": 0.25, "lognormal": 1.0}
EXPECTED = "measured delays, one number a line or an array of one dimension"
ALL = "all"
COMMAS = re.compile(r"\s*[+-]?\d+,\d+(\s*;\s*[+-]?\d+,\d+)*\s*")
SHOWN = 60  # characters of a line that are shown


@dataclass(frozen=True)
class Delay:
    """A distribution of delays with a given mean.

    Attributes:
        values: of the empirical family: float64, with mean 1
        overhead: of the empirical family: what is added to each value after it has been multiplied; float64
        source: which file they are from, and what is in it

    Raises SettingError for an unknown family, a negative or non-finite mean, a cv that is not positive.
    """

    family: str
    mean: float = 1.0
    cv: float | None = None
    values: bytes = b""
    overhead: bytes = b""
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise unknown("delay distribution", self.family, FAMILIES)
        if not (math.isfinite(self.mean) and self.mean >= 0):
            raise SettingError(f"The mean of a delay must be a finite number >= 0; got {self.mean}.")
        if self.cv is not None:
            what = "coefficient of variation"
            if self.family not in DEFAULT_CV:
                raise SettingError(f"The {self.family} distribution has no {what} to set; got {self.cv}.")
            if not 1e-6 <= self.cv <= 1e3:
                allowed = "between 1e-6 and 1000"
                raise SettingError(f"The {what} must be {allowed}; got {self.cv}. Use 'constant' for 0.")
        if (self.family == "empirical") != bool(self.values):
            raise SettingError("Measured values go with the empirical distribution, and it needs some.")
        if self.overhead and len(self.overhead) != len(self.values):
            raise SettingError("Every measured value needs an overhead, or none of them has one.")

    @property
    def expected(self) -> float:
        """The mean, the overhead's included."""
        return self.mean + (float(np.frombuffer(self.overhead).mean()) if self.overhead else 0.0)

    def times(self, factor: float) -> "Delay":
        """The same shape with a mean `factor` times as large; the overhead stays as it is."""
        return replace(self, mean=self.mean * factor)

    def draw(self, rng: np.random.Generator, count: int) -> list[float]:
        cv = self.cv or DEFAULT_CV.get(self.family, 0.0)
        if self.family == "gamma":
            sample = rng.gamma(cv**-2, cv**2, count)
        elif self.family == "lognormal":
            sigma2 = math.log1p(cv**2)
            sample = rng.lognormal(-sigma2 / 2, math.sqrt(sigma2), count)
        elif self.family == "exponential":
            sample = rng.exponential(1.0, count)
        elif self.family == "constant":
            sample = np.ones(count)
        else:
            values = np.frombuffer(self.values)
            which = rng.integers(len(values), size=count)
            sample = values[which]
        overhead = np.frombuffer(self.overhead)[which] if self.overhead else 0.0
        drawn: list[float] = (sample * self.mean + overhead).tolist()
        return drawn

    def __str__(self) -> str:
        cv = self.cv or DEFAULT_CV.get(self.family)
        mean = f" mean {self.mean!r}" if self.mean != 1 else ""
        return self.family + (f" {cv!r}" if cv else "") + mean


def empirical(values: np.ndarray | list[float], mean: float | None = None) -> Delay:
    """Delays drawn from measured ones. `mean` rescales them; None keeps the measured mean.

    Raises SettingError unless the values are finite, not negative and not all zero.
    """
    given = np.asarray(values, dtype=float).ravel()
    if given.size == 0 or not np.isfinite(given).all() or (given < 0).any() or given.sum() == 0:
        got = f"{given.size} values" + (f" between {given.min()} and {given.max()}" if given.size else "")
        expected = "finite numbers >= 0, at least one of them positive"
        raise SettingError(f"Measured delays must be {expected}; got {got}.")
    with np.errstate(over="ignore"):
        measured = float(given.mean())
    if not 1e-300 < measured < 1e300:
        raise SettingError(f"The mean of measured delays must be between 1e-300 and 1e300; got {measured}.")
    return Delay("empirical", measured if mean is None else mean, values=(given / measured).tobytes())


def with_overhead(values: np.ndarray, overhead: np.ndarray) -> Delay:
    """Measured delays: each is a value, which slowdowns multiply, plus its own overhead, which none does."""
    if not overhead.any():
        return empirical(values) if values.any() else Delay("constant", 0.0)
    idle = Delay("empirical", 0.0, values=np.ones(len(values)).tobytes())
    return replace(empirical(values) if values.any() else idle, overhead=overhead.astype(float).tobytes())


def parse(text: str) -> Delay:
    """A delay from text: 'gamma 0.25', 'lognormal 1', 'exponential', 'constant', 'file PATH' or 'file
    PATH:COLUMN'; its mean is 1, but for 'gamma 0.25 mean 3'. Raises SettingError; DataError for a bad file.
    """
    shape, _, mean = text.strip().rpartition(" mean ")
    if not shape or (text.strip().startswith("file ") and not _is_number(mean)):
        shape, mean = text.strip(), "1"  # "mean" may be a word of a path
    family, _, rest = shape.strip().partition(" ")
    try:
        average = float(mean)
        if family in ("file", "empirical"):
            if not rest:
                raise SettingError("An empirical delay needs a file: 'file delays.csv'.")
            path, column = _split(rest)
            values = read_values(path, column)
            zeros = f", {(values == 0).sum():,} of them 0" if (values == 0).any() else ""
            between = f"from {values.min():.4g} to {values.max():.4g}, mean {values.mean():.4g}"
            about = f"{len(values):,} numbers{zeros} {between}"
            try:
                return replace(empirical(values, average), source=f"{rest.strip()}: {about}")
            except SettingError as error:
                raise SettingError(f"{path}: {error}") from None
        return Delay(family, average, float(rest) if rest else None)
    except ValueError:
        expected = "a family, its coefficient of variation and perhaps its mean"
        example = "as in 'gamma 0.25' or 'lognormal 1 mean 3'"
        raise SettingError(f"Cannot read the delay '{text}'; expected {expected}, {example}.") from None


def _split(text: str) -> tuple[Path, str | None]:
    """'PATH:COLUMN' as the two; a path that exists may have a colon in it."""
    head, _, column = text.strip().rpartition(":")
    whole = not head or Path(text.strip()).exists()
    return (Path(text.strip()), None) if whole else (Path(head), column.strip())


def read_values(path: Path, column: str | None = None) -> np.ndarray:
    """The numbers in a file, all finite and >= 0: float64 [count]. Raises DataError for anything else."""
    do = f"To choose a column: 'file {path}:2', or its name; all of a matrix: 'file {path}:{ALL}'."
    with reading(path, EXPECTED, do):
        found = _array(path, column) if path.suffix in (".npy", ".npz") else _text(path, column)
        if column == ALL:
            square = found.ndim == 2 and found.shape[0] == found.shape[1] > 1
            if square and found.any() and not (np.tril(found, -1).any() and np.triu(found, 1).any()):
                raise ValueError("one half of its matrix is all zeros; put NaN where nothing was measured")
            found = found[~np.isnan(found)]
        values = found.astype(float).ravel()
        if not len(values):
            raise ValueError("it holds no number")
        wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
        if len(wrong):
            which = f"number {wrong[0] + 1} of {len(values):,} is {values[wrong[0]]}"
            raise ValueError(f"{which}; delays are finite and >= 0")
        if not values.any():
            raise ValueError(f"all of its {len(values):,} numbers are 0")
    return values


def _array(path: Path, column: str | None) -> np.ndarray:
    if path.suffix == ".npz":
        found = arrays(path)
        if column in found:
            chosen, column = found[column], None
        elif len(found) == 1:
            (chosen,) = found.values()
        else:
            names = ", ".join(found) or "none"
            raise ValueError(f"it holds the arrays {names}; name one of them as the column")
    else:
        chosen = array(path)
    if chosen.dtype.names and column in chosen.dtype.names:
        chosen, column = chosen[column], None
    if chosen.dtype.kind not in "iuf":
        raise ValueError(f"it holds {chosen.dtype}, not real numbers")
    if column is None and chosen.ndim != 1:
        raise ValueError(f"its array has the shape {chosen.shape}")
    if column in (None, ALL):
        return chosen
    table = chosen if chosen.ndim == 2 else chosen.reshape(-1, 1)
    return np.asarray(table[:, _number(column or "", table.shape[1], [])])


def _text(path: Path, column: str | None) -> np.ndarray:
    plain = content(path, LARGEST_JSON).decode("utf-8-sig").splitlines()
    without_comments = ((at, line.partition("#")[0].strip()) for at, line in enumerate(plain, 1))
    lines = [(at, line) for at, line in without_comments if line]
    if not lines:
        return np.empty(0)
    if all(COMMAS.fullmatch(line) for _, line in lines[:SHOWN]) and column is None:
        first = f"its line {lines[0][0]} is '{lines[0][1]:.{SHOWN}}'"
        raise ValueError(f"{first}: are these decimal commas? Write 0.5, not 0,5")
    rows = [(at, _fields(line)) for at, line in lines]
    names = [] if column in (None, ALL) or all(map(_is_number, rows[0][1])) else rows.pop(0)[1]
    if column == ALL:
        return np.array([[_float(at, word) for word in words] for at, words in rows])
    k = 0 if column is None else _number(column, len(rows[0][1]) if rows else len(names), names)
    for at, fields in rows:
        if column is None and len(fields) != 1:
            raise ValueError(f"line {at} has {len(fields)} values: '{' '.join(fields):.{SHOWN}}'")
        if k >= len(fields):
            raise ValueError(f"line {at} has {len(fields)} values, and column {k + 1} is asked for")
    return np.array([_float(at, fields[k]) for at, fields in rows])


def _fields(line: str) -> list[str]:
    mark = next((mark for mark in (";", "\t", ",") if mark in line), None)
    return [word.strip().strip('"') for word in line.split(mark)]


def _number(column: str, count: int, names: list[str]) -> int:
    if column in names:
        return names.index(column)
    if column.isdecimal() and 1 <= int(column) <= count:
        return int(column) - 1
    named = f", named {', '.join(names):.{SHOWN}}" if names else ""
    raise ValueError(f"it has no column '{column}': there are {count}{named}")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text


def _float(at: int, text: str) -> float:
    if not _is_number(text):
        raise ValueError(f"line {at} has '{text:.{SHOWN}}', which is no number")
    return float(text)
