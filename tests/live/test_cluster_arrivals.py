"""What comes from another machine and cannot have been meant is refused, said, and harms no agent."""

import asyncio
import json
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from machines import Model, Numbered, at_once, coming, machines, publish, until, vector
from warm import needs_shared_memory

from offbeat.core.codecs import BF16, Codec, Int8, TopK
from offbeat.core.compression import Packed
from offbeat.core.vector import Vector
from offbeat.engines.live.cluster.arrival import Arrivals, Refused
from offbeat.engines.live.cluster.post import HEAD
from offbeat.engines.live.shm.board import Row
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.mail import Mailbox
from offbeat.engines.live.shm.wire import layout_of

pytestmark = needs_shared_memory


def text_with(at: Callable[[list[Any]], None], to: str = "[1]") -> Callable[[bytes], bytes]:
    def changed(text: bytes) -> bytes:
        layout = json.loads(text.partition(b"\n")[2])
        at(layout)
        return to.encode() + b"\n" + json.dumps(layout).encode()

    return changed


def put(k: int, value: Any) -> Callable[[list[Any]], None]:
    def change(layout: list[Any]) -> None:
        layout[k] = value

    return change


def words_with(k: int, format_: str, value: Any) -> Callable[[Any], Any]:
    def changed(answer: Any) -> Any:
        version, words, raw = answer
        words = bytearray(words)
        struct.pack_into(format_, words, 8 * k, value)
        return version, bytes(words), raw

    return changed


