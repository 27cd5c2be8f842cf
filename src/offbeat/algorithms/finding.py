"""An algorithm by its name and options, by its class, or by the file of the user that has it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from types import MappingProxyType
from typing import Any

from offbeat.algorithms.row import Algorithm
from offbeat.algorithms.table import ALGORITHMS
from offbeat.core.agent import Agent
from offbeat.core.codecs import Codec
from offbeat.core.errors import SettingError
from offbeat.core.promises import check_class
from offbeat.core.system import own
from offbeat.core.system.named import Own, called, unknown_name
from offbeat.core.words import headed, read, spelt

FORMER = {"adpsgd": "wait", "dsgd": "after"}
"""Algorithms that had an option `overlap`, and the option for what they did without it."""


EXPECTED = "a subclass of offbeat.Agent, an object of one, or a function that returns one"


def row_of(name: str) -> Algorithm | None:
    """The row of the table that a name with options is of: 'dsgd:after' is of 'dsgd'."""
    base, words = headed(name)
    variants = [f"{base}:{word}" for word in words]
    return next((ALGORITHMS[each] for each in (*variants, base) if each in ALGORITHMS), None)


def find(wanted: str | type[Agent] | Agent | Algorithm) -> Algorithm:
    """A row of the table by name, with options ("adpsgd:atomic+wait", "adsgd:theta=0.5"); or a row for a
    class of the user's, or for what is named FILE.py:NAME or FILE.py:NAME(h=10).

    Raises SettingError for an unknown name or option, ContractError for a class whose agents would share
    something.
    """
    if isinstance(wanted, str):
        named = Own.parse(wanted)
        return _named(wanted) if named is None else _loaded(named)
    if isinstance(wanted, Algorithm):
        ours = row_of(wanted.name)
        if ours and type(ours.prototype) is type(wanted.prototype):
            return wanted
        check_class(wanted.prototype)
        return replace(wanted, user_defined=True)
    agent = wanted() if isinstance(wanted, type) and issubclass(wanted, Agent) else wanted
    if not isinstance(agent, Agent):
        raise SettingError(
            f"An algorithm is a name, a subclass of offbeat.Agent or an object of one; got {wanted!r}."
        )
    check_class(agent)
    title = (type(agent).__doc__ or type(agent).__name__).strip().splitlines()[0]
    return Algorithm(_name_of(agent), agent, title, "the user's own", user_defined=True)


def _name_of(agent: Agent, options: Mapping[str, Any] = MappingProxyType({})) -> str:
    """A class of the table has its name there, any other its own: both with their options."""
    cls = type(agent)
    for row in ALGORITHMS.values():
        if type(row.prototype) is cls:
            return with_options(row, {name: getattr(agent, name) for name in row.options}).name
    known = {each.name: getattr(agent, each.name) for each in fields(agent) if each.init}
    usual = {
        each.name: each.default if each.default_factory is MISSING else each.default_factory()
        for each in fields(agent)
        if each.init
    }
    said = {name: value for name, value in known.items() if repr(value) != repr(usual[name])}
    return cls.__name__ + called(said | {name: value for name, value in options.items() if name not in known})


def _loaded(named: Own) -> Algorithm:
    """The row for the user's own code in a file."""
    with own.pinned([named.file]) as code:
        value = own.load(named, EXPECTED)
        if not isinstance(value, Agent | Algorithm) or named.options:
            value = own.made(named, {}, EXPECTED)
        if not isinstance(value, Agent | Algorithm):
            raise SettingError(f"{named} gives a {type(value).__name__}; expected {EXPECTED}.")
        row = find(value)
    name = _name_of(value, named.options) if isinstance(value, Agent) else row.name
    taken = row_of(name) is not None
    return replace(row, name=str(named) if taken else name, user_defined=True, named=str(named), code=code)


def told_apart(rows: Sequence[Algorithm]) -> list[Algorithm]:
    """The same with names that tell them apart: of those of one name, what is named by file by its file."""
    count = Counter(row.name for row in rows)
    return [replace(row, name=row.named) if row.named and count[row.name] > 1 else row for row in rows]


