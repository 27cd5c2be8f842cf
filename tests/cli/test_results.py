"""The command line of results on disk, with files of this version and of an older one."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import offbeat
from offbeat.cli.commands import app
from offbeat.core.errors import OffbeatError
from offbeat.engines.trace import Trace
from offbeat.results.export import as_of_latex

FILES = Path(__file__).parents[1] / "results" / "files"


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [*map(str, words)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table_of_each_value_with_its_numbers_and_for_latex(tmp_path: Path) -> None:
    numbers, latex = tmp_path / "t.csv", tmp_path / "t.tex"
    said = run("table", FILES / "sweep.parquet", "--by", "case", "--csv", numbers, "--latex", latex)
    assert said.count("time to gap 0.1") == 2 and "case base" in said and "case combined" in said
    rows = [*csv.DictReader(numbers.read_text().splitlines())]
    result = offbeat.load(FILES / "sweep.parquet")
    for row, runs in zip(rows, result.groups().values(), strict=True):
        losses = [run.final["loss"] for run in runs]
        assert float(row["loss"]) == np.median(np.array(losses, dtype=float))
        assert [float(row["loss_low"]), float(row["loss_high"])] == sorted(map(float, losses))  # type: ignore[arg-type]
        assert (row["case"], row["topology"]) == tuple(
            runs[0].settings[name] for name in ("case", "topology")
        )
        assert row["seeds"] == "2"
    text = latex.read_text()
    assert text.count("\\begin{tabular}{llrr") == 2 and text.count(" \\\\\n") == 2 * 5


def test_mean_and_deviation_or_interval(tmp_path: Path) -> None:
    said = {spread: run("table", FILES / "tuned.json", "--spread", spread) for spread in ("std", "ci")}
    runs = offbeat.load(FILES / "tuned.json").runs[:2]
    times = np.array([run.time_to_target for run in runs], dtype=float)
    assert f"{times.mean():.2f} ± {times.std(ddof=1):.2g}" in said["std"]
    assert f"{times.mean():.1f} ± {12.706205 * times.std(ddof=1) / 2**0.5:.2g}" in said["ci"]
    assert "± the standard deviation of the sample" in said["std"] and "Student" in said["ci"]


def test_columns_are_chosen_for_the_terminal_csv_and_latex(tmp_path: Path) -> None:
    numbers, latex = tmp_path / "t.csv", tmp_path / "t.tex"
    words = ["--columns", "loss,time_to_target", "--csv", numbers, "--latex", latex, "--label", "tab:mine"]
    said = run("table", FILES / "sweep.parquet", "--spread", "std", "--caption", "Mine.", *words)
    assert "algorithm topology case loss time to gap 0.1" in " ".join(said.split())
    assert "updates: gradients applied" not in said
    heads = numbers.read_text().splitlines()[0].split(",")
    assert heads[:6] == ["algorithm", "lr", "topology", "case", "seeds", "loss"] and "updates" not in heads
    text = latex.read_text()
    assert "\\caption{Mine.}" in text and "\\label{tab:mine}" in text and "{tabular}{lllrr}" in text
    below = text[text.index("\\end{tabular}") :]
    assert "Means over the seeds $\\pm$ the standard deviation" in below and "%" not in below.replace(
        "\\%", ""
    )


def test_every_seed_is_seen_by_itself(tmp_path: Path) -> None:
    said = run("table", FILES / "tuned.json", "--by", "seed", "--csv", tmp_path / "t.csv")
    runs = offbeat.load(FILES / "tuned.json").runs
    seeds = {each.seed for each in runs}
    assert len(seeds) > 1 and all(f"seed {seed}" in said for seed in seeds)
    rows = [*csv.DictReader((tmp_path / "t.csv").read_text().splitlines())]
    assert len(rows) == len(runs) and {row["seed"] for row in rows} == {*map(str, seeds)}


def test_powers_of_ten_are_written_as_in_a_paper() -> None:
    assert as_of_latex("3.87e-07") == "$3.87\\times10^{-7}$" and as_of_latex("1.20x") == "1.20$\\times$"


def test_merge_keeps_a_run_once(tmp_path: Path) -> None:
    out = tmp_path / "all.json"
    run("merge", FILES / "tuned.json", FILES / "sweep.parquet", FILES / "tuned.json", "--out", out)
    assert len(json.loads(out.read_text())["runs"]) == 4 + 16
    assert len(offbeat.load(out, FILES / "sweep.parquet.runs").runs) == 20


def test_plot_draws_what_is_on_disk(tmp_path: Path) -> None:
    run("plot", FILES / "sweep.parquet", "--by", "case", "--out", tmp_path / "f.html")
    assert "plotly" in (tmp_path / "f.html").read_text()


def test_show_opens_results_live_folders_and_traces() -> None:
    said = run("show", FILES / "tuned.json")
    assert "time to 30 %" in said and "▁" in said
    said = run("show", FILES / "live")
    assert "adsgd-lr0.1: ended; steps of agents: 0: 17, 1: 17, 2: 16" in said and "unit 20 ms" in said
    said = run("show", FILES / "live" / "adsgd-lr0.1" / "trace.npz")
    assert "a trace of 3 agents" in said and "50 writes" in said
    assert (
        "Run: adsgd, task quadratic on the graph ring, lr 0.1, seed 0, until 20.0; a unit of time is 0.02 s."
        in said
    )
    assert "{" not in said and "None" not in said and "Last losses" not in said
    folder = run("show", FILES / "live" / "adsgd-lr0.1")
    assert folder.split()[1:] == said.split()[1:], "all but what it is called"


def test_show_says_in_sentences_what_a_script_was_launched_with_and_its_last_losses(tmp_path: Path) -> None:
    trace = Trace.load(FILES / "live" / "adsgd-lr0.1" / "trace.npz")
    asked = {"script": ["my train.py", "--lr", "1"], "topology": "/home/me/a.csv", "algorithm": "adsgd"}
    how = {
        "format": "run 1",
        "agents": 3,
        "seed": 0,
        "unit": 1.0,
        "checkpoint_every": "60s",
        "on_nan": "stop",
    }
    replace(trace, settings=asked | how).save(tmp_path / "trace.npz")
    rows = [{"agent": 0, "loss": 0.5}, {"agent": 1, "loss": 0.25}, {"agent": 1, "loss": None}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = run("show", tmp_path / "trace.npz")
    for line in (
        "Run: adsgd on the graph a.csv, seed 0; a unit of time is 1 s.", "The script: 'my train.py' --lr 1",
        "Not as usual: on_nan stop.", "Checkpoints: every 60s.",
        "Last losses that agents logged: 0: 0.5, 1: 0.25, 2: -.",
        "Steps of agents: 0: 17, 1: 17, 2: 16.",
    ):  # fmt: skip
        assert line in said, said
    (tmp_path / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(OffbeatError, match=r"metrics\.jsonl cannot be read"):
        run("show", tmp_path / "trace.npz")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["table", "nothing.json"], "There is no file"),
        (["table", FILES / "tuned.json", "--by", "case"], "do not differ by 'case'"),
        (["table", FILES / "tuned.json", "--columns", "los"], "Unknown column 'los'. Did you mean 'loss'"),
        (["table", FILES / "tuned.json", "--spread", "x"], "Unknown spread 'x'"),
        (["plot", FILES / "tuned.json", "--out", "f.gif"], "saved as .pdf"),
        (["plot", FILES / "tuned.json", "--out", "f.html", "--metric", "los"], "Did you mean 'loss'"),
        (["table", FILES / "tuned.json", "--speedup"], "needs runs with several numbers of agents"),
        (["table", FILES / "tuned.json", "--speedup", "--by", "case"], "expected no --by beside it"),
        (["merge", FILES / "tuned.json", "--out", "nowhere/f.json"], "Cannot write"),
        (["show", FILES / "grid.toml"], "neither JSON nor Parquet"),
    ],
)
def test_what_makes_no_sense_is_one_paragraph(
    words: list[object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OffbeatError, match=said) as error:
        run(*words)
    assert error.value.exit_code == 2 and "\n" not in str(error.value)
    assert [*tmp_path.iterdir()] == []
