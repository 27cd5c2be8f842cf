"""The board's rows of agents that live elsewhere.

A row crosses as it is, but for words that only mean something on one machine: mailboxes are counted where
they are made, and times are in this machine's clock here. It is written in an order in which no reader finds
a register counted before its file is there.
"""

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from offbeat.engines.live.shm.board import ROW, Board, Row, State

KEYS = [Row.STATE, Row.INCARNATION, Row.REGISTERS, Row.MODEL]
"""What matters: whoever waits for rows is told of a change of these at once."""

OWN = [Row.REGISTERS, Row.MODEL, Row.INCARNATION, Row.MAILBOXES, Row.STATE, Row.LEAVES]
"""Words that are written on their own, or, the launcher's, not at all."""

OTHERS = [k for k in range(ROW) if k not in OWN]
TIMES = [Row.FIRST, Row.LAST]
HEAD = struct.Struct("<qqq")  # the board's zero, checksum of what matters, rows
MOST = 10_000  # registers of an agent

Words = np.ndarray[Any, np.dtype[np.int64]]


def checksum(board: Board, agents: Sequence[int]) -> int:
    """Of what matters of these agents; never 0."""
    return zlib.crc32(board.all_rows[[*agents]][:, KEYS].tobytes()) or 1


def packed(board: Board, agents: Sequence[int]) -> bytes:
    """The rows of these agents: the answer of `Peer.rows`."""
    found = board.all_rows[[*agents]]
    said = zlib.crc32(found[:, KEYS].tobytes()) or 1
    numbered = np.column_stack([np.array([*agents], dtype=np.int64), found])
    return HEAD.pack(board.zero, said, len(agents)) + numbered.tobytes()


def unpacked(answer: bytes, allowed: Sequence[int], zero: int) -> tuple[int, Mapping[int, Words]]:
    """The checksum and the rows, by agent, in the clock of the board with this zero. Raises ValueError for
    what no board has.

    Args:
        allowed: the agents that live on the machine that answers; of others, which may be about to move
            there, nothing is taken
    """
    theirs, said, count = HEAD.unpack_from(answer)
    if len(answer) != HEAD.size + 8 * count * (1 + ROW):
        raise ValueError(f"{len(answer)} bytes are not {count} rows")
    table = np.frombuffer(answer, dtype=np.int64, offset=HEAD.size).reshape(count, 1 + ROW)
    found = {int(row[0]): row[1:].copy() for row in table if int(row[0]) in allowed}
    for agent, row in found.items():
        _check(agent, row)
        if theirs and zero:
            for k in TIMES:
                row[k] += zero - theirs if row[k] else 0
    return said, found


def _check(agent: int, row: Words) -> None:
    state, registers, model = (int(row[k]) for k in (Row.STATE, Row.REGISTERS, Row.MODEL))
    counts = [Row.INCARNATION, Row.STEPS, Row.WRITES, Row.WAITED, Row.MIXED, Row.SKIPPED]
    fits = state in {*State} and 0 <= registers <= MOST and model >= 0 and row[counts].min() >= 0
    if not fits:
        raise ValueError(f"a row of agent {agent} with {', '.join(f'{k.name} {row[k]}' for k in Row)}")


def write(board: Board, agent: int, row: Words) -> None:
    """All but what is written on its own."""
    mine = board.all_rows[agent]
    mine[OTHERS] = row[OTHERS]
