"""Nested Python values as JSON and tensors, and back, bit by bit. Nothing is run or imported to read them.

None, bool, int, finite floats, str and list are themselves in JSON; everything else is an object whose first
key says what it is: {"tuple": [...]}, {"dict": [[key, value], ...]}, which says so if it is a Counter,
{"tensor": name}, {"message": "module:class", ...}.

Lists, deques, dicts, tensors, arrays and vectors are numbered in the order in which they are met, and
{"same": number} stands for one that was met before: what was one object is one object afterwards.
"""

import math
import struct
import sys
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from offbeat.core.errors import ContractError, DataError
from offbeat.core.vector import Stamp, Vector

PACKAGE = "offbeat"
DEEPEST = 100  # levels; what goes deeper is a linked structure, which JSON is not for
NATIVE = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8",
    torch.bool: "BOOL",
}  # fmt: skip
"""What every version of safetensors stores, and calls so; tensors of other types are stored as bytes."""
HOLDS = (
    "None, numbers, text, bytes, list, tuple, dict, Counter, deque, dense tensors, arrays, vectors, frozen "
    "dataclasses"
)
KEYS = frozenset((type(None), bool, int, str, bytes))
SHARED = frozenset((list, dict, Counter, deque, Tensor, np.ndarray))


def encode(value: object, where: str = "state") -> tuple[Any, dict[str, Tensor]]:
    """A value as something that `json` writes, and its tensors on the CPU, detached, by their place.

    These are no copies where that can be avoided: store them before anything changes. Raises ContractError
    for what cannot be stored; it names the place, "state.letters[3][1]", and the type.
    """
    writer = _Writer()
    return writer.tree(value, where, 0), writer.tensors


def decode(tree: Any, tensors: Mapping[str, Tensor]) -> Any:
    """What `encode` made this of. Raises DataError if it did not, or a class in it is not imported yet."""
    try:
        return _Reader(tensors).value(tree)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError, struct.error) as error:
        raise DataError(f"This is no encoded state ({type(error).__name__}: {error}).") from error


def name_of(kind: type) -> str:
    """How a class is called in a checkpoint: a public one of ours `offbeat:View`, wherever it is defined."""
    public = _inside(PACKAGE, kind.__qualname__) is kind
    return f"{PACKAGE if public else kind.__module__}:{kind.__qualname__}"


def _frozen(kind: type) -> bool:
    """Whether it is a frozen dataclass itself, whatever its base class is."""
    return getattr(vars(kind).get("__dataclass_params__"), "frozen", False)


