"""Checkpoints: every bit comes back, at any instant there is a whole one, of another run there is none."""

import errno
import json
import math
import multiprocessing
import os
import random
import resource
import signal
import stat
import struct
import subprocess
import sys
import zlib
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import save
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ALL, quadratic, started
from safetensors.torch import save as safetensors_bytes

import offbeat
from offbeat import SGD, Agent, Crash
from offbeat.algorithms.adsgd import Model
from offbeat.algorithms.dsgd import Letter
from offbeat.core.errors import ContractError, DataError, DiskError, SettingError
from offbeat.core.ring import Part
from offbeat.core.rules import AdamW, Nesterov, NewRule, Scheduled
from offbeat.core.schedules import Schedule
from offbeat.core.vector import Scope, Stamp, Vector
from offbeat.engines.live.node import checkpoint
from offbeat.engines.live.node.checkpoint import agent_state, latest, load, path_of, restore_agent
from offbeat.engines.live.node.encode import decode, encode, name_of
from offbeat.engines.live.node.saving import refuse_other
from offbeat.engines.outbox import Transmission
from offbeat.engines.sim.simulator import Simulator
from offbeat.world.topology import build

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # from Python 3.12 on
FORK = multiprocessing.get_context("fork")
HALF = 100_000
"""Bytes of a file that is written half."""
DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.bool, torch.complex64, torch.complex128, torch.uint16, torch.uint32,
    torch.float8_e4m3fn,
]  # fmt: skip


def bits(tensor: torch.Tensor) -> bytes:
    """What is in the tensor, in row-major order."""
    return (
        tensor.resolve_conj()
        .clone(memory_format=torch.contiguous_format)
        .reshape(-1)
        .view(torch.uint8)
        .numpy()
        .tobytes()
    )


def canonical(value: Any) -> Any:
    """Equal for two values exactly if types, order, shapes and bits are equal."""
    kind = type(value).__name__
    match value:
        case float() if type(value) is float:
            return kind, struct.pack(">d", value)
        case torch.Tensor():
            return kind, value.dtype, tuple(value.shape), bits(value)
        case np.ndarray() | np.generic():
            return kind, value.dtype.str, value.shape, value.tobytes()
        case Vector():
            return "Vector", value.late, value.stamp, [canonical(part) for part in value.parts]
        case dict():
            return kind, [(canonical(k), canonical(v)) for k, v in value.items()]
        case list() | tuple():
            return kind, [canonical(item) for item in value]
        case deque():
            return kind, value.maxlen, [canonical(item) for item in value]
        case random.Random():
            return kind, value.getstate()
    if is_dataclass(value):
        return kind, [(f.name, canonical(getattr(value, f.name))) for f in fields(value)]
    return kind, value


def again(value: Any) -> Any:
    """There and back, by way of JSON."""
    tree, tensors = encode(value)
    return decode(json.loads(json.dumps(tree)), {name: tensor.clone() for name, tensor in tensors.items()})


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits, of any type and shape; some not contiguous, some views into more, some conjugated."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape)
    content = draw(st.binary(min_size=16 * count, max_size=16 * count)) + bytes(16)
    if dtype is torch.bool:
        tensor = torch.tensor([byte % 2 == 1 for byte in content[:count]], dtype=torch.bool).reshape(shape)
    else:
        tensor = torch.frombuffer(bytearray(content), dtype=dtype)[:count].reshape(shape)
    tensor = tensor.t() if draw(st.booleans()) and tensor.ndim == 2 else tensor
    tensor = tensor[::2] if draw(st.booleans()) and tensor.ndim else tensor
    return tensor.conj() if dtype.is_complex and draw(st.booleans()) else tensor


