"""The compiled linear form: torch's bits, whatever aliases what, and a name that never hides what is used."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from warm import on_linux, ran

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system import kernel, native

LARGE = kernel.STREAM // 4 + 77
"""Float32s enough to be written around the caches, with a tail."""

C = (0.3, -0.1, 0.7, 1e-3, -1.0, 0.0, 1.5, 1 / 3)
DTYPES = (torch.float32, torch.float64)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def caches(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty memory of what was loaded, and a cache that only this module's tests share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    kernel._load.cache_clear()
    yield home
    kernel._load.cache_clear()


@pytest.fixture
def compiled(caches: Path) -> Path:
    if kernel.name() == "torch (no C compiler found)":
        pytest.skip(kernel.name())
    assert kernel.name().startswith("compiled (")
    return caches


def bits(t: Tensor) -> Tensor:
    return t.view(torch.int32 if t.dtype == torch.float32 else torch.int64)


def equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(bits(a), bits(b))


def checksum(t: Tensor) -> int:
    return zlib.crc32(t.numpy().tobytes())


def reference(terms: Sequence[tuple[float, Tensor]]) -> Tensor:
    total = torch.mul(terms[0][1], terms[0][0])
    for c, v in terms[1:]:
        total = torch.add(total, v, alpha=c)
    return total


def drawn(count: int, length: int, dtype: torch.dtype, seed: int = 0, offset: int = 0) -> list[Tensor]:
    """Vectors that each begin `offset` elements into memory of their own, with zeros and subnormal numbers in
    them.
    """
    source = torch.Generator().manual_seed(seed)
    draw = [torch.randn(length + offset, generator=source, dtype=dtype)[offset:] for _ in range(count)]
    for v in draw:
        v[3::7] = -0.0
        v[5::11] *= torch.finfo(dtype).tiny
    return draw


def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the way through torch fail, so that a test cannot pass without the compiled function."""

    def fail(*_: object) -> None:
        raise AssertionError("torch was used")

    monkeypatch.setattr(kernel, "_with_torch", fail)


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[float], int, int, torch.dtype, int, bool]:
    number = st.floats(-1e6, 1e6) | st.sampled_from((0.0, -0.0, 1.0, 1e-300, 1e-40, 0.1))
    coefficients = draw(st.lists(number, min_size=1, max_size=8))
    length, offset, seed = draw(st.integers(1, 3000)), draw(st.integers(0, 17)), draw(st.integers(0, 99))
    return coefficients, length, offset, draw(st.sampled_from(DTYPES)), seed, draw(st.booleans())


def test_bits_are_those_of_torch(compiled: Path) -> None:
    @settings(max_examples=150, deadline=None)
    @given(cases(), st.integers(-1, 7))
    def check(case: tuple[list[float], int, int, torch.dtype, int, bool], out_at: int) -> None:
        coefficients, length, offset, dtype, seed, stream = case
        v = drawn(len(coefficients), length, dtype, seed, offset)
        terms = list(zip(coefficients, v, strict=True))
        wanted = reference(terms)
        (other,) = drawn(1, length, dtype, seed + 1, 0 if stream else 17 - offset)
        out = v[out_at] if 0 <= out_at < len(v) else other
        untouched = [w.clone() for w in v]
        with pytest.MonkeyPatch.context() as patch:
            direct(patch)
            patch.setattr(kernel, "THRESHOLD", 0)
            patch.setattr(kernel, "STREAM", 0 if stream else 1 << 40)
            kernel.linear(out, terms)
        assert equal(out, wanted)
        assert all(equal(a, b) for a, b in zip(v, untouched, strict=True) if a is not out)

    check()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("offset", [0, 1, 16])
def test_large_vectors_and_their_neighbours(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, offset: int
) -> None:
    """Written around the caches or not, with nothing written next to what is asked for."""
    v = drawn(4, LARGE, dtype)
    terms = list(zip(C, v, strict=False))
    wanted = reference(terms)
    room = torch.full((LARGE + 64,), 7.0, dtype=dtype)
    out = room[offset : offset + LARGE]
    direct(monkeypatch)
    kernel.linear(out, terms)
    assert equal(out, wanted)
    assert bool((room[:offset] == 7).all() and (room[offset + LARGE :] == 7).all())
    kernel.linear(v[2], terms)
    assert equal(v[2], wanted)


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("at", range(4))
def test_aliases(caches: Path, at: int, large: bool) -> None:
    """Both ways give the same when `out` is one of the terms, once or twice."""
    length = LARGE if large else 1000
    v = drawn(4, length, torch.float32)
    terms = [*zip(C, v, strict=False), (0.25, v[at])]
    wanted = reference(terms)
    kernel.linear(v[at], terms)
    assert equal(v[at], wanted)


