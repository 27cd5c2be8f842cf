"""What can be done to any file: accidents, which a checksum must notice, and what only somebody hostile
writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from random import Random

Change = Callable[[bytes, Random], bytes]


def _at(content: bytes, rng: Random) -> int:
    """Anywhere, but often in the head, where sizes are."""
    return rng.randrange(max(1, min(len(content), 200) if rng.random() < 0.5 else len(content)))


def _cut(content: bytes, rng: Random) -> bytes:
    return content[: _at(content, rng)]


def _flip(content: bytes, rng: Random) -> bytes:
    changed = bytearray(content or b"\0")
    for _ in range(rng.choice((1, 1, 1, 5))):
        changed[_at(content, rng)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _zeros(content: bytes, rng: Random) -> bytes:
    at, length = _at(content, rng), rng.choice((1, 8, 64, 512))
    return content[:at] + bytes(min(length, len(content) - at)) + content[at + length :]


def _missing(content: bytes, rng: Random) -> bytes:
    at = _at(content, rng)
    return content[:at] + content[at + rng.choice((1, 4, 40, 400)) :]


def _twice(content: bytes, rng: Random) -> bytes:
    at = _at(content, rng)
    return content[:at] + content[max(0, at - rng.choice((1, 4, 40, 400))) :]


def _noise(content: bytes, rng: Random) -> bytes:
    at, length = _at(content, rng), rng.choice((2, 16, 200))
    return content[:at] + rng.randbytes(length) + content[at + length :]


def _more(content: bytes, rng: Random) -> bytes:
    return content + rng.randbytes(rng.choice((1, 8, 100)))


ACCIDENTS: list[tuple[str, Change]] = [
    ("cut", _cut), ("a bit flipped", _flip), ("a bit flipped", _flip), ("zeros", _zeros),
    ("a piece missing", _missing), ("a piece twice", _twice), ("noise", _noise), ("more at the end", _more),
    ("empty", lambda content, rng: b""),
]  # fmt: skip


def _huge(content: bytes, rng: Random) -> bytes:
    """A size that nothing has, where one may be."""
    at = _at(content, rng) & ~3
    size = rng.choice(
        (
            b"\xff" * 4,
            b"\xff" * 8,
            b"\xff\xff\xff\x7f",
            b"\0\0\0\x7f",
            b"\xff" * 7 + b"\x7f",
            b"\0\0\0\0\0\1\0\0",
        )
    )
    return content[:at] + size + content[at + len(size) :]


def _number(content: bytes, rng: Random) -> bytes:
    """Another number in text."""
    digits = [at for at, c in enumerate(content[:20_000]) if 48 <= c < 58] or [0]
    at = rng.choice(digits)
    other = rng.choice(
        (b"-1", b"1e999", b"9" * 30, b"9" * 5000, b"nan", b"true", b'"x"', b"[]", b"0.5", b"null", b"0")
    )
    return content[:at] + other + content[at + 1 :]


def _nested(content: bytes, rng: Random) -> bytes:
    """Deeper than any parser likes."""
    at, depth = _at(content, rng), rng.choice((200, 5_000, 100_000))
    one, other = rng.choice(((b"[", b"]"), (b'{"a":', b"}"), (b"{a=", b"}"), (b"(", b")")))
    return content[:at] + one * depth + other * depth + content[at:]


def _text(content: bytes, rng: Random) -> bytes:
    at = _at(content, rng)
    odd = (
        "\0",
        "\x1b[31mred",
        "\u202e",
        "\ud83d\ude00",
        "é",
        "\ufeff",
        "١٢",
        "\r",
        "\x85",
        "# ",
        '"',
        "\\",
        "=",
    )
    return content[:at] + rng.choice(odd).encode("utf-8", "surrogatepass") + content[at:]


def _whole(content: bytes, rng: Random) -> bytes:
    return rng.choice((
        bytes(1000), b"\xff" * 1000, b"null", b"[]", b"{}", b"3", b'"text"', b"\x1f\x8b" + bytes(20),
        b"PK\5\6" + bytes(18),
        "näïve 数字\n".encode() * 50, rng.randbytes(2000), b"\x93NUMPY\1\0\xff\xff", b"\xff" * 8 + b"{",
        b"[" * 200_000,
    ))  # fmt: skip


HOSTILE: list[tuple[str, Change]] = [
    ("a huge size", _huge),
    ("another number", _number),
    ("nested deeply", _nested),
    ("odd text", _text),
    ("something else", _whole),
]


def irregular(path: Path, rng: Random) -> str:
    """Put something in the file's place that is no file, or no end of one."""
    kind = rng.choice(
        ("a pipe", "a folder", "a device", "a loop", "a sparse terabyte", "nothing", "unreadable text")
    )
    path.unlink()
    match kind:
        case "a pipe":
            os.mkfifo(path)
        case "a folder":
            path.mkdir()
        case "a device":
            path.symlink_to("/dev/zero")
        case "a loop":
            path.symlink_to(path)
        case "a sparse terabyte":
            with path.open("wb") as file:
                file.truncate(1 << 40)
        case "unreadable text":
            path.write_bytes(b"\xff\xfe\xfd" * 100)
    return kind