numpys = st.one_of(
    st.floats().map(np.float64),
    st.integers(0, 2**64 - 1).map(np.uint64),
    st.lists(st.integers(-9, 9), max_size=6).map(lambda items: np.array(items, dtype=np.int64)[::-1]),
    st.floats().map(np.array),
)
vectors = st.builds(
    Vector,
    st.lists(tensors(), max_size=2).map(tuple),
    st.none() | st.builds(Stamp, st.integers(0, 9), st.integers(0, 9)),
)
keys = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=2).map(tuple),
    max_leaves=3,
)
atoms = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(2**200), 2**200), st.floats(),
    st.text(st.characters()), st.binary(max_size=9), tensors(), vectors, numpys,
)  # fmt: skip
values = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.builds(deque, st.lists(inner, max_size=4), st.none() | st.integers(0, 5)),
        st.dictionaries(st.integers(0, 9), st.integers(), max_size=3).map(Counter),
        st.dictionaries(keys, inner, max_size=3),
        st.builds(Letter, st.integers(), inner),
        st.builds(Model, inner),
    ),
    max_leaves=12,
)


@settings(max_examples=50)
@given(values)
def test_every_value_comes_back_to_the_bit(value: Any) -> None:
    assert canonical(again(value)) == canonical(value)


@settings(max_examples=25)
@given(value=values)
def test_files_change_nothing(value: Any, tmp_path_factory: pytest.TempPathFactory) -> None:
    about = {"agents": 4, "lr": 0.1, "model": [("w", (3, 2), "float32")]}
    path = save(tmp_path_factory.mktemp("files"), 1, about, value)
    assert [path] == list(path.parent.iterdir())
    known, state = load(path)
    assert canonical(known) == canonical(about)
    assert canonical(state) == canonical(value)


@pytest.mark.parametrize(
    "value", [0.1, -0.0, math.nan, -math.nan, math.inf, -math.inf, 5e-324, 2**63, -(2**64), "\ud800"]
)
def test_numbers_and_odd_strings(value: Any) -> None:
    assert canonical(again(value)) == canonical(value)
    assert json.dumps(encode(value)[0], allow_nan=False).isascii()


def test_integers_of_any_length() -> None:
    for value in (2**20_000, -(3**20_000)):  # more digits than Python writes in decimal
        assert again([value]) == [value]


def test_lazily_conjugated_and_negated_tensors() -> None:
    z = torch.tensor([[1 + 2j, 3 - 4j]], dtype=torch.complex128)
    for lazy in (z.conj(), z.mH, z.conj().imag):
        assert lazy.is_conj() or lazy.is_neg()
        assert canonical(again(lazy)) == canonical(lazy.resolve_conj().resolve_neg())


class Copied(Vector):
    """As a late-bound vector in shared memory is: every look at it is a copy."""

    __slots__ = ()

    @property
    def parts(self) -> tuple[torch.Tensor, ...]:
        return tuple(part.clone() for part in super().parts)


def test_copies_that_are_gone_are_not_taken_for_others() -> None:
    back = again([Copied((torch.full((3,), float(i)),)) for i in range(50)])
    assert [type(x) for x in back] == [Vector] * 50
    assert [x.parts[0][0].item() for x in back] == list(range(50))


def test_one_object_in_several_places_stays_one_object() -> None:
    x, shared = Vector((torch.ones(2), torch.zeros(1, dtype=torch.float64)), Stamp(1, 2)), [1]
    alias = Vector(x.parts)
    agent = {"heard": {1: x, 2: Vector((torch.ones(2),))}, "mail": deque([Part(0, x)])}
    back = again(agent | {"two": (shared, shared), "alias": alias, "array": (a := np.zeros(2), a)})
    assert back["heard"][1] is back["mail"][0].v
    assert back["heard"][1] is not back["heard"][2]
    assert back["two"][0] is back["two"][1]
    assert back["array"][0] is back["array"][1]
    assert back["alias"] is not back["heard"][1]
    assert back["alias"].parts[0] is back["heard"][1].parts[0], "shared memory is stored once"
    assert len(encode([x, alias, x])[1]) == 2


def test_a_list_that_holds_itself() -> None:
    ring: list[Any] = [1]
    ring.append((ring, {"ring": ring}))
    back = again(ring)
    assert back[1][0] is back
    assert back[1][1]["ring"] is back


