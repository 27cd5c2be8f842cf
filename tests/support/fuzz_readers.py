"""The readers: how a good file of each is made, how it is read, and what only somebody who knows its format
writes.
"""

from __future__ import annotations

import gzip
import json
import os
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from checkpoints import save
from data_files import PLAY, cifar_set, write_cifar

from offbeat.algorithms import find
from offbeat.core.vector import Vector
from offbeat.engines.events import TABLES, RegisterRead
from offbeat.engines.live.members import Members, Stage, keep_stages, stages_of
from offbeat.engines.live.node import checkpoint, log
from offbeat.engines.live.node.enter import agent_context
from offbeat.engines.live.node.faults import parse_fault
from offbeat.engines.live.node.performer import Snapshot
from offbeat.engines.live.node.snapshots import ModelSnapshots
from offbeat.engines.live.settings import CheckpointPolicy, ExperimentProgram, RunSettings
from offbeat.engines.live.shm.board import Board
from offbeat.engines.live.shm.mail import Mailbox
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import layout_of
from offbeat.engines.trace import Trace
from offbeat.experiments import predicting
from offbeat.experiments.experiment import Experiment
from offbeat.experiments.live.series import Series
from offbeat.experiments.predicting import predict
from offbeat.experiments.replaying import replayed
from offbeat.experiments.runs import Job, run_one
from offbeat.experiments.setup import prepare
from offbeat.experiments.sweep.grid import points, read_grid
from offbeat.experiments.sweep.store import Store
from offbeat.tasks import cifar
from offbeat.tasks.data import STEMS, load
from offbeat.tasks.text import read_text
from offbeat.training.export import export
from offbeat.world.delays import parse
from offbeat.world.growth import Newcomer

Craft = Callable[[Path, Random], str]


class Noticed(Exception):
    """The reader goes on without what was damaged, and says so."""


@dataclass(frozen=True)
class Reader:
    """One reader.

    file: which one is wrecked; summed: there is a checksum; named: errors name the file
    craft: changes a file in a way that its checksum does not notice; weight: how often it has its turn
    """

    name: str
    file: str
    make: Callable[[Path], object]
    read: Callable[[Path], object]
    summed: bool = False
    named: bool = True
    craft: Craft | None = None
    weight: int = 4


ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**9, 10**40, 1e308, float("nan"), "", "x", "\x1b[2J", [], {}, [[]],
    {"tensor": "state.x"}, {"same": 5},
    {"message": "os:system", "fields": {}}, {"dict": [[1]]}, {"deque": [], "longest": -1}, {"int": "0x"},
)  # fmt: skip
"""Values that have no business where they are put."""


def odd_json(value: Any, rng: Random) -> Any:
    """The same with something else at one place."""
    if rng.random() < 0.15 or not isinstance(value, dict | list) or not value:
        return rng.choice(ODD)
    if isinstance(value, list):
        k = rng.randrange(len(value))
        return [odd_json(item, rng) if i == k else item for i, item in enumerate(value)]
    name = rng.choice(list(value))
    if rng.random() < 0.2:
        rest = {key: item for key, item in value.items() if key != name}
        return {**rest, "new": 1} if rng.random() < 0.5 else rest
    return {key: odd_json(item, rng) if key == name else item for key, item in value.items()}


def plain(value: Any) -> object:
    """Something that can be compared."""
    match value:
        case torch.Tensor() | np.ndarray():
            return (str(value.dtype), tuple(value.shape), np.asarray(value).tobytes())
        case Vector():
            return [plain(part) for part in value.parts]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case list() | tuple():
            return [plain(item) for item in value]
    return value


# -- checkpoints -----------------------------------------------------------------------------------

X = Vector((torch.arange(6.0),))
STATE = {
    "agent": {"x": X, "heard": {1: torch.ones(3)}, "rng": (3, (1, 2), None)},
    "model": {"w": torch.arange(6.0).reshape(2, 3)},
    "rest": {"n": torch.tensor(3)},
    "steps": 7,
}
ABOUT = {"algorithm": "adsgd", "agents": 1, "seed": 0, "model": [["w", [2, 3], "torch.float32"]]}
NEWEST = f"checkpoints/agent-0/{checkpoint.step_name(20)}.safetensors"


def make_checkpoints(folder: Path) -> None:
    for step in (10, 20):
        save(folder / "checkpoints" / "agent-0", step, ABOUT, STATE)


def exported(path: Path) -> object:
    """By way of the folder; a damaged newest one may be left out, but not silently."""
    done = export(path.parents[2], force=True)
    if done.damaged:
        raise Noticed(done.damaged[0])
    return plain(dict(done.sources[0].tensors))