WRONG: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "no JSON": ("register", lambda text: text[:-3], "Not a message of offbeat"),
    "no text": ("register", lambda text: b"\xff\xfe", ""),
    "for nobody": ("register", text_with(put(0, "m:M"), "[7]"), "for the agents (7,)"),
    "a name": ("register", text_with(put(0, "os;system")), "no name of a message type"),
    "a dtype": ("register", text_with(put(2, [["x", [["save", 4]]]])), "an unknown dtype, save"),
    "an odd dtype": ("register", text_with(put(2, [["x", [["quint8", 4]]]])), "an unknown dtype, quint8"),
    "less than nothing": ("register", text_with(put(2, [["x", [["float32", -4]]]])), "less than nothing"),
    "too much": ("register", text_with(put(2, [["x", [["float32", 1 << 50]]]])), "a vector of"),
    "a field twice": ("register", text_with(put(1, [["x", "int"]])), "the fields"),
    "a number's type": ("register", text_with(put(1, [["y", "str"]])), "the fields"),
    "a codec": ("register", text_with(put(3, [["x", "zip", []]])), "Not a message of offbeat"),
    "truncated": ("newest", lambda answer: (*answer[:2], answer[2][:-8]), "bytes came; expected"),
    "too long": ("newest", lambda answer: (*answer[:2], bytes(answer[2]) + b"1"), "bytes came; expected"),
    "short words": ("newest", lambda answer: (answer[0], answer[1][:-8], answer[2]), "bytes came; expected"),
    "no triple": ("newest", lambda answer: answer[:2], ""),
    "no bytes": ("newest", lambda answer: (*answer[:2], "text"), ""),
    "a version": ("newest", lambda answer: (0, *answer[1:]), "expected one above"),
    "no version": ("newest", lambda answer: ("1", *answer[1:]), ""),
    "a time": ("newest", words_with(3, "<d", float("nan")), "its tag is"),
    "a membership": ("newest", words_with(1, "<q", -1), "its tag is"),
    "a number of letters": ("newest", words_with(4, "<q", -2), "its tag is"),
    "an agent": ("newest", words_with(5, "<q", 1 << 40), "there are 2 agents"),
    "a model's version": ("newest", words_with(6, "<q", -5), "there are 2 agents"),
    "rows cut off": ("rows", lambda rows: rows[:-8], "are not 1 rows"),
    "no rows": ("rows", lambda rows: b"", ""),
    "registers": (
        "rows", lambda rows: rows[:32] + struct.pack("<6q", 2, 1, 1, 0, 0, -3) + rows[80:], "REGISTERS -3",
    ),
    "too many bytes": ("take_mail", lambda number: 1 << 40, "expected 0 to"),
    "fewer bytes": ("take_mail", lambda number: -64, "expected 0 to"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
@at_once
async def test_a_damaged_answer_is_refused_and_what_is_right_is_taken_afterwards(what: str) -> None:
    name, change, why = WRONG[what]
    async with machines(0, 1) as there:
        first, second = there[0].agent(0), there[1].agent(1)
        first.meet(1, 1)
        second.meet(0, 1)
        asker = there[0].links[1] if name == "take_mail" else there[1].links[0]
        saying = there[0] if name == "take_mail" else there[1]
        asker.alter = lambda said, answer: change(answer) if said == name and answer else answer
        publish(first, Model(vector(7.0)), (1,))
        assert first.post(1, Model(vector(8.0)), Tag())
        await until(lambda: saying.said)
        assert why in saying.said[0] and ("refused" in saying.said[0] or name == "rows")
        assert "Nothing of it was used" in saying.said[0]
        await asyncio.sleep(1.0)
        assert name == "take_mail" or [*second.poll((0,))] == []
        assert len(saying.said) == 1, "said once"
        asker.alter = lambda said, answer: answer
        found = await coming(lambda: second.poll((0,)))
        assert (found[0].vectors[0].parts[0] == 7.0).all()
        mail = await coming(second.receive)
        await asyncio.sleep(1.0)
        assert len([*mail, *second.receive()]) == 1


Change = Callable[[bytearray], object]


def packs(format_: str, at: int, *values: Any) -> Change:
    return lambda letter: struct.pack_into(format_, letter, at, *values)


def text_of(old: bytes, new: bytes) -> Change:
    """In place of what the layout says: as long as it."""

    def change(letter: bytearray) -> None:
        at = letter.index(old)
        letter[at : at + len(old)] = new

    return change


def cut(letter: bytearray) -> None:
    del letter[-64:]


HEADS = {
    "short": (b"123", "Mail was refused"),
    "no agent": (HEAD.pack(9, 1, 1, 1, 8192, 0), "there are 2 agents"),
    "no life": (HEAD.pack(0, 0, 1, 1, 8192, 0), "there are 2 agents"),
    "no mailbox": (HEAD.pack(0, 1, 1, 1, -5, 0), "a mailbox of -5 bytes"),
    "a huge mailbox": (HEAD.pack(0, 1, 1, 1, 1 << 50, 0), "a mailbox of"),
    "a gap": (HEAD.pack(0, 1, 1, 1, 8192, 640), "it is the bytes from 640"),
    "a small mailbox": (HEAD.pack(0, 1, 1, 1, 64, 0), "longer than its mailbox"),
}
LETTERS: dict[str, tuple[Change, str]] = {
    "cut off": (cut, "came"),
    "nothing": (lambda letter: letter.__delitem__(slice(9, None)), "are no letter"),
    "a length": (packs("<Q", 0, 1 << 60), "a letter of"),
    "no length": (packs("<Q", 0, 0), "a letter of 0 bytes"),
    "a text's length": (packs("<Q", 8, 1 << 40), "Not a message of offbeat"),
    "a type": (text_of(b"float64", b"float99"), "unknown dtype"),
    "a shape": (text_of(b" 64]", b" 32]"), "its layout says"),
    "less than nothing": (text_of(b" 64]", b" -4]"), "less than nothing"),
    "a time": (lambda letter: packs("<d", 128 + 24, float("inf"))(letter), "its tag is"),
}


@pytest.mark.parametrize("what", [*HEADS, *LETTERS])
@at_once
async def test_damaged_mail_is_refused_whole_and_the_mailbox_is_as_before(what: str, tmp_path: Path) -> None:
    box = Mailbox.create(tmp_path / "box", 1 << 16)
    assert box.put(Model(vector(1.0)), Tag())
    right = bytes(box.waiting(1 << 16))
    async with machines(0, 1) as there:
        there[0].agent(0)
        second, exchange = there[1].agent(1), there[1].exchange
        second.meet(0, 1)
        assert exchange is not None
        head, letters, why = HEAD.pack(0, 1, 1, 1, 8192, 0), bytearray(right), ""
        if what in HEADS:
            head, why = HEADS[what]
        else:
            change, why = LETTERS[what]
            change(letters)
            letters = bytearray(right) + letters
        await until(lambda: there[1].board.row(0)[Row.INCARNATION] == 1)
        with pytest.raises(Refused, match=re.escape(why)):
            await exchange.take_mail(head, bytes(letters))
        assert [*second.receive()] == []
        if "small" not in what:
            head = HEAD.pack(0, 1, 1, 1, 8192, 0)
            assert [await exchange.take_mail(head, right) for _ in range(2)] == [len(right)] * 2
            assert [float(message.x.parts[0][0]) for _, message, _ in second.receive()] == [1.0]


def test_a_type_of_message_has_the_same_fields_as_before() -> None:
    arrivals, x = Arrivals(2), vector(1.0)
    arrivals.layout(layout_of(Model(x)))
    arrivals.layout(layout_of(Model(vector(1.0, length=3))))
    other = replace(layout_of(Numbered(1, x)), kind=layout_of(Model(x)).kind)
    with pytest.raises(ValueError, match="has the fields"):
        arrivals.layout(other)


@pytest.mark.parametrize("codec", [BF16(), Int8(), TopK(0.1), TopK(0.9)])
def test_what_was_compressed_can_be_unpacked_or_is_refused(codec: Codec, tmp_path: Path) -> None:
    """Any damage to its numbers that would raise in an agent is noticed, without torch."""
    x = Vector((torch.arange(100.0), torch.arange(7.0, dtype=torch.float64)))
    box, packed, random = Mailbox.create(tmp_path / "box", 1 << 16), Packed.of(x, codec), Random(1)
    taken, whole = 0, 0
    for k in range(300):
        parts = [part.clone() for part in packed.parts]
        j = random.randrange(len(parts))
        if k and random.random() < 0.5 and parts[j].numel():
            parts[j].view(torch.uint8)[random.randrange(parts[j].nbytes)] ^= 1 << random.randrange(8)
        elif k:
            parts[j] = parts[j][: random.randrange(parts[j].numel() + 1)]
        assert box.put(Model(x), Tag(), {"x": replace(packed, parts=tuple(parts))})
        try:
            Arrivals(2).letters(box.waiting(1))
        except ValueError as error:
            assert k and ("cannot have been compressed" in str(error) or "at places beyond" in str(error))
            box.take_until(box.written)
            continue
        found = box.take()
        assert found is not None
        assert [part.shape for part in found[0].x.parts] == [part.shape for part in x.parts]
        taken, whole = taken + 1, whole + (k == 0)
    assert whole == 1 < taken < 300, "some damage changes numbers alone"