def test_what_came_out_of_a_register_comes_back_as_a_value() -> None:
    x = Vector((torch.ones(2),), Stamp(0, 1))
    x.late = True
    tree, tensors = encode(x)
    x.move(Vector((torch.zeros(2),)))
    back = decode(tree, tensors)
    assert (back.late, back.stamp, back.parts[0].tolist()) == (False, (0, 1), [1.0, 1.0])


def test_encoded_tensors_have_no_graph_and_files_only_what_a_view_shows(tmp_path: Path) -> None:
    weights = torch.ones(3, requires_grad=True)
    (encoded,) = encode(weights * 2)[1].values()
    assert not encoded.requires_grad
    assert save(tmp_path, 1, {}, torch.arange(100_000.0)[:3]).stat().st_size < 1000


@dataclass
class Thawed:
    x: int = 0


class Weights(torch.Tensor):
    pass


def linked(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (
            {"letters": {3: [0, max]}},
            r"state\.letters\[3\]\[1\] is of type builtins\.builtin_function_or_method",
        ),
        ([{"a b": {1}}], r"state\[0\]\['a b'\] is of type builtins\.set"),
        ({"mail": deque([Part(0, print)])}, r"state\.mail\[0\]\.v is of type builtins\."),  # type: ignore[arg-type]
        ((Thawed(),), r"state\[0\] is of type \S*\.Thawed"),
        (OrderedDict(a=1), r"state is of type collections\.OrderedDict"),
        (Stamp(1, 2), r"state is of type offbeat\.core\.vector\.Stamp"),
        ({"w": torch.nn.Parameter(torch.ones(1))}, r"state\.w is of type torch\.nn\.parameter\.Parameter"),
        (torch.ones(1).as_subclass(Weights), r"state is of type \S*\.Weights"),
        (torch.eye(2).to_sparse(), r"state is of type torch\.Tensor; .* dense"),
        (torch.ones(2, device="meta"), r"state is of type torch\.Tensor"),
        (np.array([None]), r"state is of type numpy\.ndarray"),
        (np.str_("x"), r"state is of type numpy\.str_"),
        ({1.5: 0}, r"A key of state is of type builtins\.float; a checkpoint holds .* as keys"),
        ({(1, (2.5,)): 0}, r"A key of state is of type builtins\.tuple"),
        (linked(200), "more than 100 levels deep"),
    ],
)
def test_what_cannot_be_stored_is_refused_by_place_and_type(value: Any, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        encode(value)


# -- reading what somebody else may have written ----------------------------------------------------


@dataclass(frozen=True)
class Mine:
    x: int
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        raise AssertionError("making it again runs nothing")


def mine(x: int) -> Mine:
    new = object.__new__(Mine)
    object.__setattr__(new, "x", x)
    object.__setattr__(new, "made", [x])
    return new


def test_only_known_classes_are_made_and_nothing_is_run() -> None:
    tree, tensors = encode(mine(3))
    assert decode(tree, tensors) == mine(3)
    with pytest.raises(DataError, match=r"Theirs, which is not known here"):
        decode({**tree, "message": tree["message"].replace("Mine", "Theirs")}, tensors)
    with pytest.raises(DataError, match=r"fields x; expected x, made"):
        decode({**tree, "fields": {"x": 1}}, tensors)


@pytest.mark.parametrize(
    "name",
    ["wave:Wave_read", "os:system", "offbeat.core.agent:Agent", "offbeat.core.rules:SGD", ":", "os:path.x"],
)
def test_nothing_is_imported_for_a_name_in_a_file(name: str) -> None:
    before = set(sys.modules)
    with pytest.raises(DataError, match="not known here"):
        decode({"message": name, "fields": {}}, {})
    assert set(sys.modules) == before


BEFORE = Path(__file__).parent / "files" / "before_the_moves.safetensors"
"""Of DSGD with momentum, from when all modules lay side by side: `offbeat.agent:View`,
`offbeat.world:Crash`."""


def test_a_class_has_one_name_whether_anybody_asked_for_it_or_not() -> None:
    """What offbeat exports is imported when it is asked for."""
    words = "from offbeat.core.agent import View; from offbeat.engines.live.node.encode import name_of; "
    words += "print(name_of(View))"
    said = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert said.stdout.strip() == "offbeat:View" == name_of(offbeat.View), said


def test_classes_are_found_wherever_our_modules_have_moved(tmp_path: Path) -> None:
    about, state = load(BEFORE)
    view = build("ring", 3).view(0, frozenset(range(3)))
    x = Vector((torch.arange(3.0),))
    assert about == {"algorithm": "dsgd"}
    then = replace(view, chi=None, parent=None, children=())  # of fields that a view had not
    assert canonical(state["seen"]) == canonical([then, Crash(1, 2.0), Letter(4, x)])
    assert sorted(state["agent"]["letters"][0]) == [0, 1] and state["rule"] == {
        "lr": 0.1,
        "beta": 0.9,
        "m": None,
    }
    assert canonical(load(save(tmp_path, 1, about, state))[1]) == canonical(state)
    tree, _ = encode([view, Letter(4, x)])
    assert [each["message"] for each in tree] == ["offbeat:View", "offbeat.algorithms.dsgd:Letter"]
    tree[1]["message"] = "offbeat.somewhere.dsgd:Letter"
    assert decode(tree[1:], encode([view, Letter(4, x)])[1])[0].k == 4
    with pytest.raises(DataError, match="not known here"):
        decode({"message": "offbeat.elsewhere:Model", "fields": {}}, {})


@pytest.mark.parametrize(
    "tree",
    [
        {}, {"same": 0}, {"pickle": ""}, {"tensor": "t"}, {"dict": [[[], 1]]}, {"dict": [1]},
        {"vector": 3, "stamp": None}, {"float": "zz"}, {"float": "00"}, {"int": "x"}, {"deque": []},
        {"tensor": "there", "dtype": "nn", "shape": [1]}, {"message": 1}, {"tuple": None},
        {"tensor": "there", "dtype": "float64", "shape": [7]},
    ],
)  # fmt: skip
def test_what_is_no_encoded_state_is_a_data_error(tree: Any) -> None:
    with pytest.raises(DataError):
        decode(tree, {"there": torch.zeros(8, dtype=torch.uint8)})


def test_truncated_and_foreign_files_are_named(tmp_path: Path) -> None:
    whole = save(tmp_path, 1, {}, [torch.ones(100)]).read_bytes()
    bad = tmp_path / "bad.safetensors"
    with pytest.raises(DataError, match=r"There is no file .*bad\.safetensors; expected a whole checkpoint"):
        load(bad)
    for content in (b"", whole[:5], whole[:60], whole[:-1], b"PK\3\4" + bytes(500), whole + b"more"):
        bad.write_bytes(content)
        with pytest.raises(
            DataError, match=r"bad\.safetensors cannot be read \(it is damaged.*expected a whole"
        ):
            load(bad)
    for head in (None, {"offbeat": "checkpoint 99"}):
        bad.write_bytes(safetensors_bytes({"x": torch.ones(1)}, head))
        with pytest.raises(DataError, match=r"no checkpoint: its metadata says offbeat = "):
            load(bad)
    for about, state in (("{}", "[["), ("[]", '{"tensor": "x"}'), ("[]", "[" * 100_000)):
        bad.write_bytes(safetensors_bytes({}, {"offbeat": "checkpoint 1", "about": about, "state": state}))
        with pytest.raises(DataError, match="cannot be read"):
            load(bad)


# -- agents, rules, optimizers -----------------------------------------------------------------------


def fresh(sim: Simulator, i: int, seed: int = 99) -> Agent:
    """Another agent in the place of agent i, that knows nothing."""
    agent = sim.new_agent()
    agent.join(
        i, sim.topology.n, Vector(sim.task.initial()), sim.agents[i].view, sim.new_rule(), random.Random(seed)
    )
    return agent


def known(agent: Agent) -> Any:
    """All that an agent and its rule know; what is late bound, as a value."""
    return canonical(again(agent_state(agent)))


def acts(agent: Agent, event: str, *args: Any) -> Any:
    """What a handler makes of an event: what it asks for, and what it knows afterwards."""
    with Scope():
        getattr(agent, event)(*args)
    effects = agent.drain()
    return [canonical(effect) for effect in effects], known(agent)


def events(sim: Simulator, i: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Events that may come next, among them the mail that is on its way to this agent."""
    like = sim.agents[i].x
    for *_, args in sim.heap.events:
        for item in args:
            if isinstance(item, Transmission) and i in item.to:
                yield "on_message", (item.sender, item.message)
    for value in (0.25, -1.0):
        yield "on_gradient", (Vector(tuple(torch.full_like(part, value) for part in like.parts)),)
    yield "on_view", (sim.topology.view(i, sim.alive - {max(sim.topology.peers(i))}),)


def by_steps(lr: float) -> Scheduled:
    """A rule that counts its steps, and keeps a momentum."""
    return Scheduled(Nesterov(lr), Schedule.parse("step:3+by=steps"))


@pytest.mark.parametrize(
    ("algorithm", "rule"), [*((name, by_steps) for name in ALL), ("adsgd", AdamW), ("rfast", SGD)]
)
def test_a_restored_agent_goes_on_to_the_bit(algorithm: str, rule: NewRule, tmp_path: Path) -> None:
    sim = started(algorithm, quadratic(n=4, d=20, noise=0.1), rule=rule, check=False)
    sim.run(6.3)
    for i, agent in enumerate(sim.agents):
        path = save(tmp_path / str(i), 7, {"i": i}, {"agent": agent_state(agent)})
        about, state = load(path)
        assert about == {"i": i}
        new = fresh(sim, i)
        assert known(new) != known(agent), "there is something to restore"
        restore_agent(new, state["agent"])
        assert known(new) == known(agent)
        assert (new.me, new.n, new.view) == (agent.me, agent.n, agent.view)
        for event, args in events(sim, i):
            assert acts(new, event, *args) == acts(agent, event, *args), (i, event)


class Undeclared(Agent):
    """The user's own, not a dataclass of its own."""

    def start(self) -> None:
        self.seen = [self.x]
        self.compute(self.x)

    def on_gradient(self, g: Vector) -> None:
        self.x = self.x - self.rule(g)
        self.seen.append(self.x)
        self.compute(self.x)


def test_attributes_that_are_no_fields_are_kept_too() -> None:
    sim = started(Undeclared, check=False)
    sim.run(3.0)
    agent, new = sim.agents[0], fresh(sim, 0)
    assert isinstance(agent, Undeclared)
    assert isinstance(new, Undeclared)
    restore_agent(new, again(agent_state(agent)))
    assert len(new.seen) == len(agent.seen) > 1
    assert new.seen[-1] is new.x


def test_the_state_of_another_class_is_refused() -> None:
    sim = started("dsgd", check=False)
    other = started("adsgd", check=False).agents[0]
    with pytest.raises(
        DataError, match=r"not that of offbeat:DSGD: they differ in after, done, g, later, letters"
    ):
        restore_agent(fresh(sim, 0), agent_state(other))


def test_effects_that_wait_would_be_lost() -> None:
    agent = started("adsgd", check=False).agents[0]
    agent.compute(agent.x)
    with pytest.raises(ContractError, match="drained"):
        agent_state(agent)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
        lambda p: torch.optim.AdamW(p, lr=torch.tensor(0.01), amsgrad=True),
        lambda p: torch.optim.Adam([{"params": p[:1], "lr": 0.1}, {"params": p[1:]}], lr=0.01),
    ],
)
def test_optimizers_go_on_to_the_bit(
    optimizer: Callable[[Any], torch.optim.Optimizer], tmp_path: Path
) -> None:
    def step(net: torch.nn.Module, using: torch.optim.Optimizer) -> bytes:
        using.zero_grad()
        net(torch.linspace(-1, 1, 12).reshape(4, 3)).square().sum().backward()
        using.step()
        return b"".join(bits(p.detach()) for p in net.parameters())

    torch.manual_seed(0)
    nets = [torch.nn.Linear(3, 2) for _ in range(2)]
    old, new = (optimizer(list(net.parameters())) for net in nets)
    for _ in range(3):
        step(nets[0], old)
    weights = [p.detach() for p in nets[0].parameters()]
    _, state = load(save(tmp_path, 1, {}, {"optimizer": old.state_dict(), "weights": weights}))
    assert canonical(state["optimizer"]) == canonical(old.state_dict())
    with torch.no_grad():
        for p, value in zip(nets[1].parameters(), state["weights"], strict=True):
            p.copy_(value)
    new.load_state_dict(state["optimizer"])
    for _ in range(3):
        assert step(nets[0], old) == step(nets[1], new)


