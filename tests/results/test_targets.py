"""A target names a metric and a level, and is met by the first evaluation that is on its better side."""

import math
from typing import Any

import pytest

from offbeat import Curve, SettingError
from offbeat.results.targets import Target, checked


@pytest.mark.parametrize(
    ("said", "measure", "metric", "level", "rising", "shortest", "words"),
    [
        (0.9, "accuracy", "accuracy", 0.9, True, 0.9, "90 %"),
        (0.5, "loss", "loss", 0.5, False, 0.5, "loss 0.5"),
        ("0.9", "accuracy", "accuracy", 0.9, True, 0.9, "90 %"),
        ("accuracy=0.9", "accuracy", "accuracy", 0.9, True, 0.9, "90 %"),
        ("loss=.5", "accuracy", "loss", 0.5, False, "loss=0.5", "loss 0.5"),
        (" loss <= 5e-1 ", "accuracy", "loss", 0.5, False, "loss=0.5", "loss 0.5"),
        ("loss<=0.5", "loss", "loss", 0.5, False, 0.5, "loss 0.5"),
        ("accuracy<=0.9", "accuracy", "accuracy", 0.9, False, "accuracy<=0.9", "accuracy <= 90 %"),
        ("consensus>=1", "loss", "consensus", 1.0, True, "consensus>=1.0", "consensus >= 1"),
    ],
)
def test_a_target_is_said_in_one_way_and_read_back(
    said: Any, measure: str, metric: str, level: float, rising: bool, shortest: Any, words: str
) -> None:
    target = Target.of(said, measure)
    assert target == Target(metric, level, rising) == Target.of(checked("target", said), measure)
    assert target.said(measure) == shortest and Target.of(shortest, measure) == target
    assert str(target) == words


@pytest.mark.parametrize(
    "said", ["", "x", "=0.5", ">=0.5", "loss=", "loss=a", "loss=0.5=0.4", True, None, [0.5]]
)
def test_what_is_no_target_is_refused_with_an_example(said: Any) -> None:
    with pytest.raises(SettingError, match=r"cannot read the target .*; expected 0\.9, or a metric"):
        checked("target", said)


def test_a_target_is_met_on_its_better_side_by_finite_values_alone() -> None:
    curve = Curve(
        time=[0, 10, 20], loss=[2.0, math.nan, 0.5], accuracy=[0.1, 0.5, 0.9], consensus=[0, 2.0, 1.0]
    )
    assert curve.first_met(Target("accuracy", 0.7, True)) == pytest.approx(15)
    assert curve.first_met(Target("accuracy", 0.7, False)) == 0
    assert curve.first_met(Target("loss", 1.0, False)) == 20, "there is nothing to interpolate from"
    assert curve.first_met(Target("consensus", 1.0, True)) == pytest.approx(5)
    assert curve.first_met(Target("loss", 0.1, False)) is None
    assert not Target("loss", 1.0, True).met(math.inf) and Target("loss", 1.0, True).met(1.0)
