"""Checkpoints of one agent: its whole state in one file, which is there completely or not at all.

A checkpoint is a safetensors file, <folder>/step-000000120.safetensors, that any reader of safetensors opens:
the tensors by their place in the state, and in its metadata, as JSON, `about` (which run this is), and
`state` (everything else, see `encode`). No file is ever unpickled.

It is written under another name, brought to the disk, and then renamed; so a process may be killed, a disk
may be full and the power may go at any instant, and the checkpoints before are still there. A folder belongs
to one writer.

Its head begins with the CRC-32 of everything else in the file, at a place that never moves. What does not fit
is damaged: `load` refuses it, and `set_aside` takes it out of the way, so that the one before it is the
newest.

    save(folder, step_name(120), about, {"agent": agent_state(agent), "rule": rule_state(agent.rule)})
    about, state = load(path_of(folder, latest(folder)[0]))
    restore_agent(agent, state["agent"])        # one that has joined
    restore_rule(agent.rule, state["rule"])
"""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from offbeat.core.agent import Agent
from offbeat.core.errors import ContractError, DataError, DiskError, SettingError
from offbeat.core.rules import Rule
from offbeat.core.system.reading import opened, reading, refuse_newer
from offbeat.engines.live.node.encode import decode, encode, name_of
from offbeat.engines.live.node.guard import NotFinite, not_finite

FORMAT, EARLIER = "checkpoint 2", "checkpoint 1"
"""What the metadata calls this format, and the one before it, which had no checksum."""
ENDING, TEMPORARY, DAMAGED = ".safetensors", ".checkpoint-", ".damaged"
EXPECTED = "a whole checkpoint of a live run"
SUM = re.compile(rb'.{8}\{"__metadata__": \{"offbeat": "checkpoint \d+", "sum": "([0-9a-f]{8})"', re.DOTALL)
"""How a file with a checksum begins."""
UNSUMMED = b"0" * 8
CHUNK = 1 << 20
STEP = re.compile(r"step-(\d{9,})\.safetensors")
GIVEN = frozenset(("me", "n", "view", "rule", "effects"))
"""Fields of an agent that whoever lets it join gives it."""
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16",
    torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
LONGEST_HEAD = 100_000_000
"""Bytes: readers of safetensors refuse more."""


class CheckpointError(DiskError):
    """A checkpoint cannot be written; those before it are intact."""


def step_name(step: int) -> str:
    """The name of the checkpoint of a step."""
    return f"step-{step:09d}"


def path_of(folder: Path, step: int) -> Path:
    """Where it is."""
    return folder / f"{step_name(step)}{ENDING}"


def agent_folder(folder: Path, agent: int) -> Path:
    """Where an agent's checkpoints are, in the folder of a run."""
    return folder / "checkpoints" / f"agent-{agent}"


def save(folder: Path, name: str, about: Mapping[str, Any], state: object, keep: int = 2) -> Path:
    """Write folder/name.safetensors, whole or not at all, and return its path.

    If `name` is that of a step, of the checkpoints of earlier steps all but the newest keep - 1 are removed;
    and those of later steps, which belong to a run that was given up when this one went back.

    Raises ContractError if the state cannot be stored, CheckpointError if the file cannot be written.
    """
    return finish(begin(folder, name, about, state), keep)


def begin(
    folder: Path, name: str, about: Mapping[str, Any], state: object, usual: Set[str] | None = None
) -> Path:  # fmt: skip
    """Write the state as it is now, under a temporary name; what it needs in memory is a copy of what was
    heard.

    Returns where `finish` finds it. Raises as `save` does, and NotFinite.

    Args:
        folder: where it goes
        name: what it is called
        about: which run this is
        state: what is saved
        usual: if given, all tensors but these have to be finite
    """
    if Path(name).name != name or name[:1] in ("", "."):
        raise SettingError(f"A checkpoint needs a plain name; got '{name}'.")
    known, none = encode(dict(about), "about")
    if none:
        raise ContractError(f"`about` says which run this is, without tensors; {min(none)} is one.")
    tree, tensors = encode(state)
    if usual is not None and (wrong := set(not_finite(tensors)) - usual):
        raise NotFinite(
            f"{min(wrong)} is not finite, so {folder / name} is not written. The checkpoints before stay."
        )
    metadata = {
        "offbeat": FORMAT,
        "sum": UNSUMMED.decode(),
        "about": json.dumps(known),
        "state": json.dumps(tree),
    }
    head = _head(metadata, tensors)
    size = len(head) + sum(tensor.nbytes for tensor in tensors.values())
    temporary = folder / f"{TEMPORARY}{os.getpid()}-{name}{ENDING}"
    with _explained(folder / f"{name}{ENDING}", size):
        folder.mkdir(parents=True, exist_ok=True)
        for stray in folder.glob(f"{TEMPORARY}*"):  # of a writer that was killed
            stray.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(head)
                for _, tensor in _ordered(tensors):
                    file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    return temporary