def test_generators_of_numpy_go_on(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rng.integers(9, size=5)
    new = np.random.default_rng(0)
    new.bit_generator.state = again(rng.bit_generator.state)
    assert new.integers(10**9, size=5).tolist() == rng.integers(10**9, size=5).tolist()


# -- files ------------------------------------------------------------------------------------------


def test_the_newest_are_kept_and_strays_are_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "agent 3"
    folder.mkdir()
    (folder / "final.safetensors").write_bytes(b"somebody's")
    (folder / ".checkpoint-123-step-000000007.safetensors").write_bytes(b"half")
    (folder / "step-000000001.safetensors.bak").write_bytes(b"somebody's")
    for step in (5, 20, 999_999_999, 1_000_000_000):
        save(folder, step, {}, step)
    assert latest(folder) == [1_000_000_000, 999_999_999]
    assert {path.name for path in folder.iterdir()} == {
        "final.safetensors",
        "step-000000001.safetensors.bak",
        "step-1000000000.safetensors",
        "step-999999999.safetensors",
    }
    monkeypatch.setattr(checkpoint, "KEPT", 3)
    save(folder, 1_000_000_001, {}, 0)
    assert len(latest(folder)) == 3
    save(folder, 999_999_999, {}, "again")
    assert latest(folder) == [999_999_999], "who goes back gives up what came later"
    assert load(path_of(folder, 999_999_999)) == ({}, "again")
    assert latest(tmp_path / "nowhere") == []


def test_nothing_is_written_of_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ContractError, match=r"about\.w is one"):
        save(tmp_path / "x", 1, {"w": torch.ones(1)}, 0)
    with pytest.raises(ContractError, match=r"state\.f"):
        save(tmp_path / "x", 1, {}, {"f": print})

    monkeypatch.setattr(checkpoint, "LONGEST_HEAD", 10)
    with pytest.raises(ContractError, match=r"expected at most 0\. Keep numbers"):
        save(tmp_path / "x", 1, {}, [1] * 10)
    assert not (tmp_path / "x").exists()


