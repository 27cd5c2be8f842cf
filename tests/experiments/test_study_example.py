"""examples/study: its command and its script at a small size, on a stand-in of Fashion-MNIST's files."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from command_line import Call, digests
from data_files import small_set, write

import offbeat

STUDY = Path(__file__).parents[2] / "examples" / "study"
SHORT = {
    "until=300": "until=4",
    "eval_every=10": "eval_every=2",
    "seeds=3": "seeds=2",
    "workers=2": "workers=1",
}


def test_command_and_script_make_the_same_runs(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "data" / "fashion_mnist", small_set(train=320, test=20))
    text = (STUDY / "README.md").read_text("utf-8").replace("\\\n", " ")
    (command,) = re.findall(r"^ {4}offbeat (compare .*)$", text, re.MULTILINE)
    short = "--data data --until 4 --eval-every 2 --seeds 2 --workers 1"
    ended = call(*shlex.split(f"{command} {short}"))
    assert ended.code == 0, ended.err
    assert "±" in ended.out or "Means over the seeds" in ended.out
    assert Path("study.pdf").read_bytes().startswith(b"%PDF")
    assert Path("study.svg").stat().st_size < 300_000
    by_command = digests("study.json")
    assert len(by_command) == 16
    drawn = Path("study.pdf").read_bytes()
    Path("study.pdf").unlink()
    script = (STUDY / "study.py").read_text("utf-8")
    for long, small in SHORT.items():
        assert long in script
        script = script.replace(long, small)
    kept: list[offbeat.Comparison] = []
    compare = offbeat.compare

    def shorter(*names: str, **settings: Any) -> offbeat.Comparison:
        kept.append(compare(*names, data="data", **settings))
        return kept[0]

    monkeypatch.setattr(offbeat, "compare", shorter)
    exec(script, {"__name__": "__main__"})
    assert [run.digest for run in kept[0].runs] == by_command
    assert Path("study.pdf").read_bytes() == drawn
    assert "adsgd" in capsys.readouterr().out


def test_what_cannot_be_drawn_is_refused_before_anything_runs(call: Call) -> None:
    quick = ("compare", "--task", "quadratic", "--until", "5")
    assert "endings" in call(*quick, "--figure", "a.gif").refused().said
    assert "Unknown spread" in call(*quick, "--spread", "sdt").refused().said
    assert "same file" in call(*quick, "--figure", "a.pdf", "--figure", "a.pdf").refused().said
