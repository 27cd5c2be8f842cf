"""Names with numbers, of algorithms, rules, schedules, codecs: what is spelt is read back to the same."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offbeat import SettingError
from offbeat.algorithms import ALGORITHMS, find
from offbeat.core.codecs import SHARE, codec_of
from offbeat.core.optimizers import OPTIMIZERS, Optimizer
from offbeat.core.schedules import SCHEDULES, Schedule
from offbeat.core.words import Parameter, Parameters, headed, option, parts, spelt

TABLES: dict[str, tuple[Callable[[str], Any], str, Parameters, str]] = {
    **{name: (find, name, row.parameters, "") for name, row in ALGORITHMS.items() if row.options},
    **{name: (Optimizer.parse, name, row.parameters, row.main) for name, row in OPTIMIZERS.items()},
    **{name: (Schedule.parse, name, row.parameters, row.main) for name, row in SCHEDULES.items()},
    "top-k": (codec_of, "top-k", SHARE, "share"),
}


def accepted(parameter: Parameter) -> st.SearchStrategy[float]:
    """Any value that a parameter takes, of all sizes."""
    usual = 0.0 if parameter.usual is None else parameter.usual
    if isinstance(usual, bool):
        return st.booleans()
    if isinstance(usual, int):
        return st.integers(int(parameter.low), 10**15)
    low = None if parameter.low == float("-inf") else parameter.low
    high = None if parameter.high == float("inf") else parameter.high
    return st.floats(
        low,
        high,
        allow_nan=False,
        allow_infinity=False,
        exclude_min=parameter.above,
        exclude_max=parameter.below,
    )


@given(st.sampled_from([*TABLES]), st.data())
def test_a_name_is_read_back_to_the_same_values(which: str, data: st.DataObject) -> None:
    read, name, parameters, main = TABLES[which]
    said = {key: data.draw(accepted(each), key) for key, each in parameters.items()}
    made = read(spelt(name, said, parameters, main))
    again = str(made) if read is not find else made.name
    assert repr(read(again)) == repr(made)
    for key, value in said.items() if read is find else []:
        assert getattr(made.prototype, key) == value


@pytest.mark.parametrize("which", TABLES)
def test_what_a_refusal_shows_is_taken(which: str) -> None:
    _, name, parameters, _ = TABLES[which]
    for key, each in parameters.items():
        with pytest.raises(SettingError, match=f"^{key} of {name} takes .*'; got 'x'") as refused:
            each.read(name, key, "x")
        shown = str(refused.value).split("'")[1]
        assert shown.startswith(name)
        assert each.read(name, *option(parts(headed(shown)[1][-1])[0])) == (each.usual is False or each.shown)


SAME: list[tuple[Callable[[str], Any], str, str]] = [
    (find, "ringmaster:r=1000000", "ringmaster:r=1000000"),
    (find, "ringmaster:r=9007199254740993", "ringmaster:r=9007199254740993"),
    (find, "adsgd:theta=0.1234567", "adsgd:theta=0.1234567"),
    (find, "a2cid2:eta=1e+22", "a2cid2:eta=1e22"),
    (find, " adsgd : theta = 0.5 + local-steps = 2", "adsgd:local_steps=2+theta=0.5"),
    (find, "adsgd:memory-efficient + theta=0.5", "adsgd:memory-efficient+theta=0.5"),
    (Optimizer.parse, "adamw:weight_decay=1e+300", "adamw:weight_decay=1e300"),
    (Optimizer.parse, "adamw: weight-decay = 0.1 + beta1 = 0.5", "adamw:beta1=0.5+weight_decay=0.1"),
    (Schedule.parse, "delay-adaptive:1e22", "delay-adaptive:1e22"),
    (Schedule.parse, "diminishing:10+power=1e+300", "diminishing:10+power=1e300"),
    (Schedule.parse, "warmup: 2e+1 + cosine + to = 0.5", "warmup:20+cosine:to=0.5"),
    (codec_of, "top-k:share=0.123456789", "top-k:0.123456789"),
]


def test_numbers_of_any_size_and_blanks() -> None:
    for read, said, wanted in SAME:
        made = read(said)
        assert (made.name if read is find else str(made)) == wanted, said
        assert repr(read(wanted)) == repr(made)


def test_a_share_of_any_time_is_a_number() -> None:
    assert Schedule.parse("step:1e-320").at(1e300) == 0.0
    assert Schedule.parse("step:1e-320+factor=1").at(1e300) == 1.0


def test_what_is_left_open_is_what_is_listed() -> None:
    said = "\n".join(find("adsgd:theta=0.5").facts())
    assert "+local_steps=LOCAL_STEPS" in said and "+theta=" not in said
    assert "mixes at each 2th" not in "\n".join(find("swift:every=2").facts())


def test_of_a_class_of_ones_own_nothing_is_said_to_be_known_that_is_not() -> None:
    file = Path(__file__).parents[2] / "examples" / "memory_efficient.py"
    said = "\n".join(find(f"{file}:MemoryEfficientADSGD").facts())
    assert "its author's to know" in said and "tolerates crash" not in said