def _named(wanted: str) -> Algorithm:
    name, words = headed(wanted)
    name = name.lower()
    if not name or words == [""]:
        raise SettingError(f"A name is missing in '{wanted}'; expected names like 'adsgd' or 'dsgd:after'.")
    row = row_of(wanted.lower())
    if row is None:
        raise unknown_name("algorithm", wanted.strip(), name, ALGORITHMS)
    words = [_key_lower(word) for word in words]
    if "overlap" in words and name in FORMER:
        instead = ":".join(filter(None, (name, "+".join(word for word in words if word != "overlap"))))
        raise SettingError(
            f"'overlap' is no option of {name} any more: it is the default. Write '{instead}' for what "
            f"'{wanted}' was; what {name} was without it is '{name}:{FORMER[name]}'."
        )
    mine = [word for word in words if f"{name}:{word}" != row.name]
    return with_options(row, read("algorithm", row.name, mine, row.parameters))


def _key_lower(word: str) -> str:
    """'Theta=0.5' is 'theta=0.5'; a value stays as it was typed, for messages."""
    key, *value = word.partition("=")
    return "".join([key.lower(), *value])


def with_options(row: Algorithm, chosen: Mapping[str, float]) -> Algorithm:
    """A row of the table with these options, besides those that it has."""
    if not chosen:
        return row
    base = row_of(row.name) or row
    has = {name: value for name, (_, value, _) in row.chosen().items()} | dict(chosen)
    for name, value in chosen.items():
        if not isinstance(value, bool):
            base.parameters[name].read(base.name, name, value)
    plain = any(value and base.options[name].plain_lr for name, value in has.items())
    return replace(
        row, name=spelt(base.name, has, base.parameters), prototype=type(row.prototype)(**has),
        scale_lr_by_n=base.scale_lr_by_n and not plain,
    )  # fmt: skip


def with_local_steps(spec: Algorithm, steps: int | None) -> Algorithm:
    """An algorithm with so many gradients for each exchange, None: as many as it has.

    Raises SettingError for one that makes no local steps, or has another number of them by its name.
    """
    if steps is None:
        return spec
    mine = Own.parse(spec.named) if spec.named else None
    if mine is not None and spec.local in _init(spec.prototype):
        _refuse_another(spec, mine.options.get(spec.local, steps), steps)
        return _loaded(replace(mine, options={**mine.options, spec.local: steps}))
    if spec.local not in spec.options:
        if steps == 1 and not spec.user_defined:
            return spec
        able = ", ".join(name for name, row in ALGORITHMS.items() if row.local in row.options)
        raise SettingError(f"{spec.makes_none} Expected one of {able}, or no --local-steps.")
    _, value, usual = spec.chosen()[spec.local]
    _refuse_another(spec, steps if value == usual else value, steps)
    return with_options(spec, {spec.local: steps})


def _refuse_another(spec: Algorithm, named: object, steps: int) -> None:
    if named != steps:
        raise SettingError(
            f"{spec.asked} has {spec.local}={named}, and --local-steps is {steps}; expected one of them, or "
            "the same number in both."
        )


def check_codec(spec: Algorithm, codec: Codec | None) -> None:
    """Raise SettingError if messages are to be compressed, and none of this algorithm may be."""
    if codec is None or spec.compresses(codec):
        return
    others = ", ".join(each.name for each in ALGORITHMS.values() if each.compresses(codec))
    why = "accumulates nothing" if codec.sums else "sends nothing that may arrive rounded"
    said = f"{spec.name} {why}, so --compress {codec} has nothing to compress; expected one of {others}"
    if spec.user_defined:
        said += ", or a class that says which of its messages may be: sends_models, sends_changes"
    raise SettingError(f"{said}.")


def _init(agent: Agent) -> list[str]:
    return [each.name for each in fields(agent) if each.init]