def resumed(path: Path) -> object:
    said: list[str] = []
    checkpoint.set_aside(path.parent, said.append)
    if said:
        raise Noticed(said[0])
    return plain(checkpoint.load(path))


def craft_checkpoint(path: Path, rng: Random) -> str:
    """An odd state with the checksum that fits."""
    head = {"offbeat": checkpoint.FORMAT, "sum": "0" * 8}
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    entries = json.loads(whole[8 : 8 + length])
    saved = entries["__metadata__"]
    texts = {name: json.dumps(odd_json(json.loads(saved[name]), rng)) for name in ("about", "state")}
    if rng.random() < 0.1:
        head["offbeat"] = rng.choice(("checkpoint 3", "checkpoint 1", "checkpoint 99999999999", "model 1"))
    if rng.random() < 0.2:
        texts["state"] = "[" * 100_000
    entries["__metadata__"] = head | texts
    text = json.dumps(entries).encode()
    content = len(text).to_bytes(8, "little") + text + whole[8 + length :]
    if match := checkpoint.SUM.match(content):
        start, end = match.span(1)
        total = zlib.crc32(content[end:], zlib.crc32(content[:start]))
        content = content[:start] + f"{total:08x}".encode() + content[end:]
    path.write_bytes(content)
    return "an odd state"


# -- traces ----------------------------------------------------------------------------------------

EXPERIMENT = {"task": "quadratic", "agents": 3, "topology": "ring", "until": 8.0, "case": "base"}


def make_trace(folder: Path) -> None:
    run = run_one(Job(prepare(Experiment(**EXPERIMENT), 0), find("adsgd"), 0.05))  # type: ignore[arg-type]
    assert run.trace is not None
    settings = {
        "algorithm": "adsgd",
        "agents": 3,
        "seed": 0,
        "unit": 0.01,
        "lr": 0.05,
        "experiment": EXPERIMENT,
    }
    replace(run.trace, settings=settings).save(folder / "trace.npz")
    (folder / "agent-0.json").write_text(json.dumps({"model": "?"}))


def read_trace(path: Path) -> object:
    trace = Trace.load(path)
    return trace.digest(), dict(trace.settings), trace.staleness(), len(trace.table())


def read_replayed(path: Path) -> object:
    outcome = replayed(Trace.load(path), path.parent)
    return outcome.lines, outcome.trace.digest()


def read_predicted(path: Path) -> object:
    before, predicting.REPEATS = predicting.REPEATS, 1
    try:
        return json.dumps(predict(Trace.load(path), until=2.0).record())
    finally:
        predicting.REPEATS = before


def craft_trace(path: Path, rng: Random) -> str:
    """Odd numbers, columns, settings or sizes, with the checksums that fit."""
    with np.load(path) as z:
        arrays = {name: z[name] for name in z.files}
    name = rng.choice(list(arrays))
    if name in TABLES and rng.random() < 0.7:
        table = arrays[name].copy()
        column = rng.choice(table.dtype.names)
        table[column][rng.randrange(len(table))] = rng.choice(
            (-1, -2, 3, 7, 1000, 2**14, *([1e300, np.nan] if "f" in table[column].dtype.str else []))
        )
        arrays[name] = table
    elif name == "settings" or rng.random() < 0.4:
        arrays["settings"] = np.array(json.dumps(odd_json(json.loads(str(arrays["settings"])), rng)))
    elif name == "format":
        arrays[name] = np.array(rng.choice(("trace 2", "trace 1e9", "checkpoint 9", "")))
    else:
        arrays[name] = rng.choice(
            (
                np.array(rng.choice((-1, 0, 10**9, 2**62, 1.5))),
                np.zeros((3, 0)),
                np.array(["a"] * 9),
                arrays[name][..., None],
            )
        )
    np.savez_compressed(path, **arrays)
    return f"an odd {name}"


def bomb(path: Path, rng: Random) -> str:
    """An array that would be inflated to a gigabyte."""
    head = (
        b"\x93NUMPY\1\0v\0{'descr': '<f8', 'fortran_order': False, 'shape': (125000000,), }".ljust(127)
        + b"\n"
    )
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
        archive.open("events.npy", "w") as file,
    ):
        file.write(head)
        for _ in range(rng.choice((1, 200))):
            file.write(bytes(1_000_000))
    return "a bomb"


def crafted(*crafts: Craft) -> Craft:
    return lambda path, rng: rng.choice(crafts)(path, rng)


# -- logs ------------------------------------------------------------------------------------------