class _Writer:
    """Collects the tensors of one value, and numbers the objects that may be met again."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self.met: dict[int, tuple[int, object]] = {}  # kept alive, so that no id is given twice

    def tree(self, value: Any, at: str, depth: int) -> Any:
        kind = type(value)
        if depth > DEEPEST:
            raise ContractError(f"{at} is nested more than {DEEPEST} levels deep; expected plain fields.")
        if kind is int and value.bit_length() > 63:
            return {"int": hex(value)}
        if kind is float and not math.isfinite(value):
            return {"float": struct.pack(">d", value).hex()}
        if kind is bytes:
            return {"bytes": value.hex()}
        if kind in KEYS or kind is float:
            return value
        if id(value) in self.met:
            return {"same": self.met[id(value)][0]}
        if kind in SHARED:
            self.met[id(value)] = (len(self.met), value)
        if kind is list or kind is deque or kind is tuple:
            items = [self.tree(item, f"{at}[{k}]", depth + 1) for k, item in enumerate(value)]
            if kind is deque:
                return {"deque": items, "longest": value.maxlen}
            return items if kind is list else {"tuple": items}
        if kind is dict or kind is Counter:
            for key in value:
                if not _plain(key):
                    raise _refused(key, f"A key of {at}", "None, numbers, strings and tuples of them as keys")
            pairs = value.items()
            items = [[self.tree(k, at, 0), self.tree(v, _below(at, k), depth + 1)] for k, v in pairs]
            return {"dict": items} | ({"kind": "Counter"} if kind is Counter else {})
        if isinstance(value, Vector):
            parts = [self.tree(part, f"{at}.parts[{k}]", depth + 1) for k, part in enumerate(value.parts)]
            self.met[id(value)] = (len(self.met), value)
            return {"vector": parts, "stamp": value.stamp and list(value.stamp)}
        if kind is Tensor:
            return self._tensor(value, at)
        if kind is np.ndarray or issubclass(kind, np.generic):
            try:
                plain = self._tensor(torch.from_numpy(np.array(value, order="C")), at)
            except (TypeError, ValueError):
                raise _refused(value, at) from None
            return {"array" if kind is np.ndarray else "scalar": plain}
        if _frozen(kind):
            names = [f.name for f in fields(value)]
            inside = {name: self.tree(getattr(value, name), f"{at}.{name}", depth + 1) for name in names}
            return {"message": name_of(kind), "fields": inside}
        raise _refused(value, at)

    def _tensor(self, value: Tensor, at: str) -> dict[str, Any]:
        dense = value.layout == torch.strided and value.device.type != "meta"
        if not dense or value.is_quantized or value.is_nested:
            raise _refused(value, at)
        plain = value.detach().cpu().resolve_neg().resolve_conj()
        if not plain.is_contiguous() or plain.numel() < 2:  # of a single number the strides may be anything
            plain = plain.clone(memory_format=torch.contiguous_format)
        if plain.dtype in NATIVE:
            self.tensors[at] = plain
            return {"tensor": at}
        self.tensors[at] = plain.reshape(-1).view(torch.uint8)
        dtype = str(plain.dtype).removeprefix("torch.")
        return {"tensor": at, "dtype": dtype, "shape": list(plain.shape)}


def _refused(value: object, at: str, expected: str = HOLDS) -> ContractError:
    kind = name_of(type(value)).replace(":", ".")
    promise = "(promise e of offbeat.core.agent)"
    return ContractError(f"{at} is of type {kind}; a checkpoint holds {expected} {promise}.")


def _plain(key: object) -> bool:
    return all(map(_plain, key)) if type(key) is tuple else type(key) in KEYS


def _below(at: str, key: object) -> str:
    return f"{at}.{key}" if isinstance(key, str) and key.isidentifier() else f"{at}[{key!r}]"


class _Reader:
    """Makes the value again; whatever was numbered gets the same numbers."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors
        self.met: list[Any] = []
        self.make: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
            "int": lambda body, _: int(body, 16),
            "float": lambda body, _: struct.unpack(">d", bytes.fromhex(body))[0],
            "bytes": lambda body, _: bytes.fromhex(body),
            "tuple": lambda body, _: tuple(map(self.value, body)),
            "deque": lambda body, tree: self._filled(deque(maxlen=tree["longest"]), body),
            "dict": self._dict,
            "tensor": lambda body, tree: self._new(self._tensor(body, tree)),
            "vector": lambda body, tree: self._new(
                Vector(tuple(map(self.value, body)), tree["stamp"] and Stamp(*tree["stamp"]))
            ),
            "array": lambda body, _: self._new(self._tensor(body["tensor"], body).numpy()),
            "scalar": lambda body, _: self._tensor(body["tensor"], body).numpy()[()],
            "message": self._message,
            "same": lambda body, _: self.met[body],
        }

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return self._filled([], tree)
        if not isinstance(tree, dict):
            return tree
        kind, *_ = tree
        return self.make[kind](tree[kind], tree)

    def _new(self, value: Any) -> Any:
        self.met.append(value)
        return value

    def _filled(self, empty: Any, items: list[Any]) -> Any:
        self._new(empty).extend(self.value(item) for item in items)
        return empty

    def _dict(self, pairs: list[list[Any]], tree: dict[str, Any]) -> Any:
        new = self._new(Counter() if tree.get("kind") == "Counter" else {})
        for key, value in pairs:
            known = self.value(key)
            new[known] = self.value(value)
        return new

    def _tensor(self, name: str, tree: dict[str, Any]) -> Tensor:
        stored = self.tensors[name]
        return stored.view(vars(torch)[tree["dtype"]]).reshape(tree["shape"]) if "dtype" in tree else stored

    def _message(self, name: str, tree: dict[str, Any]) -> Any:
        kind = _imported(name)
        if kind is None or not _frozen(kind):
            do = "Import the module that defines it first: a file must not choose what is imported."
            raise DataError(f"The state holds a message of type {name}, which is not known here. {do}")
        inside, known = tree["fields"], [f.name for f in fields(kind)]
        usual = {
            f.name: f.default for f in fields(kind) if f.default is not MISSING
        }  # of fields that are new
        if not set(known) - usual.keys() <= inside.keys() <= set(known):
            raise DataError(f"A {name} here has the fields {', '.join(inside)}; expected {', '.join(known)}.")
        message: object = object.__new__(kind)
        for field, value in usual.items():
            object.__setattr__(message, field, value)
        for field, tree in inside.items():
            object.__setattr__(message, field, self.value(tree))
        return message


def _imported(name: str) -> type | None:
    """A class of a module that is imported already; one of ours may have moved, to a module of the same name,
    or be public now.
    """
    module, _, path = name.partition(":")
    if (found := _inside(module, path)) is not None or module.partition(".")[0] != PACKAGE:
        return found
    last = module.rpartition(".")[2]
    ours = [each for each in [*sys.modules] if each.startswith(f"{PACKAGE}.") and each.endswith(f".{last}")]
    kinds = {kind for each in [PACKAGE, *ours] if (kind := _inside(each, path)) is not None}
    return kinds.pop() if len(kinds) == 1 else None


def _inside(module: str, path: str) -> type | None:
    """The class of this name there, without `getattr`: a module may import when it is asked. What offbeat
    exports is its own, and there whether anybody has asked for it yet or not.
    """
    found: Any = sys.modules.get(module)
    if module == PACKAGE and path in getattr(found, "__all__", ()):
        found = getattr(found, path)
    else:
        for part in path.split("."):
            found = getattr(found, "__dict__", {}).get(part)
    return found if isinstance(found, type) else None
