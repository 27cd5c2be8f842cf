"""Plays as samples for a model of characters: who speaks is known, so the data split by speaking role.

    First Citizen:
    Before we proceed any further, hear me speak.

A speech is a line with the speaker's name and a colon, and the lines up to the next empty one. The speeches
of a role are joined, without its name, and cut into windows of `LENGTH` characters, each with the character
that follows each of its own; of every role's windows the last tenth is for testing. By speaking role as in
LEAF (arXiv:1812.01097); the windows and the last tenth are ours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from offbeat.core.errors import DataError
from offbeat.core.system.reading import LARGEST_JSON, content, reading
from offbeat.tasks.dataset import Samples
from offbeat.tasks.fetching import directory, download

NAME, TITLE = "shakespeare", "Tiny Shakespeare"
LENGTH = 64
TESTED = 10  # one of so many windows of a role is for testing
MOST = 256  # different characters
FOLDERS, FILE = ("tinyshakespeare", "shakespeare"), "input.txt"
MIRRORS = ("https://raw.githubusercontent.com/karpathy/char-rnn/6f9487a/data/tinyshakespeare/",)
SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SPEECH = re.compile(r"^(\S[^\n]*):\n(.+?)(?:\n(?=\n)|\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, eq=False)
class Text(Samples):
    """Windows of a text, int64 [N, LENGTH], the places of characters among `symbols`, with those of the
    characters that follow.

    Attributes:
        symbols: all characters of the text, in their order
        columns: "role": who speaks, [N], of the training data; nothing where it is not known
    """

    symbols: str
    columns: Mapping[str, np.ndarray]
    remark: str = ""


def read_text(data: Path | None = None) -> Text:
    """The text in D/tinyshakespeare/input.txt, D/shakespeare/input.txt or D/input.txt of the directory D that
    is named by `data` or OFFBEAT_DATA; without one, Tiny Shakespeare is downloaded once and checked.

    Raises DataError for what is missing, no text in UTF-8, or too short.
    """
    root = directory(data)
    if root is None:
        (path,) = download(TITLE, FOLDERS[0], MIRRORS, [(FILE, SHA256)], NAME)
    else:
        places = [root / folder / FILE for folder in FOLDERS] + [root / FILE]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            looked = ", ".join(map(str, places))
            raise DataError(
                f"There is no text in the data directory '{root}'; expected one of {looked}. Put it there, "
                f"or name no data directory to have {TITLE} downloaded."
            )
        path = found
    with reading(path, "a text in UTF-8", "Replace this file by a good copy."):
        return windows(content(path, LARGEST_JSON).decode("utf-8"), path)


def windows(whole: str, path: Path) -> Text:
    """The windows of a text, role after role as they first speak; all of it is one role's if nobody speaks.

    Raises DataError, with the path, for a text that is too short or has too many different characters.
    """
    symbols = "".join(sorted({*whole}))
    if len(symbols) > MOST:
        raise DataError(f"{path} has {len(symbols)} different characters; expected at most {MOST}.")
    place, spoken = {symbol: k for k, symbol in enumerate(symbols)}, dict[str, list[str]]()
    for role, lines in SPEECH.findall(whole):
        spoken.setdefault(role, []).append(lines)
    parts: dict[str, list[np.ndarray]] = {"train": [], "test": []}
    roles = list[str]()
    for role, speeches in spoken.items() or [("", [whole])]:
        codes = np.array([place[c] for c in "\n".join(speeches)], np.int64)
        count = (len(codes) - 1) // LENGTH
        shifted = [codes[k : k + count * LENGTH].reshape(count, LENGTH) for k in (0, 1)]
        cut = np.stack(shifted, 1)  # [count, 2, LENGTH]: inputs, and what follows them
        last = count // TESTED
        parts["train"].append(cut[: count - last])
        parts["test"].append(cut[count - last :])
        roles += [role] * (count - last)
    train, test = (torch.from_numpy(np.concatenate(each)) for each in parts.values())
    if not len(train) or not len(test):
        raise DataError(
            f"{path} has {len(train)} windows of {LENGTH} characters for training and {len(test)} for "
            "testing; expected some of each: a longer text."
        )
    columns = {"role": np.array(roles)} if spoken else {}
    return Text(NAME, train[:, 0], train[:, 1], test[:, 0], test[:, 1], symbols, columns)
