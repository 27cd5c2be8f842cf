"""Checkpoints of one agent: its whole state in one file, which is there completely or not at all.

A checkpoint is a safetensors file, <folder>/step-000000120.safetensors: the tensors by their place in the
state, and in its metadata, as JSON, `about` (which run this is), and `state` (everything else, see `encode`).

It is written under another name, brought to the disk, and then renamed; so a process may be killed, a disk
may be full and the power may go at any instant, and those before are still there. A folder has one writer.

Its head begins with the CRC-32 of everything else, at a place that never moves. What does not fit is damaged:
`load` refuses it, and `set_aside` takes it out of the way, so that the one before it is the newest.

    begin(folder, 120, about, {"agent": agent_state(agent)})    # while nothing of it changes
    finish(folder, 120)
    about, state = load(path_of(folder, latest(folder)[0]))
    restore_agent(agent, state["agent"])                        # one that has joined
"""

import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor

from offbeat.core.agent import Agent
from offbeat.core.errors import ContractError, DataError, DiskError
from offbeat.core.rules import restore, state_of
from offbeat.core.system.reading import json_in, opened, reading, refuse_newer
from offbeat.engines.live.node.encode import NATIVE, decode, encode, name_of
from offbeat.engines.live.node.guard import NotFinite, not_finite
from offbeat.engines.live.places import CHECKPOINTS

FORMAT, EARLIER = "checkpoint 2", "checkpoint 1"  # in the metadata; the earlier one had no checksum
ENDING, TEMPORARY, DAMAGED = ".safetensors", ".checkpoint-", ".damaged"
EXPECTED = "a whole checkpoint of a live run"
SUM = re.compile(rb'.{8}\{"__metadata__": \{"offbeat": "checkpoint \d+", "sum": "([0-9a-f]{8})"', re.DOTALL)
"""How a file with a checksum begins."""
CHUNK = 1 << 20
SAVED = ".saved.json"  # beside them, where some lack: which steps each agent has saved
STEP = re.compile(r"step-(\d{9,})\.safetensors")
About = Mapping[str, Any]  # which run something is of
KEPT = 2  # how many of the newest checkpoints stay
GIVEN = frozenset(("me", "n", "view", "rule", "effects"))
"""Fields of an agent that whoever lets it join gives it."""
LONGEST_HEAD = 100_000_000  # bytes: readers of safetensors refuse more


def step_name(step: int) -> str:
    return f"step-{step:09d}"


def path_of(folder: Path, step: int) -> Path:
    return folder / f"{step_name(step)}{ENDING}"


def agent_folder(folder: Path, agent: int) -> Path:
    return folder / CHECKPOINTS / f"agent-{agent}"


def _temporary(folder: Path, step: int) -> Path:
    return folder / f"{TEMPORARY}{os.getpid()}-{step_name(step)}{ENDING}"


def begin(folder: Path, step: int, about: About, state: object, usual: Set[str] | None = None) -> None:
    """Write the state as it is now, under a temporary name; needs the memory of what was heard, once more.

    Raises ContractError if the state cannot be stored, DiskError if the file cannot be written, and NotFinite
    if a tensor is not finite that is not in `usual`; None: it may be.
    """
    known, none = encode(dict(about), "about")
    if none:
        raise ContractError(f"`about` says which run this is, without tensors; {min(none)} is one.")
    tree, tensors = encode(state)
    if usual is not None and (wrong := set(not_finite(tensors)) - usual):
        raise NotFinite(
            f"{min(wrong)} is not finite, so {folder / step_name(step)} is not written; older ones stay."
        )
    # The widest numbers first, so that every tensor begins at a multiple of the size of its own.
    tensors = dict(sorted(tensors.items(), key=lambda item: -item[1].element_size()))
    head = _head({"about": json.dumps(known), "state": json.dumps(tree)}, tensors)
    temporary = _temporary(folder, step)
    with _explained(path_of(folder, step), len(head) + sum(tensor.nbytes for tensor in tensors.values())):
        folder.mkdir(parents=True, exist_ok=True)
        for stray in folder.glob(f"{TEMPORARY}*"):  # of a writer that was killed
            stray.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(head)
                for tensor in tensors.values():
                    file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise


def finish(folder: Path, step: int) -> None:
    """Put the checksum into what `begin` wrote, bring it to the disk, and give it its name. Of earlier steps
    only the newest stay; later ones go, as their run was given up when this one went back.
    """
    temporary, path = _temporary(folder, step), path_of(folder, step)
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
        steps = latest(folder)
        for other in {*steps} - {*[s for s in steps if s <= step][:KEPT]}:
            path_of(folder, other).unlink(missing_ok=True)