def finish(temporary: Path, keep: int = 2) -> Path:
    """Put the checksum into what `begin` wrote, bring it to the disk, and give it its name. Raises as `save`
    does.
    """
    if keep < 1:
        raise SettingError(f"Expected to keep at least 1 checkpoint; got {keep}.")
    folder = temporary.parent
    name = temporary.name.removeprefix(f"{TEMPORARY}{os.getpid()}-").removesuffix(ENDING)
    path = folder / f"{name}{ENDING}"
    with _explained(path, temporary.stat().st_size):
        try:
            with temporary.open("rb+") as file:
                at, _, found = _summed(file)
                file.seek(at)
                file.write(found)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)  # the name
        finally:
            os.close(handle)
        if STEP.fullmatch(path.name):
            step, steps = int(name.removeprefix("step-")), latest(folder)
            for other in {*steps} - {*[s for s in steps if s <= step][:keep]}:
                path_of(folder, other).unlink(missing_ok=True)
    return path


@contextmanager
def _explained(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"Cannot write the checkpoint {path} of {size / 1e6:.1f} MB: {error.strerror or error}. The ones "
            "before it are intact. Is there room, and may this user write there?"
        ) from error


def latest(folder: Path) -> list[int]:
    """The steps of which there is a checkpoint, the newest first."""
    found = (STEP.fullmatch(path.name) for path in folder.glob("step-*"))
    return sorted((int(step[1]) for step in found if step), reverse=True)


def newest(folder: Path, agents: int, together: bool) -> int | None:
    """The step that the agent of this folder goes on from, if any: its newest; or the newest that all agents
    have.

    The folders of the others are beside it: agent-0, agent-1, ...
    """
    mine = latest(folder)
    if together:
        others = [latest(folder.parent / f"agent-{j}") for j in range(agents)]
        mine = [step for step in mine if all(step in steps for steps in others)]
    return mine[0] if mine else None


def load(path: Path, checked: bool = False) -> tuple[dict[str, Any], Any]:
    """What `save` was given: (about, state), the tensors on the CPU.

    Args:
        checked: `set_aside` has found that its checksum fits

    Raises DataError if the file is missing, damaged or something else.
    """
    with tensors_of(path, checked=checked) as (head, file):
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (no iterator)
        return decode(json.loads(head["about"]), {}), decode(json.loads(head["state"]), tensors)


@contextmanager
def tensors_of(path: Path, do: str = "", checked: bool = False) -> Iterator[tuple[dict[str, str], Any]]:
    """The metadata of a checkpoint, and the open file. Raises DataError, also for what goes wrong within.

    Args:
        do: what to do then
        checked: its checksum is known to fit
    """
    with reading(path, EXPECTED, do):
        if why := "" if checked else damage(path):
            raise ValueError(why)
        with safe_open(path, framework="pt") as file:
            head = file.metadata()
            refuse_newer(path, head["offbeat"], FORMAT)
            yield head, file


def damage(path: Path) -> str:
    """Why a checkpoint cannot be used, other than that it is of a newer version; empty if it can."""
    with reading(path, EXPECTED), opened(path) as file:
        at, said, found = _summed(file)
    if at:
        return "" if said == found else "it is damaged: its checksum does not fit"
    try:
        with safe_open(path, framework="pt") as whole:
            got = (whole.metadata() or {}).get("offbeat")
    except Exception as error:  # whatever the library makes of it
        return f"it is damaged: {error}"
    return "" if got == EARLIER else f"it is damaged, or no checkpoint: its metadata says offbeat = {got!r}"


