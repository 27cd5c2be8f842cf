"""The tables of a trace: their columns, and a table that grows."""

import struct
from typing import Any

import numpy as np

EVENT = np.dtype(
    [("time", "f8"), ("agent", "i4"), ("event", "i2"), ("source", "i4"), ("kind", "i2"), ("version", "i8"),
     ("start", "f8"), ("end", "f8")]
)  # fmt: skip
WRITE = np.dtype([("time", "f8"), ("agent", "i4"), ("step", "i8")])
MIXED = np.dtype([("write", "i8"), ("source", "i4"), ("version", "i8")])
TRANSMISSION = np.dtype([("start", "f8"), ("end", "f8"), ("agent", "i4"), ("kind", "i2"), ("bytes", "i8")])
TABLES = {"events": EVENT, "writes": WRITE, "mixed": MIXED, "transmissions": TRANSMISSION}

_FORMATS = {"f8": "d", "i4": "i", "i2": "h", "i8": "q"}


def packing(dtype: np.dtype[Any]) -> struct.Struct:
    """How a row of such a table lies in memory: for single rows this is faster than an array."""
    return struct.Struct("<" + "".join(_FORMATS[dtype[name].str[1:]] for name in dtype.names or ()))


class Rows:
    """A table that grows, packed row by row: millions of tuples would keep the garbage collector busy."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype, self._pack, self.packed = dtype, packing(dtype).pack, bytearray()

    def append(self, *row: float) -> None:
        self.packed += self._pack(*row)

    def __len__(self) -> int:
        return len(self.packed) // self.dtype.itemsize

    def array(self) -> np.ndarray:
        """A copy of what there is so far."""
        return np.frombuffer(bytes(self.packed), self.dtype).copy()
