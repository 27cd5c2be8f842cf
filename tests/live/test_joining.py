"""Agents that join a run while it goes on, and agents that are asked to leave it."""

from pathlib import Path

import pytest
from warm import needs_shared_memory

from offbeat.core.errors import DataError
from offbeat.engines.live.node.transport import Transport
from offbeat.engines.live.shm.board import MOST, ROOM, Board, Row

pytestmark = needs_shared_memory


def test_a_board_has_room_and_whoever_meets_a_newcomer_sees_its_row(tmp_path: Path) -> None:
    board = Board.create(tmp_path / "board", 2)
    assert (board.n, board.capacity) == (2, 2 + ROOM)
    here = Transport(tmp_path, board, 0, 1, 8)
    seen = Board.attach(tmp_path / "board")
    seen.row(2)[Row.MAILBOXES] = 1  # ready, and not let in yet
    assert board.rows.shape[0] == 2 and len(here.boxes) == 2
    board.grow(3)
    assert seen.rows[:, Row.MAILBOXES].tolist() == [0, 0, 1]
    assert [*here.receive()] == [], "its box is looked for once it is known"
    here.meet(2, 1)
    assert here.boxes == [0, 0, 0] and [*here.receive()] == [] and here.boxes == [0, 0, 1]
    assert Board.create(tmp_path / "most", MOST).capacity == MOST
    board.words[1] = board.capacity + 1
    with pytest.raises(DataError, match="it is of 67 agents, and has 66 rows"):
        Board.attach(tmp_path / "board")
