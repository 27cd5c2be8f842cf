"""Who belongs to a run over several machines, and works where, as the board of one of them has it."""

from collections.abc import Mapping, Sequence

from offbeat.engines.live.shm.board import Board, Row, State


class Working:
    """See the module. `hosts`: the machine of each agent, which its owner changes."""

    def __init__(self, board: Board, hosts: Sequence[int]) -> None:
        self.board, self.hosts = board, hosts
        self._members, self._heard = set[int](), 0

    def now(self) -> Mapping[int, int]:
        """The agents that belong to the run, and their machines; -1: it is done, and works nowhere."""
        for agent, incarnation in self.board.since(self._heard):
            self._heard += 1
            (self._members.add if incarnation > 0 else self._members.discard)(agent)
        left = {i for i in self._members if self.board.row(i)[Row.STATE] == State.LEFT}
        return {i: -1 if i in left else self.hosts[i] for i in self._members if i < len(self.hosts)}
