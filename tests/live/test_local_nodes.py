"""`--ray local:2`: nodes that are started for a run end with it, and leave nothing, whatever ends it."""

import os
import signal
from pathlib import Path

import pytest
from warm import Started, needs_shared_memory, start, until

from offbeat.engines.live.cluster.fleet import why

pytestmark = needs_shared_memory


def begun(folder: Path, temporary: Path) -> Started:
    """A launcher whose first node begins."""
    for each in (folder, temporary):
        each.mkdir(exist_ok=True)
    setup = f"import nodes_of_ray, tempfile; nodes_of_ray.install(); tempfile.tempdir = {str(temporary)!r}"
    run = start(folder, "launch", "--ray", "local:2", "train.py", script="", setup=setup)
    until(lambda: (folder / "stdout").exists() and "a node begins" in run.said)
    return run


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_nodes_begin_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    """What has half begun is ended once it is there: before that nobody could."""
    run = begun(tmp_path / "run", tmp_path / "temporary")
    run.kill(number)
    (run.folder / "on").touch()
    assert run.wait() == 128 + number
    assert run.said.splitlines() == ["a node begins", "a node is there", "ends 1"]
    begins, error = (run.folder / "stderr").read_text().splitlines()
    assert begins == "Starting 2 Ray nodes on this machine."
    assert error == f"Error: Interrupted by {number.name} while machines were made ready, or left."
    assert not [*(tmp_path / "temporary").iterdir()]
    assert not (run.folder / "offbeat-runs").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_what_all_processes_of_a_terminal_or_of_timeout_are_sent_is_not_for_nodes(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The launcher ends them in order: where a node died of the signal, Ray waited a minute for it."""
    run = begun(tmp_path / "run", tmp_path / "temporary")
    for name in ("each", "on"):
        (run.folder / name).touch()
    until(lambda: run.said.count("a node begins") == 2)
    os.killpg(run.pid, number)
    (run.folder / "on").touch()
    assert run.wait() == 128 + number
    assert run.said.splitlines() == ["a node begins", "a node is there"] * 2 + ["ends 2"]
    assert not [*(tmp_path / "temporary").iterdir()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_more_signals_end_it_though_a_node_never_comes_and_ray_takes_signals(
    tmp_path: Path, number: signal.Signals
) -> None:
    run = begun(tmp_path / "run", tmp_path / "temporary")
    (run.folder / "take").touch()

    def ended() -> bool:
        run.kill(number)
        return run.poll() is not None

    until(ended)
    assert run.code in (128 + number, -number)
    assert "a node is there" not in run.said


def test_a_node_goes_on_while_others_begin(tmp_path: Path) -> None:
    """Though it ends with the thread that has started it, as the kernel has it. Nobody is at its address."""
    run = begun(tmp_path / "run", tmp_path / "temporary")
    (run.folder / "on").touch()
    assert run.wait() == 2
    assert run.said.splitlines() == ["a node begins", "a node is there"] * 2 + ["ends 2"]
    assert "Cannot use Ray at '127.0.0.1:1'" in run.complained or "127.0.0.1:1" in run.complained
    assert not [*(tmp_path / "temporary").iterdir()]


def test_a_node_that_does_not_come_is_a_paragraph_and_leaves_nothing(tmp_path: Path) -> None:
    """As where all cores are busy: Ray gives it half a minute."""
    run = begun(tmp_path / "run", tmp_path / "temporary")
    for name in ("late", "on"):
        (run.folder / name).touch()
    assert run.wait() == 2
    assert run.said.splitlines() == ["a node begins", "ends 0"]
    _, error = (run.folder / "stderr").read_text().splitlines()
    assert error.startswith(
        "Error: Ray could not start node 1 of 2 on this machine: The current node timed out during startup. "
        "This could happen for reasons. more"
    )
    assert len(error) < 500 and "more (...). Is it busy, or short of memory?" in error
    assert not [*(tmp_path / "temporary").iterdir()]


def test_a_gateway_that_does_not_come_is_said_with_where_logs_are_then() -> None:
    there, here = why(TimeoutError(), 10.0), why(TimeoutError(), local=2)
    assert there.startswith("no gateway was there after 10 s.") and "on that machine in /tmp/ray" in there
    assert here.startswith("no gateway was there after 120 s.") and "logs end with it" in here
    assert why(ValueError("Refused: no room")) == "no room"


def test_what_a_killed_launcher_left_of_its_nodes_the_next_removes(tmp_path: Path) -> None:
    """And not what belongs to one that runs."""
    temporary = tmp_path / "temporary"
    runs, of = [], list[Path]()
    for k in range(3):
        runs.append(begun(tmp_path / f"run-{k}", temporary))
        of += {*temporary.iterdir()} - {*of}
        if k == 1:
            runs[k].kill()
            runs[k].wait()
    first, killed, third = of
    assert {*temporary.iterdir()} == {first, third} and killed.name.startswith("offbeat-ray-")
    for run in (runs[0], runs[2]):
        run.kill(signal.SIGTERM)
        (run.folder / "on").touch()
        assert run.wait() == 143
    assert not [*temporary.iterdir()]
