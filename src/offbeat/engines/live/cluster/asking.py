"""Questions to another machine: given up in time, and asked again at once when a cut link is back."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from offbeat.engines.live.cluster.peer import Peer

AGAIN = 0.25  # seconds before a question is asked again that got no answer
BEATS = 1.0  # seconds to wait for an answer that comes within a beat by itself
LONG = 10.0  # seconds for one that waits for something, and for every so many bytes:
SLOWEST = 1e6
CUT = 2  # beats in a row without an answer after which a link was cut

Answer = TypeVar("Answer")


def seconds() -> float:
    """The time of the loop that runs."""
    return asyncio.get_running_loop().time()


class NoAnswer(Exception):
    """A question that got no answer, for whatever reason."""


@dataclass
class Link:
    """What is known of another machine.

    Attributes:
        heard: when its last answer came, in seconds of this machine's monotonic clock; 0: never
        silent: beats in a row without an answer
        error: what the last question met that got no answer
        received: bytes of registers that came from there
        sent: bytes of letters that have arrived there
        cut: whether no answer counts, on purpose
    """

    peer: Peer
    cut: Callable[[], bool] = lambda: False
    heard: float = 0.0
    silent: int = 0
    error: str = ""
    received: int = 0
    sent: int = 0
    _asking: set["asyncio.Future[Any]"] = field(default_factory=set)

    async def ask(self, answer: Coroutine[Any, Any, Answer], nbytes: int = 0) -> Answer:
        """What comes of a question that may wait for something. Raises NoAnswer, also when the link was cut
        and is back: a call from before that may hang for long.
        """
        call = self._begun(answer)
        self._asking.add(call)
        try:
            return await self._in_time(call, LONG + nbytes / SLOWEST)
        finally:
            self._asking.discard(call)

    async def beat(self, answer: Coroutine[Any, Any, Answer]) -> Answer:
        """The same for the question that is asked all the time, by which a cut link is known."""
        try:
            found = await self._in_time(self._begun(answer), BEATS)
        except NoAnswer:
            self.silent += 1
            raise
        if self.silent >= CUT:
            for call in self._asking:
                call.cancel()
        self.silent = 0
        return found

    def _begun(self, answer: Coroutine[Any, Any, Answer]) -> "asyncio.Future[Answer]":
        if not self.cut():
            return asyncio.ensure_future(answer)
        answer.close()
        self.error = "the link is cut, on purpose"
        raise NoAnswer(self.error)

    async def _in_time(self, call: "asyncio.Future[Answer]", seconds: float) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                found = await call
            if self.cut():
                raise ConnectionError("the link is cut, on purpose")
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            self.error = "the link was cut"
            raise NoAnswer from None
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"
            raise NoAnswer(self.error) from error
        self.heard = time.monotonic()
        return found
