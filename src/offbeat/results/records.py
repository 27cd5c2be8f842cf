"""From what was written of a run back to a `Run`: the inverse of `RunValues.record`, for older files too.

A loaded run has no models and no trace. What is not finite was written as null, and is nan; of a tuned
learning rate's trials the smallest, median and largest value are known.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from offbeat.core.errors import SettingError
from offbeat.core.settings import Settings
from offbeat.engines.trace import Staleness
from offbeat.results.holdings import Holdings
from offbeat.results.run import Run
from offbeat.results.trials import Candidate, Halving, Tried, Tuning
from offbeat.results.values import Curve, Details
from offbeat.results.world import WorldValues

FINAL = ("loss", "accuracy", "consensus", "accuracy_mean", "accuracy_worst", "loss_worst")
ALWAYS = ("agents", "until")  # settings that every run has, though nobody needs to say them
OPTIMIZERS = {"SGD": "sgd", "Momentum": "momentum", "Adam": "adamw:weight_decay=0"}
"""What older versions called these rules."""
OWN = {f.name for f in fields(Curve)} - {"more"}


def run_from(record: Mapping[str, Any], settings: Settings) -> Run:
    """The run of this record; `settings`: those that a run has where the record does not say.

    Raises KeyError, TypeError or ValueError where it is not the record of a run.
    """
    said, known = _settings(_mapping(_mapping(record)["settings"]), settings), {**record}
    curve, lr = _curve(_mapping(known["curve"])), _number(known["lr"])
    if not 0 < lr < math.inf or _count(said["agents"]) < 1:
        raise ValueError(f"a run of {said['agents']} agents with a learning rate of {lr}")
    stale, final = _mapping(known["staleness"]), _mapping(known["final"])
    return Run(
        algorithm=_text(known["algorithm"]), lr=lr, seed=_count(known["seed"]), settings=said,
        measure=_text(known.get("measure") or ("accuracy" if curve.accuracy else "loss")), curve=curve,
        time_to_target=_maybe(known["time_to_target"]), diverged_at=_maybe(known["diverged_at"]),
        final=dict.fromkeys(FINAL) | {name: _maybe(value) for name, value in final.items()},
        updates=_count(known["updates"]), messages=_count(known["messages"]),
        megabytes=_number(known["megabytes"]),
        staleness=Staleness(_count(stale["B"]), None if stale["D"] is None else _count(stale["D"])),
        digest=_text(known["digest"]), wall_s=math.nan, tuning=_tuning(known.get("tuning"), lr),
        error=None if known["error"] is None else _text(known["error"]), epoch=_maybe(known.get("epoch")),
        details=_details(known.get("details", {})),
        holdings=None if known.get("holdings") is None else Holdings.of(_mapping(known["holdings"])),
        world=_world(known.get("world"), said),
    )  # fmt: skip


def _settings(said: Mapping[str, Any], default: Settings) -> Settings:
    """All settings of a run, each of its type; what an older file lacks is as nobody said it then."""
    found = Settings({**default, **said}, default.of)
    found.setdefault("own", [])
    _named_now(found)
    for each in default.declared():
        value = found[each.name] if found[each.name] is not None else default[each.name]
        if f"the {each.name} {value}" in _list(found["own"]):
            continue  # the user's own, by its name
        if value is None and each.name in ALWAYS:
            raise TypeError(f"the setting '{each.name}' is null")
        try:
            found[each.name] = None if value is None else each.kind.record(each.checked(value))
        except SettingError as error:
            raise ValueError(f"{error}".rstrip(".")) from None
    found.departures()  # whether they can be told
    _list(found["own"]), _list(found.get("faults", [])), _list(found.get("missing", []))
    _number(found.get("unit", 1.0))
    return found


def _named_now(settings: Settings) -> None:
    """What older versions called the rule is the optimizer."""
    former = settings.pop("rule", None)
    if former is not None:
        own, which = f"the rule {former}", OPTIMIZERS.get(str(former))
        settings["optimizer"] = which or former
        named = [] if which else [f"the optimizer {former}"]
        settings["own"] = [*(each for each in settings["own"] if each != own), *named]


def _curve(columns: Mapping[str, Any]) -> Curve:
    found = {name: [_value(value) for value in _list(values)] for name, values in columns.items()}
    lengths = {len(values) for values in found.values() if values}
    if len(lengths) != 1 or not found["time"] or not found["loss"]:
        raise ValueError(f"its curve's columns have {sorted(lengths)} values")
    own = {name: values for name, values in found.items() if name in OWN}
    more = {name: values for name, values in found.items() if name not in OWN}
    return Curve(**own, more=more)


def _world(record: Any, settings: Settings) -> WorldValues | None:
    """Where it is not recorded it is plain, or of a version that has all of it in its settings."""
    if record is None:
        return WorldValues.said(settings)
    return WorldValues.read(_mapping(record), settings["agents"])


def _details(groups: Any) -> Details:
    """What was measured beside the curve: group -> name -> values."""
    return {
        group: {name: [*_list(values)] for name, values in _mapping(of).items()}
        for group, of in _mapping(groups).items()
    }


def _tuning(record: Any, lr: float) -> Tuning | Halving | None:
    """How the learning rate was found; in its record the rates that were tried have six digits."""
    if record is None:
        return None
    if "candidates" in _mapping(record):
        return _halving(record)
    steps = {}
    for name, tried in _mapping(record["steps"]).items():
        steps[lr if name == f"{lr:g}" else float(name)] = _tried(tried)
    if lr not in steps:
        raise ValueError(f"its learning rate, {lr:g}, is none of those that were tried")
    return Tuning(
        _text(record["by"]), _maybe(record["level"]), tuple(map(_number, _list(record["grid"]))),
        tuple(map(_count, _list(record["seeds"]))), steps,
    )  # fmt: skip


def _halving(record: Mapping[str, Any]) -> Halving:
    """How several hyperparameters were found together."""
    candidates = []
    for each in _list(record["candidates"]):
        params = {_text(name): _figure(value) for name, value in _mapping(each["params"]).items()}
        candidates.append(Candidate(params, _number(each["until"]), _tried(each)))
    if not 0 <= _count(record["chosen"]) < len(candidates):
        raise ValueError(f"the candidate that was chosen, {record['chosen']}, is none of {len(candidates)}")
    return Halving(
        _text(record["by"]), _maybe(record["level"]), _text(record["space"]), _figure(record["budget"]),
        tuple(map(_count, _list(record["seeds"]))), tuple(map(_number, _list(record["rungs"]))),
        tuple(candidates), record["chosen"],
    )  # fmt: skip


def _tried(record: Any) -> Tried:
    """The values of the seeds are not in the record; their smallest, median and largest are."""
    values = tuple(_maybe(_mapping(record)[which]) for which in ("smallest", "median", "largest"))
    return Tried(values, _maybe(record["final_loss"]), record["why_not"] or "")


def _figure(value: Any) -> Any:
    """A number as it is, whole or not."""
    return value if type(value) is int else _number(value)


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r:.60} where names and values were expected")
    return value


def _list(value: Any) -> Sequence[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} where a list was expected")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.60} where text was expected")
    return value


def _count(value: Any) -> int:
    if type(value) is not int:
        raise TypeError(f"{value!r:.60} where a whole number was expected")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float):
        raise TypeError(f"{value!r:.60} where a number was expected")
    return float(value)


def _maybe(value: Any) -> float | None:
    return None if value is None else _number(value)


def _value(value: Any) -> Any:
    """Of a curve, as it is, whole numbers too."""
    return math.nan if value is None else _figure(value)