@contextmanager
def small_files(limit: int) -> Iterator[None]:
    """Files of this process may not grow beyond `limit` bytes: a write fails half-way, as on a full disk."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
        signal.signal(signal.SIGXFSZ, handler)


def intact(folder: Path) -> bool:
    first = path_of(folder, 1)
    return list(folder.iterdir()) == [first] and load(first)[1] == 1


def test_a_write_that_fails_half_way_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    save(tmp_path, 1, {}, 1)
    with (
        small_files(100_000),
        pytest.raises(DiskError, match=r"step-000000002\S* of 1\.0 MB: File too large.*are intact"),
    ):
        save(tmp_path, 2, {}, torch.zeros(250_000))
    assert intact(tmp_path)


@pytest.mark.parametrize(("owner", "call"), [(os, "fsync"), (Path, "replace")])
def test_a_full_disk_leaves_the_checkpoint_before(
    owner: object, call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save(tmp_path, 1, {}, 1)
    monkeypatch.setattr(owner, call, full)
    with pytest.raises(DiskError, match="No space left on device"):
        save(tmp_path, 2, {}, 2)
    monkeypatch.undo()
    assert intact(tmp_path)
    save(tmp_path, 2, {}, 2)
    assert latest(tmp_path) == [2, 1]


def test_a_folder_that_cannot_be_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskError, match=r"Cannot write the checkpoint .*file"):
        save(tmp_path / "file", 1, {}, 1)


def test_it_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(handle: int) -> None:
        order.append("fsync file" if stat.S_ISREG(os.fstat(handle).st_mode) else "fsync folder")
        fsync(handle)

    def noted_replace(path: Path, to: Path) -> Path:
        order.append("replace")
        assert path.stat().st_size > 40_000
        return replace(path, to)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    save(tmp_path, 1, {}, torch.zeros(10_000))
    assert order == ["fsync file", "replace", "fsync folder"]


def state_of(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "x": torch.full((50_000,), float(step)),
        "y": Vector((torch.full((7,), float(step)),)),
    }


def save_for_ever(folder: Path) -> None:
    torch.set_num_threads(1)
    step = 0
    while True:
        step += 1
        save(folder, step, {"step": step}, state_of(step))


def deadly(call: Callable[..., Any], late: bool) -> Callable[..., Any]:
    """A function at whose beginning, or end, the process is killed."""

    def killed(*args: Any, **options: Any) -> None:
        if late:
            call(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    return killed


DEATHS: dict[str, tuple[int, int]] = {
    "half": (signal.SIGXFSZ, 2),
    "fsync": (signal.SIGKILL, 2),
    "replace": (signal.SIGKILL, 2),
    "replace, after": (signal.SIGKILL, 3),
    "unlink": (signal.SIGKILL, 3),
}
"""Where the writer of step 3 is killed, by what, and which step is the newest then."""


def die(at: str, folder: Path) -> None:
    call, late = at.partition(",")[0], "," in at
    if call == "half":
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (HALF, HALF))
    else:
        owner: Any = os if call == "fsync" else Path
        setattr(owner, call, deadly(getattr(owner, call), late))
    checkpoint.KEPT = 1 if call == "unlink" else 2
    save(folder, 3, {"step": 3}, state_of(3))


def die_everywhere(folder: Path) -> None:
    torch.set_num_threads(1)
    for at, (by, _) in DEATHS.items():
        for step in (1, 2):
            save(folder / at, step, {"step": step}, state_of(step))
        if (child := os.fork()) == 0:
            die(at, folder / at)
            os._exit(0)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == by, at


def whole(folder: Path) -> int:
    """The newest step, which loads, and holds nothing of another one."""
    while True:
        step = latest(folder)[0]
        path = path_of(folder, step)
        try:
            about, state = load(path)
        except DataError:
            assert not path.exists(), "only one that was removed meanwhile may fail"
            continue
        assert about == {"step": step}
        assert canonical(state) == canonical(state_of(step))
        return step


def test_whenever_a_writer_is_killed_the_newest_checkpoint_is_whole(tmp_path: Path) -> None:
    process = FORK.Process(target=die_everywhere, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    for at, (_, newest) in DEATHS.items():
        assert whole(tmp_path / at) == newest, at
        strays = list((tmp_path / at).glob(".checkpoint-*"))
        assert len(strays) == (newest == 2), "what it was writing"
        if at == "half":
            assert strays[0].stat().st_size == HALF
        save(tmp_path / at, 4, {"step": 4}, state_of(4))
        assert {path.name for path in (tmp_path / at).iterdir()} == {
            path_of(tmp_path, step).name for step in (newest, 4)
        }, "strays are swept"


def test_who_reads_while_another_writes_sees_whole_checkpoints(tmp_path: Path) -> None:
    process = FORK.Process(target=save_for_ever, args=(tmp_path,))
    process.start()
    seen = [0]
    while len(seen) < 10:
        assert process.is_alive()
        if latest(tmp_path) and (step := whole(tmp_path)) != seen[-1]:
            seen.append(step)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL
    seen.append(whole(tmp_path))
    assert seen == sorted(seen)


# -- another run ------------------------------------------------------------------------------------

RUN: dict[str, Any] = {
    "algorithm": "adsgd",
    "agents": 8,
    "seed": 0,
    "model": [("fc.weight", (10, 5), "float32"), ("fc.bias", (10,), "float32")],
    "graph": {"name": "grid", "edges": [(i, i + 1) for i in range(20)]},
}


def refused(**now: Any) -> list[str]:
    with pytest.raises(SettingError) as caught:
        refuse_other(again(RUN), {**RUN, **now})
    first, *lines = str(caught.value).splitlines()
    assert first == "This checkpoint is of another run:"
    return [line.strip() for line in lines]


def test_the_same_run_is_not_refused() -> None:
    refuse_other(again(RUN), RUN)
    refuse_other({}, {})


def test_differences_are_shown_one_by_one() -> None:
    assert refused(algorithm="dsgd", seed=1) == [
        "algorithm: saved 'adsgd', now 'dsgd'",
        "seed: saved 0, now 1",
    ]
    assert refused(model=[("fc.weight", (10, 6), "float32"), ("out", (10,), "float64")]) == [
        "model.fc.weight: saved 'float32 (10, 5)', now 'float32 (10, 6)'",
        "model.fc.bias: saved 'float32 (10,)', now None",
        "model.out: saved None, now 'float64 (10,)'",
    ]
    assert refused(graph={"name": "grid", "edges": [(i, i + 1) for i in range(19)] + [(19, 0)]}) == [
        "graph.edges[19]: saved (19, 20), now (19, 0)"
    ]
    assert refused(faults="none") == ["faults: saved None, now 'none'"]
    (line,) = refused(model=RUN["model"][::-1])
    assert line.startswith("model: saved ['fc.weight', 'fc.bias'], now ['fc.bias'"), (
        "the order of a model is its layout"
    )


def test_long_lists_of_differences_are_cut() -> None:
    lines = refused(model=[(f"layer{i}", (i,), "float32") for i in range(30)], seed="x" * 500)
    assert len(lines) == 9
    assert lines[-1] == "and 25 more"
    assert all(len(line) < 250 for line in lines)


@pytest.mark.parametrize("at", ["length", "version", "sum", "head", "tensor", "end"])
def test_a_flipped_bit_anywhere_is_noticed(at: str, tmp_path: Path) -> None:
    path = save(tmp_path, 1, {"seed": 1}, {"x": torch.ones(5000), "steps": 7})
    content = bytearray(path.read_bytes())
    head = int.from_bytes(content[:8], "little")
    version, total = content.index(b"checkpoint 2") + 11, content.index(b'"sum": "') + 9
    places = {"length": 0, "version": version, "sum": total, "head": content.index(b"seed")}
    places |= {"tensor": 8 + head + 2001, "end": len(content) - 1}
    content[places[at]] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"step-000000001\.safetensors cannot be read .*damaged"):
        load(path)


def test_a_damaged_checkpoint_is_set_aside_so_that_the_one_before_it_is_the_newest(tmp_path: Path) -> None:
    for step in (10, 20):
        path = save(tmp_path, step, {}, {"step": step})
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    said: list[str] = []
    checkpoint.set_aside(tmp_path, said.append)
    assert latest(tmp_path) == [10]
    assert load(path_of(tmp_path, 10))[1] == {"step": 10}
    assert len(said) == 1
    assert "step-000000020.safetensors is left out" in said[0]
    assert (tmp_path / "step-000000020.damaged").exists(), "what was damaged is kept"


def test_checkpoints_of_the_version_before_checksums_are_read_and_newer_ones_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        safetensors_bytes({}, {"offbeat": "checkpoint 1", "about": '{"dict": []}', "state": "[7]"})
    )
    assert load(path) == ({}, [7])
    content = save(tmp_path, 1, {}, [7]).read_bytes().replace(b"checkpoint 2", b"checkpoint 3")
    match = checkpoint.SUM.match(content)
    assert match is not None
    start, end = match.span(1)
    total = zlib.crc32(content[:start] + content[end:])
    path.write_bytes(content[:start] + f"{total:08x}".encode() + content[end:])
    with pytest.raises(DataError, match="written by a newer offbeat: it says 'checkpoint 3'"):
        load(path)
