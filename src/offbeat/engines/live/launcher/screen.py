"""What the terminal shows of a run: a line for every agent, their output above; or a line now and then."""

import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.text import Text

from offbeat.engines.live.launcher.children import OnOutput
from offbeat.engines.live.launcher.launch import PATIENCE as ENDS_WITHIN
from offbeat.engines.live.launcher.launch import Launcher
from offbeat.engines.live.launcher.metrics import Metrics
from offbeat.engines.live.launcher.view import View, labelled, unfinished
from offbeat.engines.live.settings import ScriptProgram
from offbeat.engines.live.shm.board import Order, Row, State

DRAWN_EVERY, SAID_EVERY = 0.25, 10.0  # seconds between drawings, and between lines where there is no terminal
HELD = 10_000  # lines of output that wait for the next drawing, at most
ABSENT = 60.0  # seconds from its start after which it is said that an agent has not joined


class Screen:
    """The view of a run on `console`, that of standard error; use it in a `with`, and `update` it often.

    Agents' output goes to `out`, or above the table if both are terminals.
    """

    def __init__(self, console: Console, out: Console) -> None:
        self.console, self.out = console, out
        self.view = View()
        self._live: Live | None = None
        self._held: deque[Text] = deque(maxlen=HELD)
        self._lost = 0  # lines for which there was no room
        self._last: tuple[Launcher, Metrics] | None = None
        self._drawn, self._said = 0.0, time.monotonic()
        self._absent_said = self._stopping_said = False

    def __enter__(self) -> Self:
        if self._on_terminal(self.console) and not self.console.is_dumb_terminal:
            self._live = Live(console=self.console, auto_refresh=False, redirect_stdout=False)
            self._try(self.console, self._live.start)
        return self

    def __exit__(self, *_: object) -> None:
        live, self._live = self._live, None
        if live is not None:
            self._show_held()
            if self._last is not None:
                live.update(self.view.drawing(*self._last, self.console.size))
            self._try(self.console, live.stop)

    def print(self, line: str | Text) -> None:
        """Show a line of output; above the table it appears with the next drawing."""
        if self._live is None or not self._on_terminal(self.out):
            self._print(self.out, line)
        else:
            self._lost += len(self._held) == HELD
            self._held.append(Text(line) if isinstance(line, str) else line)

    def update(self, launcher: Launcher, metrics: Metrics) -> None:
        """Draw, if it is time to. A terminal that has been stopped (Ctrl-S) stops nothing but this."""
        self._last, now, live = (launcher, metrics), time.monotonic(), self._live
        self._say_what_is_waited_for(launcher, now)
        if live is None and now - self._said >= SAID_EVERY:
            self._said = now
            for line in unfinished(launcher, range(launcher.board.n)):
                self.print(line)
            self._print(self.console, self.view.line(launcher, metrics))
        elif live is not None and now - self._drawn >= DRAWN_EVERY and self._writable():
            self._drawn = now
            self._show_held()
            drawn = self.view.drawing(launcher, metrics, self.console.size)
            self._try(self.console, lambda: live.update(drawn, refresh=True))

    def _say_what_is_waited_for(self, launcher: Launcher, now: float) -> None:
        """Once: who has not joined for long, as a script does that never will; and whom Ctrl-C waits for."""
        board, running = launcher.board, launcher.children.running
        states, settings = board.rows[:, Row.STATE].tolist(), launcher.settings
        starting = board.order is Order.WAIT and isinstance(settings.program, ScriptProgram)
        if starting and not self._absent_said:
            absent = [i for i, state in enumerate(states) if i in running and state == State.ABSENT]
            if late := [i for i in absent if now - running[i].started >= ABSENT]:
                self._absent_said = True
                self.print(
                    f"{_agents(late, 'has', 'have')} not called offbeat.join() and agent.wrap(...) yet, "
                    f"{ABSENT:.0f} s after the start; no agent makes a step with the others before all have. "
                    f"A script that never does is trained {board.n} times, each time alone: Ctrl-C, and "
                    "'offbeat launch --help' shows where the calls go."
                )
        left = [i for i in running if i < board.n and states[i] != State.LEFT]
        if launcher.stopped_by and left and not self._stopping_said:
            self._stopping_said = True
            save = " and save" if settings.checkpoint_every else ""
            who = _agents(left, "is to end with its step", "are to end with their step")
            self.print(
                f"Interrupted: {who}{save}; who has not within {ENDS_WITHIN:.0f} s is killed. "
                "A second Ctrl-C ends all now."
            )

    def _show_held(self) -> None:
        if self._held:
            lost = f"({self._lost:,} lines are in the agents' files only)\n" if self._lost else ""
            lines = Text.assemble(lost, Text("\n").join(self._held))
            self._held.clear()
            self._lost = 0
            self._print(self.console, lines)

    def _print(self, console: Console, what: str | Text) -> None:
        text = Text(what) if isinstance(what, str) else what
        self._try(console, lambda: console.print(text, soft_wrap=True))

    def _try(self, console: Console, write: Callable[[], object]) -> None:
        """Where nothing can be shown any more, nothing is; the run goes on."""
        try:
            write()
        except (OSError, ValueError):
            console.quiet = True

    def _on_terminal(self, console: Console) -> bool:
        with suppress(OSError, ValueError):
            return console.is_terminal and console.file.isatty() and not console.quiet
        return False

    def _writable(self) -> bool:
        with suppress(OSError, ValueError):
            return bool(select.select([], [self.console.file.fileno()], [], 0)[1])
        return False


@contextmanager
def shown(screen: Screen | None, metrics: Metrics) -> Iterator[tuple[OnOutput, Callable[[Launcher], None]]]:
    """`on_output` and `watch` for a launcher: they keep metrics and, if there is one, screen up to date."""

    def on_output(agent: int, line: str) -> None:
        if screen is not None:
            screen.print(labelled(agent, line))

    def watch(launcher: Launcher) -> None:
        metrics(launcher)
        if screen is not None:
            screen.update(launcher, metrics)

    try:
        yield on_output, watch
    finally:
        metrics.close()


def _agents(some: Sequence[int], one: str, several: str) -> str:
    return f"agent{'s' * (len(some) > 1)} {', '.join(map(str, some))} {several if len(some) > 1 else one}"
