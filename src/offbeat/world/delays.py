"""Distributions of delays, of which the mean is a parameter.

A `Delay` is a value: a family, its mean (in units of simulated time) and, where the family has one, its
coefficient of variation cv = standard deviation / mean. Measured delays may have an overhead, which no
slowdown multiplies; they are read from a file (`offbeat.world.files`).
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np

from offbeat.core.errors import SettingError, unknown
from offbeat.world.files import is_number, read_values, split_column

FAMILIES = {
    "gamma": "gamma with shape 1 / cv^2; at least 0, moderate tail",
    "lognormal": "lognormal with sigma^2 = log(1 + cv^2); heavy tail",
    "exponential": "exponential; cv is 1",
    "constant": "always the mean",
    "empirical": "drawn with replacement from measured values; on the command line 'file PATH' or "
    "'file PATH:COLUMN'",
}
DEFAULT_CV = {"gamma": 0.25, "lognormal": 1.0}


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
        """So many, one after the other."""
        values: list[float] = self.drawn(rng, count).tolist()
        return values

    def drawn(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """The same as an array."""
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
        made: np.ndarray = sample * self.mean + overhead
        return made

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
    if not shape or (text.strip().startswith("file ") and not is_number(mean)):
        shape, mean = text.strip(), "1"  # "mean" may be a word of a path
    family, _, rest = shape.strip().partition(" ")
    try:
        average = float(mean)
        if family in ("file", "empirical"):
            if not rest:
                raise SettingError("An empirical delay needs a file: 'file delays.csv'.")
            path, column = split_column(rest)
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