def make_log(folder: Path) -> None:
    written = log.Log(folder / "agent-0.trace")
    for k in range(12):
        kind = written.rows.kind(folder if k % 2 else k)
        written.rows.event(RegisterRead(float(k), 0, 0, kind, k, 0.0, 0.0))
        written.rows.write(float(k), 0, k, [(0, k)])
        written.rows.transmissions.append(float(k), float(k), 0, kind, 24)
        written.flush()
    written.close()


def read_log(path: Path) -> object:
    found = log.read(path)
    trace = log.merged([path], {})
    trace.check()
    trace.staleness()
    if found.lost or found.end < found.size or log.damage(trace):
        raise Noticed(f"{found.lost} bytes lost, {found.size - found.end} torn")
    if 0 < len(found.writes) < 12 or not found.size:
        raise Noticed("it ends earlier, between two records: as a process leaves it that was killed then")
    return plain([getattr(found, name) for name in TABLES]), found.kinds


def craft_log(path: Path, rng: Random) -> str:
    """Odd records with the checksums that fit."""
    whole, at = bytearray(path.read_bytes()), 0
    for _ in range(rng.randrange(12)):
        *counts, names, _, _ = log.FRAME.unpack_from(whole, at + log.SUM.size)
        at += log.HEAD + sum(d.itemsize * c for d, c in zip(TABLES.values(), counts, strict=True)) + names
    *counts, names, _, _ = log.FRAME.unpack_from(whole, at + log.SUM.size)
    end = at + log.HEAD + sum(d.itemsize * c for d, c in zip(TABLES.values(), counts, strict=True)) + names
    for _ in range(rng.choice((1, 3))):
        whole[rng.randrange(at + log.SUM.size, end)] = rng.choice((0, 1, 127, 128, 255))
    log.SUM.pack_into(whole, at, log.MAGIC, zlib.crc32(whole[at + log.SUM.size : end]))
    if rng.random() < 0.2:
        whole += log.MAGIC * 50_000
    path.write_bytes(whole)
    return "an odd record"


# -- JSON ------------------------------------------------------------------------------------------

LIVE: dict[str, Any] = {
    "task": "quadratic", "agents": 3, "topology": "ring", "case": "base", "straggler": None, "reg": 0.001,
    "seed": 0, "slowdown": 10.0, "skew": 1.0, "dirichlet": None, "batch": 32, "target": None, "loss": 0.0,
    "until": 20.0, "data": None, "compute": "gamma 0.25", "communication": "lognormal 1", "eval_every": None,
    "unit": 0.02, "algorithms": ["adsgd"], "lr": {"all": [0.05]},
}  # fmt: skip
HOW: dict[str, Any] = {
    "max_restarts": 3,
    "checkpoint_every": 0,
    "fault": ["slow agent 1 by 2"],
    "on_death": "stop",
    "on_nan": "skip",
}


RUN = RunSettings(
    agents=3, folder=Path("out"), program=ExperimentProgram(EXPERIMENT, 0.05),
    checkpoint_every=CheckpointPolicy(5),
    fault=(parse_fault("slow agent 1 by 2", 3),),
).record()  # fmt: skip


def read_live(path: Path) -> object:
    series = Series.resumed(path.parent, LIVE, HOW, set())
    return series.asked, series.how, len(series.runs)


def read_place(path: Path) -> object:
    told = {
        "RUN": str(path.parent),
        "RANK": "0",
        "INCARNATION": "1",
        "LIFELINE": "0",
        "PID": str(os.getpid()),
    }
    told = {f"OFFBEAT_{name}": value for name, value in told.items()}
    os.environ.update(told)
    try:
        here = agent_context()
        assert here is not None
        return here.settings
    finally:
        for name in told:
            del os.environ[name]


def craft_json(path: Path, rng: Random) -> str:
    path.write_text(json.dumps(odd_json(json.loads(path.read_text()), rng)))
    return "odd settings"


def make_looks(folder: Path) -> None:
    looks = ModelSnapshots(folder / "looks", (torch.zeros(2, 3),), anew=True)
    for k in range(3):
        looks.add(float(k), (torch.full((2, 3), float(k)),), k)
    looks.close()


def read_looks(path: Path) -> object:
    looks = ModelSnapshots(path, (torch.zeros(2, 3),), anew=False)
    if len(looks.taken) < 3:
        raise Noticed("it ends earlier, as a launcher leaves it that was killed then")
    return plain([list(look) for look in looks.taken]), looks.final


# -- sweeps ----------------------------------------------------------------------------------------