@contextmanager
def _explained(path: Path, size: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"Cannot write the checkpoint {path} of {size / 1e6:.1f} MB: {error.strerror or error}. The ones "
            "before it are intact. Is there room, and may this user write there?"
        ) from error


def latest(folder: Path) -> list[int]:
    """The steps of which there is a checkpoint, the newest first."""
    found = (STEP.fullmatch(path.name) for path in folder.glob("step-*"))
    return sorted((int(step[1]) for step in found if step), reverse=True)


def saved_by(folder: Path, agents: int) -> list[list[int]]:
    """The steps of which each agent has a checkpoint, in the folder of all: as it lies there, or, on one of
    several machines, as it was said when the run went on.
    """
    if not (folder / SAVED).exists():
        return [latest(folder / f"agent-{j}") for j in range(agents)]
    with reading(folder / SAVED, "which checkpoints there are"):
        return [[*map(int, steps)] for steps in json_in(folder / SAVED)][:agents]


def newest(folder: Path, agents: int, together: bool) -> int | None:
    """The step to go on from, if any: the newest in this agent's folder; `together`: that all agents have."""
    mine = latest(folder)
    if together:
        others = saved_by(folder.parent, agents)
        mine = [step for step in mine if all(step in steps for steps in others)]
    return mine[0] if mine else None


def load(path: Path, checked: bool = False) -> tuple[dict[str, Any], Any]:
    """What was saved: (about, state), the tensors on the CPU. Raises as `tensors_of` does."""
    with tensors_of(path, checked=checked) as (head, file):
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118  (no iterator)
        return decode(json.loads(head["about"]), {}), decode(json.loads(head["state"]), tensors)


@contextmanager
def tensors_of(path: Path, do: str = "", checked: bool = False) -> Iterator[tuple[dict[str, str], Any]]:
    """The metadata of a checkpoint, and the open file. Raises DataError if it is missing, damaged or other
    than that, also for what goes wrong within. `do`: what to do then; `checked`: its checksum fits.
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
    """Give damaged checkpoints another ending, so that the newest can be read; `on_notice` is told of it."""
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


def _head(content: Mapping[str, str], tensors: Mapping[str, Tensor]) -> bytes:
    """What a safetensors file begins with; the library's own writer would copy all tensors."""
    entries: dict[str, Any] = {"__metadata__": {"offbeat": FORMAT, "sum": "0" * 8, **content}}
    at = 0
    for name, tensor in tensors.items():
        place = [at, at + tensor.nbytes]
        entries[name] = {"dtype": NATIVE[tensor.dtype], "shape": [*tensor.shape], "data_offsets": place}
        at += tensor.nbytes
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LONGEST_HEAD:
        took, most = len(text) / 1e6, LONGEST_HEAD / 1e6
        what = f"The state beside its tensors takes {took:.0f} MB; expected at most {most:.0f}"
        raise ContractError(f"{what}. Keep numbers in tensors.")
    return len(text).to_bytes(8, "little") + text


def agent_state(agent: Agent) -> dict[str, Any]:
    """All that the agent and its local rule know, and `join` does not give it; between handlers, when vectors
    are values.
    """
    if agent.effects:
        raise ContractError(f"Agent {agent.me} has effects that nobody has drained: they would be lost.")
    state = {name: getattr(agent, name) for name in _known(agent)} | {"rng": agent.rng.getstate()}
    return state | {"rule": state_of(agent.rule)}


def restore_agent(agent: Agent, state: Mapping[str, Any]) -> None:
    """Give an agent that has joined the state of another one of its class."""
    since = {f.name for f in fields(Agent)}  # of the contract: it has had more and more fields
    if wrong := [name for name in _known(agent) if name not in state and name not in since]:
        kind = name_of(type(agent))
        raise DataError(f"The state is not that of {kind}: they differ in {', '.join(sorted(wrong))}.")
    agent.rng.setstate(state["rng"])
    restore(agent.rule, state.get("rule", {}))
    for name in [name for name in state if name not in ("rng", "rule")]:
        setattr(agent, name, state[name])


def _known(agent: Agent) -> list[str]:
    """Every field that is set, also one that is an attribute only."""
    names = dict.fromkeys([*(f.name for f in fields(agent)), *vars(agent)])
    return [name for name in names if name not in GIVEN and hasattr(agent, name)]
