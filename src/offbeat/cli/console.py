"""The terminal: a console that outlives its reader."""

import errno
import os
import re
from collections.abc import Iterable, Iterator

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from offbeat.results import WIDTH, unpadded

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
"""What a terminal would obey or cannot show: controls but for tab and newline; bytes that are no text."""


class Out(Console):
    """A console that takes it calmly when its reader goes away, as `head` does; the results matter more.

    Of standard error, which shows how far the work is, any fault of its file is taken so. All that names,
    scripts and files bring is shown as text: nothing of it reaches the terminal as a command.
    """

    def __init__(self, stderr: bool = False) -> None:
        super().__init__(stderr=stderr)
        if not (self.is_terminal or os.environ.get("COLUMNS", "").strip("0").isdigit()):
            self.width = WIDTH

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        """As of any console; what a terminal would obey is shown instead, as `\\x1b`."""
        for segment in super().render(renderable, options):
            if not segment.control:
                text = CONTROLS.sub(lambda found: ascii(found[0])[1:-1], segment.text)
                segment = Segment(text, segment.style)
            yield segment

    def _render_buffer(self, buffer: Iterable[Segment]) -> str:
        """What is written; blanks at the ends of lines are for terminals, whose tables they fill."""
        text = super()._render_buffer(buffer)
        return text if self.is_terminal else unpadded(text)

    def _check_buffer(self) -> None:
        """Write what is to be shown. Raises OSError where standard output cannot be written."""
        try:
            super()._check_buffer()
        except OSError as error:
            if not self.stderr and error.errno != errno.EIO:  # a terminal that is gone
                raise
            self.on_broken_pipe()

    def on_broken_pipe(self) -> None:
        """Say no more, and leave nothing to be flushed into the pipe at the end."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())


def say(text: str | Text, stderr: bool = False) -> None:
    """Print a line as long as it is."""
    Out(stderr).print(Text(text) if isinstance(text, str) else text, soft_wrap=True)


def complain(text: str | Text) -> None:
    """Say on standard error what the user should know."""
    say(text, stderr=True)