def test_what_is_not_for_the_function_goes_to_torch(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("the compiled function was used")

    monkeypatch.setattr(kernel, "_call", fail)
    n = kernel.THRESHOLD // 4
    single, double = drawn(2, n, torch.float32), drawn(2, n, torch.float64)
    short = [v[:-1] for v in single]
    half = [v.to(torch.bfloat16).repeat(2) for v in single]
    strided = [v.repeat_interleave(2)[::2] for v in single]
    for a, b in (short, half, strided, (double[0][::2], double[1][::2])):
        out = torch.empty_like(a)
        kernel.linear(out, [(0.3, a), (-2.0, b)])
        assert torch.equal(out, reference([(0.3, a), (-2.0, b)]))
    out = torch.empty(n)
    with pytest.raises(RuntimeError, match="overflow"):
        kernel.linear(out, [(1.0, single[0]), (1e300, single[1])])
    with pytest.raises(RuntimeError, match="grad"):
        kernel.linear(out, [(1.0, single[0].clone().requires_grad_())])
    with pytest.raises(RuntimeError, match="size"):
        kernel.linear(out, [(1.0, single[0]), (1.0, short[1])])
    with pytest.raises(AssertionError, match="was used"):
        kernel.linear(out, [(1.0, single[0])])


def test_no_terms_make_no_sense() -> None:
    with pytest.raises(SettingError, match="at least one"):
        kernel.linear(torch.empty(3), [])


def test_a_backward_pass_notices(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    direct(monkeypatch)
    v = torch.ones(LARGE, requires_grad=True)
    loss = (v * v).sum()
    with torch.no_grad():
        kernel.linear(v, [(0.5, v)])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        w = torch.ones(LARGE)
        kernel.linear(w, [(0.5, w)])
    assert w[-1] == 0.5


UNFUSED = """
import sys, zlib, torch
from offbeat.core.system import kernel

torch.set_num_threads(1)
terms = list(zip(map(float, sys.argv[2:]), torch.load(sys.argv[1])))
assert kernel.name().startswith("compiled"), kernel.name()
wanted, out = torch.mul(terms[0][1], terms[0][0]), torch.empty_like(terms[0][1])
for c, v in terms[1:]:
    wanted = torch.add(wanted, v, alpha=c)
kernel.linear(out, terms)
assert torch.equal(out.view(torch.int32), wanted.view(torch.int32))
print(zlib.crc32(out.numpy().tobytes()))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads as Linux lists them")
def test_one_thread_does_it(tmp_path: Path, compiled: Path) -> None:
    """No thread is added; and where torch has no fused instructions, in a process of its own, the function
    does not use them either.
    """
    threads, seen = Path("/proc/self/task"), tmp_path / "seen.pt"
    terms = list(zip(C, drawn(3, LARGE, torch.float32), strict=False))
    torch.save([vector for _, vector in terms], seen)
    out, before = torch.empty(LARGE), len([*threads.iterdir()])
    kernel.linear(out, terms)
    assert len([*threads.iterdir()]) == before
    assert equal(out, reference(terms))
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    command = [sys.executable, "-c", UNFUSED, str(seen), *map(str, C[:3])]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if kernel._fused() and torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert int(done.stdout) != checksum(out)


def works(terms: int = 3) -> bool:
    v = drawn(terms, LARGE, torch.float32)
    form = list(zip(C, v, strict=False))
    out = torch.empty(LARGE)
    kernel.linear(out, form)
    return equal(out, reference(form))


def test_without_a_compiler(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert kernel.name() == "torch (no C compiler found)"
    assert works()
    kernel._load.cache_clear()
    monkeypatch.setenv("CC", "nosuchcc -m64")
    assert kernel.name() == "torch ($CC names nosuchcc, which is not found)"
    assert works()


def test_a_compiler_that_fails(tmp_path: Path, caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo cc 9.9 && exit\necho "x.c: error: no luck" >&2\nexit 4\n'
    )
    compiler.chmod(0o700)
    monkeypatch.setenv("CC", str(compiler))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernel.name() == f"torch ({compiler} failed with exit code 4: x.c: error: no luck)"
    assert works()
    assert list((tmp_path / "cache" / "offbeat").iterdir()) == []


def test_other_bits_are_refused(tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel._load.cache_clear()
    fused = kernel._fused()
    monkeypatch.setattr(kernel, "_fused", lambda: not fused)
    assert kernel.name() == "torch (the compiled function rounds differently from torch)"
    assert works()


def test_the_cache_is_used_again_and_is_private(
    tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "offbeat"
    folder.mkdir(mode=0o755)
    with ThreadPoolExecutor(3) as pool:  # several at once, each with a file of its own until it is whole
        names = [job.result()[1] for job in [pool.submit(kernel._load.__wrapped__) for _ in range(3)]]
    assert set(names) == {names[0]} and names[0].startswith("compiled (")
    (library,) = folder.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = library.stat()
    kernel._load.cache_clear()
    assert kernel.name() == names[0]
    assert (library.stat().st_ino, library.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    monkeypatch.setattr(kernel, "FLAGS", (*kernel.FLAGS, "-g"))
    kernel._load.cache_clear()
    assert kernel.name() == names[0]
    assert len(list(folder.iterdir())) == 2


def test_files_of_somebody_else_are_refused(
    tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernel._load.cache_clear()
    kernel.name()
    (library,) = (tmp_path / "offbeat").iterdir()
    library.rename(tmp_path / "elsewhere.so")
    library.symlink_to(tmp_path / "elsewhere.so")
    kernel._load.cache_clear()
    assert kernel.name() == f"torch ({library} is not a file of this user)"
    uid = os.geteuid()
    if uid == 0:  # somebody else's link to a folder of this user
        (tmp_path / "theirs").mkdir()
        (tmp_path / "theirs" / "offbeat").symlink_to(tmp_path / "offbeat")
        os.lchown(tmp_path / "theirs" / "offbeat", 12345, 12345)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "theirs"))
        with pytest.raises(native.KernelError, match="does not belong to this user"):
            native._folder()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)
    kernel._load.cache_clear()
    assert kernel.name() == f"torch ({tmp_path / 'offbeat'} does not belong to this user)"
    monkeypatch.setattr(native, "_folder", lambda: tmp_path / "offbeat")
    library.unlink()
    (tmp_path / "elsewhere.so").rename(library)
    kernel._load.cache_clear()
    assert kernel.name() == f"torch ({library} is not a file of this user)"
    assert works()


DAMAGED = """
import os
from pathlib import Path
from offbeat.core.system import kernel

os.environ["XDG_CACHE_HOME"] = {home!r}
kernel._load.cache_clear()
folder = Path({home!r}) / "offbeat"
said = kernel.name()
(library,) = folder.iterdir()
whole = library.read_bytes()
flipped = whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:]
for content in (whole[:9000], b"", flipped):
    library.unlink()  # what is mapped stays as it is
    library.write_bytes(content)
    kernel._load.cache_clear()
    assert kernel.name() == said, kernel.name()
    (library,) = folder.iterdir()
    assert library.read_bytes() == whole
print(said)
"""


@on_linux
def test_a_damaged_library_is_built_anew_and_never_run(tmp_path: Path, compiled: Path) -> None:
    """In a process of its own: a library that is cut ends it with SIGBUS."""
    done = ran(tmp_path, DAMAGED.format(home=str(tmp_path)))
    assert done.code == 0, (done.code, done.complained)
    assert done.said.startswith("compiled (")


def test_without_a_cache_the_function_is_compiled_all_the_same(
    tmp_path: Path, compiled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the same command would give other bytes where the home directory cannot be written."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    said = kernel.name()
    kernel._load.cache_clear()
    assert kernel.name() == said


@pytest.mark.parametrize(
    ("banner", "title"),
    [
        ("cc (Debian 12.2.0-14+deb12u1) 12.2.0\n(C) Free Software Foundation, Inc.", "gcc 12.2.0"),
        ("gcc (GCC) 11.4.1 20230605 (Red Hat 11.4.1-2)\nFree Software Foundation", "gcc 11.4.1"),
        ("Apple clang version 15.0.0 (clang-1500.1.0.2.5)", "clang 15.0.0"),
        ("a compiler", "mycc"),
    ],
)
def test_titles(banner: str, title: str) -> None:
    assert native.title(["/opt/mycc"], banner) == title


def test_the_error_is_one_of_offbeat() -> None:
    assert issubclass(native.KernelError, OffbeatError)
