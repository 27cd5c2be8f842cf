"""What the gateway of one machine may ask of that of another; the rest of the room keeps to these words.

A gateway answers for the agents that live on its machine, from the files of its run folder. Bytes are headers
of numbers (`struct`, little-endian), JSON, or the memory of a register or a mailbox as it lies there. A call
may fail or hang, as links do: whoever calls gives up in time and asks again, and no answer is needed twice
for the state to be right, since every question says what has been seen.
"""

import asyncio
from abc import abstractmethod
from typing import Any, Protocol, TypeAlias

import numpy as np

Raw: TypeAlias = bytes | memoryview | np.ndarray[Any, np.dtype[np.uint8]]
"""Bytes; large ones as an array, so that a transport may hand them on without a copy."""

PIECE = 90_000  # bytes that Ray puts into its answer: its limit is 100 KiB
INLINE = 4_000_000  # of all pieces of an answer

Version: TypeAlias = tuple[int, bytes, Raw]
"""Of a register: which version, the words before its vectors (tag, numbers, stamps), the vectors."""

Proposal: TypeAlias = tuple[bytes, bytes, bytes, Raw]
"""What agent 0 has joined with: the JSON; a register with the model where all start, as its text, words and
vectors.
"""


class Peer(Protocol):
    """The gateway of another machine. `Exchange` is one for agents of its own; a Ray actor, through `Handle`.

    Whatever a call raises, `Exception` and its subclasses, means: not now.
    """

    async def clock(self) -> int:
        """Now, in ns of that machine's monotonic clock."""

    async def rows(self, seen: int) -> bytes:
        """The board's rows of the agents that live there; at once if what matters (`rows.KEYS`) is not what
        the answer said whose checksum was `seen`, else at the next beat. 0: nothing has been seen.
        """

    async def proposal(self) -> Proposal | None:
        """What agent 0 has joined with; None as long as it is not known there."""

    async def register(self, agent: int, incarnation: int, k: int) -> bytes:
        """The text of a register: whom it is for and its layout, as JSON. Empty if there is none."""

    async def newest(self, agent: int, incarnation: int, k: int, seen: int) -> Version | None:
        """The newest version of a register, as soon as that is above `seen`; None after a second."""

    async def take_mail(self, head: bytes, letters: Raw) -> int:
        """Whole letters for one mailbox, whose names and place `head` says (`post.HEAD`). Returns how far the
        mailbox is filled now, in bytes since it was made, whatever of these letters came before: so what is
        sent twice is taken once. Waits for room, at most a second.
        """

    async def deal(self, question: bytes) -> bytes:
        """What that machine says of its part of an epoch whose batches go to whoever comes for one: see
        `dealing`.
        """


class Asked(Peer):
    """A `Peer` to which every question goes in one way."""

    @abstractmethod
    async def _ask(self, what: str, *args: Any) -> Any:
        """What its method of this name answers."""

    async def clock(self) -> int:
        return int(await self._ask("clock"))

    async def rows(self, seen: int) -> bytes:
        answer: bytes = await self._ask("rows", seen)
        return answer

    async def proposal(self) -> Proposal | None:
        answer: Proposal | None = await self._ask("proposal")
        return answer

    async def register(self, agent: int, incarnation: int, k: int) -> bytes:
        answer: bytes = await self._ask("register", agent, incarnation, k)
        return answer

    async def newest(self, agent: int, incarnation: int, k: int, seen: int) -> Version | None:
        answer: Version | None = await self._ask("newest", agent, incarnation, k, seen)
        return answer

    async def take_mail(self, head: bytes, letters: Raw) -> int:
        return int(await self._ask("take_mail", head, letters))

    async def deal(self, question: bytes) -> bytes:
        answer: bytes = await self._ask("deal", question)
        return answer


class Handle(Asked):
    """One whose methods are remote ones, of a Ray actor: `handle.method.remote(...)` can be awaited.

    Ray puts into its answer what is small, and has larger values fetched, which takes several ways there and
    back. So a version of up to `INLINE` bytes comes as several small values.
    """

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._pieces: dict[tuple[int, int, int], int] = {}  # of each register's versions, once one has come

    async def _ask(self, what: str, *args: Any) -> Any:
        return await getattr(self._handle, what).remote(*args)

    async def newest(self, agent: int, incarnation: int, k: int, seen: int) -> Version | None:
        name = agent, incarnation, k
        if (count := self._pieces.get(name, 1)) == 1:
            answer = await super().newest(*name, seen)
            if answer is not None and PIECE < (size := len(answer[2])) <= INLINE:
                self._pieces[name] = -(-size // PIECE)
            return answer
        remote = self._handle.pieces.options(num_returns=1 + count)
        head, *parts = await asyncio.gather(*remote.remote(count, *name, seen))
        return None if head is None else (*head, b"".join(parts))


async def in_pieces(peer: Peer, count: int, *question: int) -> tuple[Any, ...]:
    """The answer of `newest` as so many pieces, after its version and words; None if there is none."""
    answer = await peer.newest(*question)
    if answer is None:
        return None, *[b""] * count
    *head, raw = answer
    size = -(-len(raw) // count)
    return tuple(head), *[bytes(raw[k * size : (k + 1) * size]) for k in range(count)]
