"""Papers' evaluations made again: the grid, what it will cost, the verdicts, the pages."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import offbeat
from offbeat.cli.commands import app
from offbeat.core.errors import SettingError
from offbeat.experiments.loading import load
from offbeat.experiments.reproduction import adpsgd, adsgd, running
from offbeat.experiments.reproduction import adsgd_claims as claims
from offbeat.experiments.reproduction.adsgd_measured import INTERNET, MEANS, NODES
from offbeat.experiments.reproduction.adsgd_vgg import VGG
from offbeat.experiments.reproduction.evidence import Evidence, by_rate, verdict
from offbeat.experiments.reproduction.part import Paper, Part
from offbeat.experiments.reproduction.running import PAPERS, Making
from offbeat.experiments.setup import Setup, prepare
from offbeat.experiments.sweep.grid import Point
from offbeat.experiments.sweep.running import sweep
from offbeat.results.reproduction import CONFIRMED, NOT, UNDECIDED, UNTESTABLE, VERDICTS, Finding
from offbeat.results.run import Run
from offbeat.world.world import CASES

EVERY = [(paper, part) for paper in PAPERS.values() for part in paper.parts.values()]


@pytest.fixture(scope="module")
def one() -> Run:
    return offbeat.simulate("adsgd", task="digits", until=1, eval_every=1, target=0.9, skew=1.0)


def made(one: Run, algorithm: str, times: list[float | None], lr: float = 0.01, **settings: Any) -> list[Run]:
    """Runs that met their target at these times, one a seed."""
    said = one.settings | {"until": 100.0, "case": "base", "algorithm": algorithm, "lr": lr} | settings
    return [
        replace(one, algorithm=algorithm, lr=lr, seed=seed, settings=said | {"seed": seed}, time_to_target=t)
        for seed, t in enumerate(times)
    ]


def test_savings_are_paired_by_seed_and_never_is_at_least(one: Run) -> None:
    ours = Evidence(made(one, "adsgd", [10, 20, None]))
    saving = ours.saved_over(Evidence(made(one, "dsgd", [20, None, 50])))
    assert saving.values == [0.5, 0.8, -math.inf]
    assert saving.least
    assert str(saving) == "at least 50 % [-inf to 80]"
    assert str(replace(saving, values=[-0.004, 0.004], least=False)) == "0 % [0 to 0]"
    assert str(ours) == "20 [10 - never]"
    assert str(Evidence(made(one, "rfast", [None, None]))) == "never by 100"
    both = Evidence(made(one, "adsgd", [None])).saved_over(Evidence(made(one, "dsgd", [None])))
    assert str(both) == "neither met the target"
    assert both.within(0.5) is None
    assert saving.within(0.5) is True
    assert saving.within(0.28, 0.75) is None, "it may be more"
    assert saving.within(0.6) is None, "it may be so much"
    assert verdict([]) == UNTESTABLE
    assert verdict([True, None]) == UNDECIDED
    assert verdict([False, None]) == NOT


def test_each_learning_rate_is_a_reading(one: Run) -> None:
    """And each form of an algorithm, which has its name in the runs that are asked."""
    runs = [*made(one, "adsgd", [10]), *made(one, "rfast", [15], lr=0.09), *made(one, "rfast", [90], lr=0.04)]
    runs += made(one, "rfast:matched", [30])

    def asked(some: Evidence, reading: str) -> Finding:
        return Finding(CONFIRMED, str(some.where(algorithm="rfast")), str(len(some.runs)) + reading)

    found = by_rate(Evidence(runs), "rfast", asked)
    assert [(each.reading, each.measured) for each in found] == [
        ("2rfast at 0.09", "15"), ("2rfast at 0.04", "90"), ("2rfast:matched at 0.01", "30"),
    ]  # fmt: skip


def paper(one: Run, rfast: float, dsgd: float, adpsgd: float | None) -> Evidence:
    """Runs as the claims would have them where `adsgd` takes 10 in every case."""
    times: dict[str, list[float | None]] = {
        "adsgd": [10.0],
        "rfast": [rfast],
        "dsgd": [dsgd],
        "adpsgd": [adpsgd],
        "allreduce": [40.0],
    }
    return Evidence([
        run for case in CASES for name, each in times.items()
        for run in made(one, name, each, 0.09 if name == "rfast" else 0.01, case=case)
    ])  # fmt: skip


def test_verdicts_follow_the_numbers(one: Run) -> None:
    good, bad = paper(one, 90.0, 20.0, None), paper(one, 15.0, 90.0, 11.0)
    for claim, there in (
        (claims.sooner_than_asynchronous, NOT), (claims.sending_straggler, NOT),
        (claims.sooner_than_synchronous, NOT),
        (claims.biased, NOT), (claims.only_adsgd_beats_the_baselines, NOT),
    ):  # fmt: skip
        assert [each.verdict for each in claim(good)] == [CONFIRMED], claim
        assert [each.verdict for each in claim(bad)] == [there], claim
        (nothing,) = claim(Evidence(made(one, "rfast", []))) or [Finding(UNTESTABLE, "")]
        assert nothing.verdict == UNTESTABLE
    assert [each.verdict for each in claims.slow_sending(paper(one, 90.0, 1.0, 1.0))] == [NOT]


def test_who_was_not_run_is_not_said_to_have_missed_the_target(one: Run) -> None:
    """In some case, of a sweep that was stopped; in none at all nothing is testable."""
    runs = [*made(one, "adsgd", [10]), *made(one, "adsgd", [10], case="combined"), *made(one, "dsgd", [20])]
    (found,) = claims.sooner_than_synchronous(Evidence(runs))
    assert found == Finding(CONFIRMED, "base, over dsgd: 50 %")
    (nothing,) = claims.sooner_than_synchronous(Evidence(made(one, "adsgd", [10])))
    assert nothing == Finding(UNTESTABLE, "")


def test_why_there_is_no_saving_is_said_of_the_runs_that_there_are(one: Run) -> None:
    """Of a sweep that was stopped: one has no runs, or other seeds; what never met its target was run."""

    def said(ours: list[Run], theirs: list[Run]) -> str:
        return str(Evidence(ours).saved_over(Evidence(theirs)))

    met, never = made(one, "adsgd", [10]), made(one, "dsgd", [None, None])
    assert said([], []) == "not run"
    assert said(met, []) == said([], never) == "only one of the two was run"
    assert said(met, never[1:]) == "no seed was run of both"
    assert said(made(one, "adsgd", [None, None]), never) == "neither met the target"
    unpaired = "neither met the target with a seed that was run of both"
    assert said(made(one, "adsgd", [None, None, 10]), never) == unpaired
    runs = [run for skew in (0, 1) for run in made(one, "adsgd", [10], partition=f"skew:{skew}")]
    runs += made(one, "dsgd", [20], partition="skew:1")
    (finding,) = claims.larger_where_more_alike(Evidence(runs))
    assert finding.measured == "at skew:0, skew:1: base: only one of the two was run, 50 %"
    assert finding.verdict == UNDECIDED


def test_what_is_gained_alike_everywhere_is_not_gained_by_uniform_data(one: Run) -> None:
    def found(*times: float) -> str:
        runs = [
            run for skew, time in zip((0, 0.5, 1), times, strict=True)
            for name, its in (("adsgd", 10.0), ("dsgd", time))
            for run in made(one, name, [its], partition=f"skew:{skew:g}")
        ]  # fmt: skip
        (finding,) = claims.larger_where_more_alike(Evidence(runs))
        return finding.verdict

    assert [found(40, 30, 20), found(20, 20, 20), found(40, 20, 30)] == [CONFIRMED, NOT, NOT]


def test_verdicts_of_networks_follow_the_numbers(one: Run) -> None:
    """Times are as the paper has them; then R-FAST diverges, as it has it too, and all others are slow."""
    times: dict[str, list[float | None]] = {
        "adsgd": [10.0], "adpsgd": [12.0], "rfast": [11.5], "dsgd": [20.0], "allreduce": [20.0],
    }  # fmt: skip

    def ran(**more: list[float | None]) -> list[Run]:
        said = times | more
        return [
            run for case in CASES for name, each in said.items()
            for run in made(one, name, each if case != "base" or name != "allreduce" else [9.0], case=case)
        ]  # fmt: skip

    def verdicts(runs: list[Run]) -> dict[str, str]:
        return {each.name: each.found(Evidence(runs))[0].verdict for each in VGG.claims}

    assert verdicts(ran()) == {
        "A11": NOT, "A12": CONFIRMED, "A13": CONFIRMED, "A14": NOT, "A15": NOT, "A16": CONFIRMED,
        "A18": UNTESTABLE,
    }  # fmt: skip
    lost = [replace(run, diverged_at=3.0) if run.algorithm == "rfast" else run for run in ran(rfast=[None])]
    assert (verdicts(lost)["A15"], verdicts(lost)["A16"]) == (CONFIRMED, NOT)
    never = ran(adsgd=[None], adpsgd=[None], rfast=[None])
    assert (verdicts(never)["A12"], verdicts(never)["A16"]) == (NOT, UNDECIDED)


def test_what_is_counted_confirms_the_traffic_and_the_four_models() -> None:
    assert [each.verdict for each in claims.less_traffic(Evidence([]))] == [CONFIRMED]
    (four,) = claims.four_models(Evidence([]))
    assert four.verdict == CONFIRMED
    assert four.measured == "models kept: d = 2: 4, d = 4: 4, d = 8: 4"


@pytest.mark.parametrize(("paper", "part"), EVERY, ids=lambda each: each.name)
def test_every_quick_grid_can_run_and_is_a_small_one(paper: Paper, part: Part, tmp_path: Path) -> None:
    every = Making(paper, part, tmp_path, quick=True).points()
    assert len(every) <= 32
    assert len({point.key for point in every}) == len(every)
    for claim in part.claims:  # of a sweep that was stopped before its first run
        assert {each.verdict for each in claim.found(Evidence([]))} <= {*VERDICTS}


def test_the_whole_grid_is_the_papers(monkeypatch: pytest.MonkeyPatch) -> None:
    (grid,) = adsgd.LR.grids(False, data="folder", device=None)
    assert grid["fixed"]["data"] == "folder"
    assert "device" not in grid["fixed"]
    count = math.prod(map(len, grid["grid"].values()))
    assert count == 5 * 3 * 6 * 5
    assert set(grid["grid"]["case"]) == {*CASES}
    named = [each.name for each in adsgd.LR.claims]
    assert sorted(named, key=lambda name: int(name[1:])) == [
        *(f"A{k}" for k in range(1, 11)),
        "A17",
        "A18",
        "A19",
    ]


def test_a_part_is_swept_resumed_and_written(tmp_path: Path) -> None:
    small = replace(adsgd.LR, quick={
        "fixed": {"task": "digits", "until": 20, "eval_every": 10, "target": 0.3, "skew": 1.0, "seed": 0},
        "grid": {"case": ["base", "comm-straggler"], "algorithm": ["adsgd", "rfast", "rfast:matched"]},
    })  # fmt: skip
    making = Making(PAPERS["adsgd"], small, tmp_path, quick=True)
    every = making.points()
    assert len(every) == 2 * (1 + 2), "two steps of rfast"
    cost = making.cost(every)
    assert (cost.runs, cost.total) == (6, 6)
    assert cost.seconds > 0
    assert "6 of 6 runs to do: at most about" in cost.text(2)
    assert sweep(every, making.table, workers=1) == []
    assert making.cost(every).text(2) == "All 6 runs are done."
    runs = load(making.table).runs
    written = making.write(runs, len(every))
    names = {path.name for path in written}
    assert {"adsgd-lr-quick.html", "adsgd-lr-quick.md", "adsgd-lr-quick-time.pdf"} <= names
    text = (tmp_path / "adsgd-lr-quick.md").read_text()
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| A")]
    assert {row[0] for row in rows} == {f"| {each.name}" for each in small.claims}
    assert {row[3] for row in rows} <= {*VERDICTS}
    assert "rfast at 0.09" in text
    assert "In place of what is said above: task digits; until 20;" in text
    assert "rfast:matched at 0.01" in text
    choices = {each.name: each.choice for each in small.claims}
    for row in rows:
        number = re.fullmatch(r"\((\d+)\) \||\|", row[5] if len(row) > 5 else "|")
        said = f"{number[1]}. {choices[row[0][2:]]}\n" if number is not None and number[1] else ""
        assert said in text and bool(said) == bool(choices[row[0][2:]])
    assert "    offbeat reproduce adsgd --part lr --quick\n" in text
    page = (tmp_path / "adsgd-lr-quick.html").read_text()
    assert "A quick run is of a smaller problem" in page
    first = {path: path.read_bytes() for path in written}
    assert {path: path.read_bytes() for path in making.write(runs, len(every))} == first, "the same bytes"
    making.write(runs[:2], len(every))
    assert "Of 6 runs 2 are done" in (tmp_path / "adsgd-lr-quick.md").read_text()


def timed(algorithm: str, world: dict[str, Any], n: int) -> Run:
    """Constant delays, cheap gradients; the evaluations are those from which a throughput is read."""
    fixed = {"task": "digits", "batch": 1, "partition": "iid", "agents": n, "topology": "ring", "until": 40}
    fixed |= {"eval_every": 10, "compute": "constant", "communication": "constant"}
    return offbeat.simulate(algorithm, **{**fixed, **world})


@pytest.mark.parametrize("name", ["adpsgd", "dsgd", "dsgd:after", "allreduce"])
def test_throughputs_are_those_that_are_predicted(name: str, tmp_path: Path) -> None:
    """Of a slowed worker, a slowed link and a shared network; by the settings of the grids themselves."""
    path = tmp_path / "slow-link-100.csv"
    path.write_text(adpsgd.LINKS[path.name])
    worlds: list[tuple[dict[str, Any], float, float, bool]] = [
        ({"case": "comp-straggler", "straggler": 0, "slowdown": 10.0, "bandwidth": 100.0}, 10, 100, False),
        ({"bandwidth": f"file:{path}", "sending": "unicast"}, 100, 100, True),
        ({"communication": "constant mean 0.25", "network": "fair"}, 1, 4, False),
    ]
    if name == "dsgd:after":  # it is asked of a slow link alone
        worlds = [world for world in worlds if world[3]]
    for world, slow, models, link in worlds:
        (rate,) = adpsgd.rates(Evidence([timed(name, world, 8)]))
        assert rate == pytest.approx(adpsgd.predicted(name, 8, slow, models, link), rel=0.1), world


def test_a_shared_network_is_slower_from_run_to_run() -> None:
    """Its means are what a model takes; more bandwidth of a link cannot make a sender faster."""
    (grid,) = adpsgd.SHARED.grids(False)
    takes = grid["grid"]["communication"]
    every = [
        timed("allreduce", {"network": grid["fixed"]["network"], "communication": each}, 4) for each in takes
    ]
    found = adpsgd.rates(Evidence(every))
    assert found == sorted(found, reverse=True)
    assert len({*found}) == len(found)
    runs = [replace(run, algorithm=name) for run in every for name in ("adpsgd", "allreduce")]
    (finding,) = adpsgd.shared_network(Evidence(runs))
    assert finding.verdict == NOT
    assert (
        "; 0.25: " in finding.measured
        and ", ratio 1, predicted 16 and 10.9, ratio 1.47; " in finding.measured
    )


def test_a_sweep_that_was_stopped_is_asked_of_the_runs_that_there_are() -> None:
    """One of a slowdown, and one of another by another algorithm."""
    world = {"case": "comp-straggler", "straggler": 0, "bandwidth": 100.0, "until": 20}
    runs = [timed("adpsgd", {**world, "slowdown": 2.0}, 4), timed("dsgd", {**world, "slowdown": 10.0}, 4)]
    found = adpsgd.slowed_worker(Evidence(runs))
    assert [each.measured.split(":")[0] for each in found] == ["2 times", "10 times"]


def test_a_speed_up_has_its_spread_and_is_near_linear_from_a_half_on(one: Run) -> None:
    times: dict[int, list[float | None]] = {1: [100.0, 80.0, 90.0], 8: [20.0, 10.0, 15.0]}

    def found(**more: list[float | None]) -> Finding:
        said = times | {int(name[1:]): each for name, each in more.items()}
        runs = [run for n, each in said.items() for run in made(one, "adsgd", each, agents=n)]
        (finding,) = claims.speed_up(Evidence(runs))
        return finding

    assert found() == Finding(
        CONFIRMED, "speed-up with 8: 6x [5x to 8x]", "skew:1, learning rate 0.01 for all n"
    )
    slow = found(n16=[None, None, 45.0])
    assert (slow.verdict, slow.measured[-23:]) == (NOT, "16: never [never to 2x]")
    never = found(n1=[None, None, None])
    assert (never.verdict, never.measured) == (UNTESTABLE, "with 1: never by 100")


@pytest.mark.parametrize(("each", "most"), [(0.001, 1000), (2.0, 48)])
def test_what_a_part_costs_is_told_from_few_gradients_where_they_take_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, each: float, most: float
) -> None:
    """Whatever a gradient takes: of a network of which one takes seconds a hundredth of a run is hours."""
    asked = list[float]()

    def spent(point: Point, piece: Setup, clock: object) -> float:
        asked.append(piece.updates)
        return each * (1 + piece.updates)

    monkeypatch.setattr(running, "_spent", spent)
    making = Making(PAPERS["adpsgd"], adpsgd.SLOW_WORKER, tmp_path, quick=True)
    point = making.points()[0]
    setup = prepare(point.experiment, point.seed)
    cost = making.cost([point])
    assert cost.seconds == pytest.approx(each * (1 + setup.updates))
    assert sum(asked) <= most


def test_measured_round_trip_times_are_the_users(tmp_path: Path) -> None:
    making = Making(PAPERS["adsgd"], INTERNET, tmp_path)
    with pytest.raises(SettingError, match="expected --rtt FILE"):
        making.points()
    (tmp_path / "rtt.csv").write_text(NODES)
    small = replace(INTERNET, quick={"fixed": {"task": "digits", "agents": 4}, "grid": {"seed": [0]}})
    said = str(tmp_path / "rtt.csv")
    every = Making(PAPERS["adsgd"], small, tmp_path, quick=True, rtt=said).points()
    assert {point.experiment.latency for point in every} == {f"rtt:{said} mean {mean}" for mean in MEANS}
    whole = replace(making, rtt=said)
    assert whole.command == f"offbeat reproduce adsgd --part internet --rtt {said}"


def test_an_unknown_device_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="expected 'cpu'"):
        Making(PAPERS["adsgd"], adsgd.LR, tmp_path, True, device="tpu").points()


def test_a_signal_ends_all_parts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And not the one that it meets alone, or n of them would be needed."""
    begun = list[Path]()

    def interrupted(every: Any, table: Path, *_: Any) -> None:
        begun.append(table)
        raise KeyboardInterrupt

    monkeypatch.setattr("offbeat.experiments.sweep.running.sweep", interrupted)
    done = CliRunner().invoke(app, ["reproduce", "adpsgd", "--quick", "--quiet", "--out", str(tmp_path)])
    assert done.exit_code == 130
    assert len(begun) == 1
