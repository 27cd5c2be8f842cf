"""The log of an agent: whatever happens to the file, no whole frame is lost, and what is lost is said."""

from pathlib import Path

import pytest

from offbeat.core.errors import DataError
from offbeat.engines.events import RegisterRead
from offbeat.engines.live.node.log import Log, damage, merged, read
from offbeat.experiments.replaying import replayed


class Model:
    """A kind of message."""


class Other:
    """Another one."""


def written(path: Path, frames: int, kinds: tuple[object, ...] = (Model(),)) -> list[int]:
    """A log of so many frames with a write each; where they end."""
    log, ends = Log(path), []
    for k in range(log.rows.written, log.rows.written + frames):
        kind = log.rows.kind(kinds[k % len(kinds)])
        log.rows.event(RegisterRead(float(k), 0, 1, kind, k, 0.0, 0.0))
        log.rows.write(float(k), 0, k + 1, [(1, k)])
        log.flush()
        ends.append(path.stat().st_size)
    log.close()
    return ends


def flip(path: Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


@pytest.mark.parametrize("inside", [0, 5, 9, 20, 28, 40, 90])
def test_a_flipped_bit_costs_one_frame_and_no_other(inside: int, tmp_path: Path) -> None:
    path = tmp_path / "agent-0.trace"
    ends = written(path, 6, kinds=(Model(), Other()))
    flip(path, ends[1] + inside)
    log = read(path)
    assert log.events["version"].tolist() == [0, 1, 3, 4, 5]
    assert log.writes["step"].tolist() == [1, 2, 2, 4, 5, 6], (
        "the lost write has a row, so that versions keep their numbers"
    )
    assert log.mixed["write"].tolist() == [0, 1, 3, 4, 5]
    assert log.lost == ends[2] - ends[1]
    assert log.kinds == ("Model", "Other")


def test_a_kind_that_was_named_in_a_lost_frame_keeps_its_number(tmp_path: Path) -> None:
    path = tmp_path / "agent-0.trace"
    written(path, 5, kinds=(Model(), Other()))
    flip(path, 12)
    log = read(path)
    assert log.kinds == ("lost-0", "Other")
    assert [log.kinds[k] for k in log.events["kind"]] == ["Other", "lost-0", "Other", "lost-0"]


def test_what_a_killed_process_left_at_the_end_is_cut_kept_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agent-0.trace"
    ends = written(path, 3)
    whole = path.read_bytes()
    path.write_bytes(whole[:-7])
    assert damage(merged([path, tmp_path / "agent-1.trace"], {})) == "", (
        "nobody saw what a frame at the end would have said"
    )
    written(path, 1)
    assert path.read_bytes() == whole
    assert path.with_suffix(".cut").read_bytes() == whole[ends[1] : -7]
    assert "are moved to agent-0.cut" in capsys.readouterr().err


def test_a_damaged_frame_at_the_end_is_said(tmp_path: Path) -> None:
    path = tmp_path / "agent-0.trace"
    ends = written(path, 3)
    flip(path, ends[-1] - 1)
    assert "The logs of agents 0 were damaged" in damage(merged([path, tmp_path / "agent-1.trace"], {}))


def test_a_log_with_a_hole_goes_on_and_its_trace_is_not_replayed(tmp_path: Path) -> None:
    path = tmp_path / "agent-0.trace"
    ends = written(path, 3)
    flip(path, ends[0] + 50)
    written(path, 2)
    trace = merged([path, tmp_path / "agent-1.trace"], {"algorithm": "adsgd"})
    assert trace.writes["step"].tolist() == [1, 1, 3, 4, 5]
    trace.save(tmp_path / "trace.npz")
    with pytest.raises(DataError, match=r"logs of agents 0 were damaged.*cannot be replayed"):
        replayed(trace.load(tmp_path / "trace.npz"))


def test_a_log_of_an_earlier_version_is_refused_plainly(tmp_path: Path) -> None:
    path = tmp_path / "agent-0.trace"
    path.write_bytes(b"lbfo" + bytes(60))
    with pytest.raises(DataError, match=r"agent-0\.trace cannot be read \(it is of an earlier version"):
        Log(path)
