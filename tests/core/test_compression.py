"""What arrives of a vector that was compressed: how far off it is, how many bytes it takes, what is kept."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from offbeat import SettingError, Vector
from offbeat.core.codecs import BF16, Codec, Int8, TopK, codec_of
from offbeat.core.compression import DIGITS, Packed, pack, rest

TYPES = torch.float32, torch.float64
parts = st.builds(
    lambda values, dtype: torch.tensor(values, dtype=dtype),
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), max_size=40),
    st.sampled_from(TYPES),
)
codecs: st.SearchStrategy[Codec] = st.one_of(
    st.sampled_from([BF16(), Int8()]), st.builds(TopK, st.floats(0, 1, exclude_min=True))
)


def sent(part: torch.Tensor, codec: Codec) -> torch.Tensor:
    (arrived,) = Packed.of(Vector((part,)), codec).unpacked()
    assert arrived.dtype == part.dtype and arrived.shape == part.shape
    return arrived


@given(parts, codecs)
def test_what_arrives_and_what_is_kept_are_what_was_given_to_the_bit(
    part: torch.Tensor, codec: Codec
) -> None:
    arrived = sent(part, codec)
    (left,) = rest([part], [arrived])
    assert torch.equal(arrived + left, part)


@given(parts, codecs)
def test_what_has_arrived_is_compressed_without_loss(part: torch.Tensor, codec: Codec) -> None:
    """Unless the scale is among the few numbers next to 0, which are too far apart for it."""
    arrived = sent(part, codec)
    smallest = torch.finfo(part.dtype).smallest_normal
    if not isinstance(codec, Int8) or not arrived.any() or part.abs().max() / 127 > smallest:
        assert torch.equal(sent(arrived, codec), arrived)


@given(parts)
def test_int8_is_off_by_half_a_scale_at_most(part: torch.Tensor) -> None:
    _, scale = pack(Int8(), part)
    arrived = sent(part, Int8())
    if len(part):
        largest, tiny = float(part.abs().max()), torch.finfo(part.dtype)
        step = tiny.smallest_normal * tiny.eps
        assert largest / 127 <= float(scale) <= largest / 127 * (1 + 2 * 2.0**-DIGITS) + step
        assert float((arrived - part).abs().max()) <= float(scale) / 2 * (1 + 1e-6) + step / 2


@given(parts)
def test_bf16_is_off_by_one_in_256_at_most(part: torch.Tensor) -> None:
    error = (sent(part, BF16()) - part).abs()
    assert bool((error <= part.abs() / 256 + torch.finfo(torch.bfloat16).smallest_normal).all())


@given(parts, st.floats(0, 1, exclude_min=True))
def test_the_largest_arrive_as_they_are_and_no_others(part: torch.Tensor, share: float) -> None:
    arrived, count = sent(part, TopK(share)), max(1, math.ceil(share * len(part) - 1e-9))
    there = arrived != 0
    assert torch.equal(arrived[there], part[there])
    if len(pack(TopK(share), part)[0]):
        largest = part.abs().sort(descending=True).values
        assert torch.equal(arrived.abs().sort(descending=True).values[:count], largest[:count])
        assert int(there.sum()) <= count


def test_of_numbers_of_one_size_the_first_are_taken() -> None:
    part = torch.tensor([1.0, -2.0, 2.0, -2.0, 0.5, 2.0], dtype=torch.float64)
    assert sent(part, TopK(1 / 3)).tolist() == [0, -2, 2, 0, 0, 0]


@pytest.mark.parametrize("dtype", TYPES)
def test_bytes_are_counted_as_sent(dtype: torch.dtype) -> None:
    v = Vector((torch.randn(1000, dtype=dtype), torch.randn(10, dtype=dtype)))
    size = dtype.itemsize
    assert Packed.of(v, BF16()).nbytes == 2 * 1010
    assert Packed.of(v, Int8()).nbytes == 1010 + 2 * size
    assert Packed.of(v, TopK(0.01)).nbytes == (10 + 1) * (4 + size)
    assert Packed.of(v, TopK(0.9)).nbytes == v.nbytes, "no places, where that is shorter"


@pytest.mark.parametrize("codec", [BF16(), Int8(), TopK(0.25)])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_what_is_not_finite_is_seen_where_it_arrives(codec: Codec, wrong: float) -> None:
    part = torch.tensor([1.0, 2.0, wrong, 3.0] * 2)
    assert not sent(part, codec).isfinite().all()
    assert sent(part[:2], codec).isfinite().all()


def test_names_are_read_and_written_alike() -> None:
    for said in ("bf16", "int8", "top-k:0.01", "top-k:1"):
        assert str(codec_of(said)) == said
    assert codec_of("none") is None
    for wrong in ("top-k", "top-k:0", "top-k:1.5", "top-k:nan", "int4", "", "bf16:2"):
        with pytest.raises(SettingError, match=r"expected none, bf16, int8, or top-k|as in 'top-k:"):
            codec_of(wrong)