TOML = """[fixed]
task = "quadratic"
until = 20
agents = 4
crash = ["agent 1 at 5 until 9"]
[grid]
algorithm = ["adsgd", "dsgd"]
seed = [0, 1]
lr = [0.01, 0.05]
[lr]
dsgd = [0.05]
"""
POINT = points({"fixed": {"task": "quadratic", "algorithm": "adsgd", "agents": 3, "until": 20}})[0]
ODD_TOML = (
    "-1",
    "1e400",
    "nan",
    "[[]]",
    "{a=1}",
    "1979-05-27",
    '"\\u0000"',
    "9" * 30,
    "true",
    '""',
    "[]",
    "[1, 'x']",
    "0x7fffffffffffffff",
    "1e-320",
)


def craft_toml(path: Path, rng: Random) -> str:
    lines = path.read_text().splitlines()
    k = rng.choice([k for k, line in enumerate(lines) if "=" in line])
    name, odd = lines[k].partition("=")[0], rng.choice(ODD_TOML)
    lines[k] = f"{name}= [{odd}]" if rng.random() < 0.4 else f"{name}= {odd}"
    if rng.random() < 0.3:
        lines.insert(
            k,
            f"{rng.choice(('compute', 'data', 'topology', 'case', 'eval_every', 'x.y'))} = "
            f"{rng.choice(ODD_TOML)}",
        )
    path.write_text("\n".join(lines))
    return "odd settings"


def read_store(path: Path) -> object:
    row = Store(path.parents[1] / "a.parquet").read(POINT)
    if row is None:
        raise Noticed("not finished: it is run again")
    return row


def make_store(folder: Path) -> None:
    store = Store(folder / "a.parquet")
    with store.locked():
        store.write(POINT.key, {"key": POINT.key, "curve_loss": [1.0, 0.5, None]})


# -- delays and data -------------------------------------------------------------------------------

DELAYS = np.linspace(0.5, 2.0, 40)


def read_delays(path: Path, column: str = "") -> object:
    delay = parse(f"file {path}{column}")
    return delay.values, delay.mean, delay.source.partition(f"{path}{column}")[2]


def craft_npy(path: Path, rng: Random) -> str:
    odd: Any = rng.choice((
        np.array(3.0), np.zeros((0,)), np.array([np.nan]), np.array([1e308] * 20), np.array(["a"]),
        np.array([5e-324]), np.array([1 + 2j]), np.zeros(3, "V8"), np.array([True]), np.array([1], "M8[s]"),
        np.array([(1, 2.0)], "i4,f8"), np.array([-1.0, 2.0]), np.array([np.inf, 1.0]), np.ones((2, 3)),
        np.array([2**64 - 1], np.uint64),
    ))  # fmt: skip
    with path.open("wb") as file:
        np.savez(file, odd) if path.suffix == ".npz" else np.save(file, odd)
    return "an odd array"


def craft_text(path: Path, rng: Random) -> str:
    odd = rng.choice(
        (
            "0,5\n0,7\n",
            "a\n",
            "1 2\n",
            "1;2\n3\n",
            "1e999\n",
            "-0.0\n0\n",
            "٣\n",
            "1__0\n",
            "\n\n",
            "#\n",
            "1\t2\n",
            "nan\n" * 9,
            "1\r2\r3",
            "x," * 9999,
        )
    )
    path.write_text(path.read_text() + odd if rng.random() < 0.5 else odd, "utf-8")
    return "odd lines"


def make_data(folder: Path, zipped: bool) -> None:
    for k, stem in enumerate(STEMS):
        count = 6 if k < 2 else 3
        shape = (count, 28, 28) if "images" in stem else (count,)
        raw = bytes((0, 0, 8, len(shape))) + b"".join(s.to_bytes(4, "big") for s in shape)
        raw += (np.arange(int(np.prod(shape))) % 10).astype(np.uint8).tobytes()
        (folder / (stem + ".gz" * zipped)).write_bytes(gzip.compress(raw, mtime=0) if zipped else raw)


def read_data(path: Path) -> object:
    found = load("mnist", path.parent)
    return plain([found.train_x, found.train_y, found.test_x, found.test_y])


def make_cifar(folder: Path, packed: bool) -> None:
    write_cifar(folder, cifar_set(count=1), packed)


def read_cifar(path: Path) -> object:
    with patch.object(cifar, "cache_folder", lambda: path.parent / "cache"):
        found = cifar.images(path.parent)
    return plain([found.train_x, found.train_y, found.test_x, found.test_y])


def read_play(path: Path) -> object:
    found = read_text(path.parent)
    return plain([found.train_x, found.test_y, found.symbols])


