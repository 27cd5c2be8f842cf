"""Where files of data are looked for, and how they are fetched where nobody has them."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from textwrap import shorten

import pooch
import requests
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn

from offbeat.core.errors import DataError, SettingError, failed

VARIABLE = "OFFBEAT_DATA"  # the environment variable that names the data directory when no argument does


def directory(data: Path | None) -> Path | None:
    """The data directory that was named, by the argument or else by the variable; None if none was."""
    given = data or os.environ.get(VARIABLE)
    if not given:
        return None
    root = expanded(given, f"the data directory '{given}'")
    if not root.is_dir():
        origin = "given as argument" if data else f"from the environment variable {VARIABLE}"
        raise SettingError(
            f"The data directory '{root}' ({origin}) is no directory. Name one that holds the files, or none "
            "to have them downloaded."
        )
    return root


def expanded(path: str | Path, what: str) -> Path:
    """Without ~. In a container, a user may have neither a name nor a home: then a SettingError."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise SettingError(
            f"Cannot tell where {what} is: this user has no home directory, and HOME is not set. Set HOME, "
            f"or name the directory with the data in full, by --data or {VARIABLE}."
        ) from None


class _Bar:
    """The progress bar that pooch drives, drawn by rich on stderr; not drawn where that is no terminal."""

    total = 0  # bytes of the whole file; set by pooch, which writes 0 for unknown

    def __init__(self, label: str) -> None:
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task(label, total=None)

    def update(self, n: int) -> None:
        self._progress.start()
        self._progress.update(self._task, advance=n, total=self.total or None)

    def reset(self) -> None:
        """Go back to no bytes, as pooch does before it tells the true number at the end."""
        self._progress.reset(self._task)

    def close(self) -> None:
        if self._progress.live.is_started:
            self._progress.stop()


def _fetch(url: str, sha256: str, cache: Path) -> Path:
    """The file of that URL in `cache`, downloaded unless it is there; ValueError if its SHA-256 differs."""
    file = url.rpartition("/")[2]
    pooch.get_logger().setLevel("WARNING")  # the bar says enough
    with closing(_Bar(file)) as bar:
        loader = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16)
        return Path(pooch.retrieve(url, f"sha256:{sha256}", file, cache, downloader=loader))


def download(
    title: str, folder: str, mirrors: Sequence[str], files: Sequence[tuple[str, str]], cache: str
) -> list[Path]:
    """These files, (name, SHA-256) each, in the user's cache, from the first mirror that delivers.

    Args:
        title: of the data set, in messages
        folder: what it is called in a directory of the user's
        mirrors: base URLs, tried in this order
        cache: the folder within the cache

    Raises DataError if no mirror has all of them as they should be.
    """
    place, tried = cache_folder() / cache, []
    for mirror in mirrors:
        try:
            return [_fetch(f"{mirror}{name}", sha256, place) for name, sha256 in files]
        except (OSError, ValueError) as error:
            # requests raises OSErrors; pooch a ValueError for a wrong checksum, and deletes the file. Files
            # that did pass stay in the cache and are not fetched again.
            tried.append(f"{mirror} ({_why(error)})")
    raise DataError(
        f"{title} could not be downloaded. Tried {'; '.join(tried)}. To supply the files by hand, put "
        f"{', '.join(name for name, _ in files)} into DIR/{folder} and set {VARIABLE}=DIR, or say "
        '--data DIR; in a grid, data = "DIR".'
    )


def _why(error: OSError | ValueError) -> str:
    """What went wrong with a mirror, in plain words: requests and urllib3 say it at great length."""
    answer = getattr(error, "response", None)
    if answer is not None:
        return f"it answered {answer.status_code} {answer.reason}".rstrip()
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted here"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy that is set here does not reach it"
    if isinstance(error, requests.ConnectionError):
        return "no connection; is there a network?"
    if isinstance(error, requests.RequestException):
        return "the transfer broke off"
    return failed(error) if isinstance(error, OSError) and error.errno else shorten(str(error), 300)


def cache_folder() -> Path:
    """The folder for what is downloaded. SettingError for a user without a home."""
    return expanded(pooch.os_cache("offbeat"), "the cache for downloads")