def set_aside(folder: Path, on_notice: Callable[[str], None]) -> None:
    """Give damaged checkpoints another ending, so that the newest is one that can be read; `on_notice` says
    what was done.
    """
    for step in latest(folder):
        path = path_of(folder, step)
        if why := damage(path):
            aside = path.with_suffix(DAMAGED)
            path.replace(aside)
            on_notice(f"The checkpoint {path} is left out ({why}), and kept as {aside.name}.")


def _summed(file: BinaryIO) -> tuple[int, bytes, bytes]:
    """Where the checksum of a file is, 0 if it has none; what it says, and what it should say."""
    start = file.read(CHUNK)
    match = SUM.match(start)
    if match is None:
        return 0, b"", b""
    total = zlib.crc32(start[match.end(1) :], zlib.crc32(start[: match.start(1)]))
    while piece := file.read(CHUNK):
        total = zlib.crc32(piece, total)
    return match.start(1), match[1], f"{total:08x}".encode()


def _ordered(tensors: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """The widest numbers first, so that every tensor begins at a multiple of the size of its own."""
    return sorted(tensors.items(), key=lambda item: -item[1].element_size())


def _head(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    """What a safetensors file begins with: its length, and as JSON what lies where. The library would copy it
    all.
    """
    entries: dict[str, Any] = {"__metadata__": dict(metadata)}
    at = 0
    for name, tensor in _ordered(tensors):
        place = [at, at + tensor.nbytes]
        entries[name] = {"dtype": DTYPES[tensor.dtype], "shape": [*tensor.shape], "data_offsets": place}
        at += tensor.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEAD:
        raise ContractError(
            f"The state beside its tensors takes {len(text) / 1e6:.0f} MB; expected at most "
            f"{LONGEST_HEAD / 1e6:.0f}. Keep numbers in tensors."
        )
    return len(text).to_bytes(8, "little") + text


def agent_state(agent: Agent) -> dict[str, Any]:
    """All that the agent knows and that `join` does not give it; `rng` as `getstate` gives it.

    Taken between handlers, when every vector is a value (`offbeat.core.vector.settle`) and no effect waits.
    """
    if agent.effects:
        raise ContractError(
            f"Agent {agent.me} has effects that nobody has drained; a checkpoint would lose them."
        )
    return {**_fields(agent, GIVEN), "rng": agent.rng.getstate()}


def restore_agent(agent: Agent, state: Mapping[str, Any]) -> None:
    """Give an agent that has joined the state of another one of its class."""
    mine = {name: value for name, value in state.items() if name != "rng"}
    _set(agent, mine, _fields(agent, GIVEN | {"rng"}).keys() - mine.keys())
    agent.rng.setstate(state["rng"])


def rule_state(rule: Rule) -> dict[str, Any]:
    """What the rule's own `state_dict` gives, or the fields of a rule that is a dataclass."""
    if hasattr(rule, "state_dict") and hasattr(rule, "load_state_dict"):
        return dict(rule.state_dict())
    if is_dataclass(rule):
        return _fields(rule)
    raise ContractError(
        f"The state of a rule of type {name_of(type(rule))} is unknown. Make it a dataclass, or give it "
        "`state_dict` and `load_state_dict`, as optimizers have."
    )


def restore_rule(rule: Rule, state: Mapping[str, Any]) -> None:
    """Give a rule the state of another one of its class."""
    if hasattr(rule, "state_dict") and hasattr(rule, "load_state_dict"):
        rule.load_state_dict(dict(state))
    else:
        _set(rule, state, _fields(rule).keys() ^ state.keys())


def _fields(owner: object, without: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Every field that is set, also one that is an attribute only."""
    names = [f.name for f in fields(owner)] if is_dataclass(owner) else []
    names += [name for name in getattr(owner, "__dict__", {}) if name not in names]
    return {name: getattr(owner, name) for name in names if name not in without and hasattr(owner, name)}


def _set(owner: object, state: Mapping[str, Any], wrong: Set[str]) -> None:
    if wrong:
        raise DataError(
            f"The state is not that of {name_of(type(owner))}: they differ in {', '.join(sorted(wrong))}."
        )
    for name, value in state.items():
        object.__setattr__(owner, name, value)  # a rule may be frozen