def craft_gz(path: Path, rng: Random) -> str:
    zeros = bytes((0, 0, 8, 3)) + rng.choice((6, 300_000)).to_bytes(4, "big") + bytes((0, 0, 0, 28)) * 2
    path.write_bytes(
        gzip.compress(zeros + bytes(28 * 28 * 300_000 if rng.random() < 0.2 else 5000), 9, mtime=0)
    )
    return "a bomb"


# -- shared memory ---------------------------------------------------------------------------------


def make_register(folder: Path) -> None:
    Register.create(folder / "register.0", layout_of(Snapshot(Vector((torch.zeros(4),)))), [1])


def read_register(path: Path) -> object:
    found = Register.attach(path)
    return found.to, found.layout.text


def text(name: str, content: str) -> Callable[[Path], object]:
    """Makes a file of text."""
    return lambda folder: (folder / name).write_text(content)


READERS = [
    Reader("checkpoint", NEWEST, make_checkpoints, lambda path: plain(checkpoint.load(path)), True,
           craft=craft_checkpoint, weight=6),
    Reader("resume", NEWEST, make_checkpoints, resumed, True, craft=craft_checkpoint),
    Reader("export", NEWEST, make_checkpoints, exported, True, craft=craft_checkpoint),
    Reader("trace", "trace.npz", make_trace, read_trace, True, weight=6,
           craft=crafted(craft_trace, craft_trace, craft_trace, bomb)),
    Reader("replay", "trace.npz", make_trace, read_replayed, True, named=False, craft=craft_trace, weight=4),
    Reader("replayed model", "agent-0.json", make_trace,
           lambda path: read_replayed(path.with_name("trace.npz")), craft=craft_json, weight=1),
    Reader("predict", "trace.npz", make_trace, read_predicted, True, named=False,
           craft=craft_trace, weight=1),
    Reader("log", "agent-0.trace", make_log, read_log, True, craft=craft_log, weight=6),
    Reader("run.json", "run.json", text("run.json", json.dumps(RUN)), read_place, named=False,
           craft=craft_json, weight=2),
    Reader("stages.json", "stages.json",
           lambda folder: keep_stages(folder, [Stage(3, "ring", None, (Newcomer((0,), (1, 2)),), 2.5)]),
           lambda path: stages_of(path.parent), craft=craft_json, weight=1),
    Reader("members.json", "members.json",
           lambda folder: Members((Newcomer((0,), (1,)),), (2,)).write(folder),
           lambda path: Members.of(path.parent, 3), craft=craft_json, weight=1),
    Reader("live.json", "live.json", lambda folder: Series.of(LIVE, HOW).keep_asked(folder), read_live,
           named=False, craft=craft_json),
    Reader("looks", "looks", make_looks, read_looks, True, weight=2),
    Reader("sweep", "grid.toml", text("grid.toml", TOML), lambda path: [p.key for p in read_grid(path)],
           craft=craft_toml, weight=6),
    Reader("store", f"a.parquet.runs/{POINT.key}.run", make_store, read_store, True, weight=2),
    Reader("delays.npy", "d.npy", lambda folder: np.save(folder / "d.npy", DELAYS), read_delays,
           craft=craft_npy),
    Reader("delays.npz", "d.npz", lambda folder: np.savez_compressed(folder / "d.npz", rtt=DELAYS),
           read_delays, True, craft=crafted(craft_npy, bomb)),
    Reader("delays.txt", "d.txt", lambda folder: np.savetxt(folder / "d.txt", DELAYS), read_delays,
           craft=craft_text),
    Reader("delays.csv", "d.csv", text("d.csv", "at,rtt\n1,0.5\n2,0.7\n"),
           partial(read_delays, column=":rtt"), craft=craft_text),
    Reader("data", STEMS[0], partial(make_data, zipped=False), read_data),
    Reader("data.gz", STEMS[0] + ".gz", partial(make_data, zipped=True), read_data, True, craft=craft_gz),
    Reader("cifar", cifar.FILES[1], partial(make_cifar, packed=False), read_cifar, weight=1),
    Reader("cifar.xz", cifar.FILES[1] + ".xz", partial(make_cifar, packed=True), read_cifar, True,
           named=False, weight=2),  # where it cannot be followed, the file without .xz is named
    Reader("play", "input.txt", text("input.txt", PLAY), read_play, craft=craft_text, weight=2),
    Reader("board", "board", lambda folder: Board.create(folder / "board", 3),
           lambda path: Board.attach(path).n, weight=1),
    Reader("register", "register.0", make_register, read_register, named=False, weight=1),
    Reader("mailbox", "mail.0", lambda folder: Mailbox.create(folder / "mail.0", 64),
           lambda path: Mailbox.attach(path).capacity, weight=1),
]  # fmt: skip
"""All but those of results: `fuzz_results`."""
