"""The doctor: what it says about this machine, and about machines that lack something."""

import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner
from warm import needs_shared_memory, plant

from offbeat.cli.commands import app
from offbeat.core.system import files, kernel, machine
from offbeat.core.vector import Scope, Vector
from offbeat.engines.live.launcher import children, doctor, selftest
from offbeat.engines.live.launcher.doctor import Check, examine
from offbeat.engines.live.node.performer import Snapshot
from offbeat.engines.live.shm import run_folder
from offbeat.engines.live.shm.layout import Tag
from offbeat.engines.live.shm.register import Register
from offbeat.engines.live.shm.wire import layout_of

Patch = pytest.MonkeyPatch


def answering(value: Any) -> Callable[..., Any]:
    return lambda *_: value


def told(check: Check, status: str, *words: str) -> None:
    """The status, and words in what is said; whatever is not ok says what to do."""
    assert check.status == status, check
    said = f"{check.found} | {check.expected} | {check.do}"
    for word in words:
        assert word in said
    assert (check.do == "nothing") == (status == "ok"), check


@pytest.fixture
def passes(monkeypatch: Patch) -> None:
    """All checks but that of left-overs are fine."""

    def checks(remove: bool, _: Any) -> dict[str, Callable[[], Check]]:
        return {"this": lambda: Check("ok", "a", "a"), "left-overs": lambda: doctor.left_overs(remove)}

    monkeypatch.setattr(doctor, "checks", checks)
    monkeypatch.setattr(doctor, "self_test", lambda: Check("ok", "exchanged", "exchanged"))


# -- this machine ----------------------------------------------------------------------------------


@needs_shared_memory
def test_this_machine_and_the_self_test_in_json(tmp_path: Path, monkeypatch: Patch) -> None:
    witness = plant(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = set(run_folder.SHARED.iterdir())
    done = CliRunner().invoke(app, ["doctor", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    checks = {check["name"]: check for check in result["checks"]}
    assert result["ok"] is True
    assert list(checks) == [
        "platform", "Python", "packages", "shared memory", "memory", "cores", "processes", "ends of agents",
        "open files", "kernel",
        "clock", "CUDA", "left-overs", "self-test",
    ]  # fmt: skip
    assert {tuple(check) for check in checks.values()} == {("name", "status", "found", "expected", "do")}
    assert checks["self-test"]["status"] == "ok"
    assert "exchanged models" in checks["self-test"]["found"]
    mine = [path for path in set(run_folder.SHARED.iterdir()) - before if f"-{os.getpid()}-" in path.name]
    assert not mine, "nothing is left in shared memory"
    assert not witness.exists(), "nothing runs from the current folder"


def test_a_table_and_the_exit_code(passes: None, monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor, "left_overs", lambda remove: Check("warning", "two", "none", "sweep"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0, "a warning is no failure"
    assert "self-test" in done.stdout
    assert "left-overs: sweep." in done.stdout
    monkeypatch.setattr(doctor, "self_test", lambda: Check("FAILED", "torn", "whole", "report it"))
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 1
    assert "FAILED" in done.stdout
    assert "self-test: report it." in done.stdout
    failed = CliRunner().invoke(app, ["doctor", "--json"])
    assert failed.exit_code == 1
    assert json.loads(failed.stdout)["ok"] is False


def test_without_platform_or_memory_there_is_no_self_test(passes: None, monkeypatch: Patch) -> None:
    monkeypatch.setattr(doctor, "checks", answering({"platform": lambda: Check("FAILED", "a", "b", "c")}))
    told(examine()["self-test"], "warning", "not tried", "first see to: platform")


def test_a_check_that_cannot_be_made_ends_nothing(passes: None, monkeypatch: Patch) -> None:
    def open_files() -> Check:
        raise OSError("no such thing")

    monkeypatch.setattr(doctor, "checks", answering({"open files": open_files}))
    found = examine()
    told(found["open files"], "warning", "no such thing")
    assert found["self-test"].status == "ok"


# -- software --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("system", "machine"), [("Darwin", "arm64"), ("Linux", "aarch64"), ("Windows", "AMD64")]
)
def test_another_platform(system: str, machine: str, monkeypatch: Patch) -> None:
    monkeypatch.setattr(platform, "system", answering(system))
    monkeypatch.setattr(platform, "machine", answering(machine))
    told(doctor.platform_(), "FAILED", f"{system} on {machine}", "x86-64", "offbeat compare")


def test_versions_of_python_and_packages(monkeypatch: Patch) -> None:
    for version, status in {"3.9.1": "FAILED", "3.11.0": "ok", "3.13.2": "ok", "3.99.0": "warning"}.items():
        monkeypatch.setattr(platform, "python_version", answering(version))
        told(doctor.python(), status, version, "3.11 to 3.13")
    told(doctor.packages(), "ok", f"torch {metadata.version('torch')}")
    monkeypatch.setattr(metadata, "version", {"torch": "2.3.1+cpu", "numpy": "99.0"}.__getitem__)
    monkeypatch.setattr(
        metadata, "requires", answering(["torch>=2.4", "numpy>=1.26", "pandas>=2.1; extra == 'frame'"])
    )
    told(doctor.packages(), "FAILED", "torch 2.3.1+cpu", "torch 2.4 or newer", "pip install --upgrade torch")
    monkeypatch.setattr(metadata, "requires", answering(["safetensors>=0.4"]))

    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    told(doctor.packages(), "FAILED", "safetensors missing")


def test_no_compiler_and_a_kernel_with_other_bits(monkeypatch: Patch) -> None:
    monkeypatch.setattr(kernel, "name", answering("torch (no C compiler found)"))
    told(
        doctor.compiled({"ours": lambda: "as ever"}), "warning", "no C compiler found", "install a C compiler"
    )
    monkeypatch.setattr(kernel, "name", answering("compiled (gcc 1.0)"))

    def wrong(out: torch.Tensor, terms: Any) -> None:
        out.copy_(sum(c * v for c, v in reversed(terms)))

    told(doctor.compiled({"ours": lambda: "as ever"}), "ok", "torch's bits; ours: as ever")
    monkeypatch.setattr(kernel, "linear", wrong)
    told(doctor.compiled({"ours": lambda: "as ever"}), "FAILED", "other bits than torch (torch.float32)")


def test_cuda_is_for_information(monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", answering(False))
    told(doctor.cuda(), "ok", "none")
    monkeypatch.setattr(torch.cuda, "is_available", answering(True))
    monkeypatch.setattr(torch.cuda, "device_count", answering(2))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda k: f"card {k}")
    told(doctor.cuda(), "ok", "card 0, card 1")


# -- room ------------------------------------------------------------------------------------------


def test_shared_memory_small_missing_or_closed(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(run_folder, "SHARED", tmp_path)
    for free, status, fit in (
        (64e6, "warning", "0 agents"),
        (0.7e9, "warning", "1 agent with"),
        (4e9, "ok", "12 ag"),
    ):
        monkeypatch.setattr(shutil, "disk_usage", answering(SimpleNamespace(free=free)))
        words = ["docker run --shm-size"] if status == "warning" else []
        told(doctor.shared_memory(), status, f"{free / 1e6:,.0f} MB free", fit, *words)
    monkeypatch.setattr(shutil, "disk_usage", answering(SimpleNamespace(free=4096)))
    told(doctor.shared_memory(), "FAILED", "--sweep", "--shm-size")

    def closed(**_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", closed)
    told(doctor.shared_memory(), "FAILED", "cannot be written to: Permission denied", "chmod 1777")
    monkeypatch.setattr(run_folder, "SHARED", tmp_path / "none")
    told(doctor.shared_memory(), "FAILED", "no ", "mount a tmpfs", "offbeat compare")


def test_limits_of_files_and_processes(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(machine, "CGROUPS", tmp_path)
    monkeypatch.setattr(doctor, "_own_threads", answering(100))
    monkeypatch.setattr(os, "geteuid", answering(1000))
    infinite = resource.RLIM_INFINITY
    rows = {20: ("FAILED", "FAILED"), 120: ("warning", "warning"), 9000: ("ok", "ok"), infinite: ("ok", "ok")}
    for limit, (of_files, tasks) in rows.items():
        monkeypatch.setattr(resource, "getrlimit", answering((limit, limit)))
        told(doctor.open_files(), of_files, "no limit" if limit == infinite else f"{limit:,} at a time")
        told(doctor.processes(), tasks, "no limit" if limit == infinite else f"room for {limit - 100:,} more")
    monkeypatch.setattr(os, "geteuid", answering(0))
    monkeypatch.setattr(resource, "getrlimit", answering((20, 20)))
    told(doctor.processes(), "ok", "no limit")


def test_how_the_end_of_an_agent_is_noticed_is_said(monkeypatch: Patch) -> None:
    told(doctor.ends(), "ok", "reported by the kernel")
    monkeypatch.setattr(children, "pidfd", answering(None))
    told(doctor.ends(), "ok", "refuses pidfd_open: looked for every 50 ms")
    monkeypatch.delattr(os, "pidfd_open")
    told(doctor.ends(), "ok", "no os.pidfd_open: looked for every 50 ms")


def groups(folder: Path, monkeypatch: Patch, lines: str, **files: str) -> None:
    """A fake /proc and /sys/fs/cgroup; files: path with __ for / and names as they are."""
    (folder / "proc" / "self").mkdir(parents=True, exist_ok=True)
    (folder / "proc" / "self" / "cgroup").write_text(lines)
    (folder / "proc" / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   16000000 kB\n")
    for name, text in files.items():
        path = folder / "cgroup" / name.replace("__", "/").replace("-", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(machine, "PROC", folder / "proc")
    monkeypatch.setattr(machine, "CGROUPS", folder / "cgroup")


def test_limits_of_a_container_in_version_2(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", answering({*range(8)}))
    monkeypatch.setattr(os, "geteuid", answering(0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    files = {
        "memory-max": "2000000000\n", "memory-current": "1700000000\n", "pids-max": "100\n",
        "pids-current": "60\n", "a__cpu-max": "150000 100000\n", "cpu-max": "max 100000\n",
        "a__memory-max": "max\n", "a__pids-max": "max\n",
    }  # fmt: skip
    groups(tmp_path, monkeypatch, "0::/a\n", **files)
    told(doctor.memory(), "FAILED", "300 MB available of the container's 2,000 MB", "docker run --memory")
    assert machine.available() == 3e8, "which is what plans of runs are held against too"
    told(doctor.processes(), "warning", "room for 40 more threads, 10 agents", "--pids-limit")
    told(doctor.cores(), "warning", "8 cores, of which the container may use 1.5", "2 cores or more")


def test_limits_of_a_container_in_version_1(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", answering({*range(8)}))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    files = {
        "cpu,cpuacct__d__cpu-cfs_quota_us": "400000",
        "cpu,cpuacct__d__cpu-cfs_period_us": "100000",
        "memory__memory-limit_in_bytes": "9223372036854771712",
        "memory__memory-usage_in_bytes": "1",
    }
    groups(tmp_path, monkeypatch, "4:cpu,cpuacct:/d\n3:memory:/\n1:name=systemd:/\n", **files)
    told(doctor.cores(), "ok", "container may use 4; 1 thread an agent: up to 4")
    told(doctor.memory(), "ok", "16,384 MB available: about 16 agents")
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    told(doctor.cores(), "warning", "4 threads an agent", "unset OMP_NUM_THREADS")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    told(doctor.cores(), "ok", "2 threads an agent: up to 2")


def test_a_clock_that_is_coarse_or_goes_back(monkeypatch: Patch) -> None:
    assert doctor.clock().status != "FAILED"
    info = SimpleNamespace(implementation="ticks", resolution=0.015, monotonic=True)
    monkeypatch.setattr(time, "get_clock_info", answering(info))
    told(doctor.clock(), "warning", "ticks", "--unit")
    backwards = iter(range(10**9, 0, -1000))
    monkeypatch.setattr(time, "monotonic_ns", lambda: next(backwards))
    told(doctor.clock(), "FAILED", "goes back")


# -- what is left ----------------------------------------------------------------------------------


def folder(name: str, *files: str) -> Path:
    """A folder as the launcher makes it, with files of 400,000 bytes."""
    made = run_folder.SHARED / f"{run_folder.PREFIX}{name}"
    made.mkdir(mode=0o700)
    for file in files:
        (made / file).write_bytes(bytes(400_000))
    return made


def test_left_overs_are_counted_and_go_only_if_asked_for(
    tmp_path: Path, passes: None, monkeypatch: Patch
) -> None:
    """A run lives as long as its lock is held, whatever the number of its process is, here or in another
    container.
    """
    monkeypatch.setattr(run_folder, "SHARED", tmp_path)
    for name in ("1-dead", f"{os.getpid()}-dead"):
        folder(name, "register.0.1.0", ".lock")
    folder("1-without-a-lock", "register.0.1.0")
    lives = folder(f"{os.getpid() + 1}-lives", "register.0.1.0", ".lock")
    (tmp_path / "something-else").mkdir()
    lock = files.take(lives)
    assert lock is not None
    done = CliRunner().invoke(app, ["doctor"])
    assert done.exit_code == 0
    assert "offbeat doctor --sweep removes them" in done.stdout
    told(doctor.left_overs(False), "warning", "3 folders of dead runs, 2.0 MB")
    assert len(list(tmp_path.iterdir())) == 5, "nothing was removed"
    swept = CliRunner().invoke(app, ["doctor", "--sweep", "--json"])
    assert swept.exit_code == 0
    (check,) = (c for c in json.loads(swept.stdout)["checks"] if c["name"] == "left-overs")
    assert check["status"] == "ok"
    assert "3 folders of dead runs, 2.0 MB, removed" in check["found"]
    assert {*tmp_path.iterdir()} == {lives, tmp_path / "something-else"}, (
        "what lives, and what is not ours, stays"
    )
    lock.release()
    assert run_folder.sweep() == [lives]


def test_what_others_plant_in_shared_memory_is_left_alone_and_holds_nobody_up(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    shared, mine = tmp_path / "shared", tmp_path / "mine"
    for each in (shared, mine):
        each.mkdir()
    (mine / "model").touch()
    monkeypatch.setattr(run_folder, "SHARED", shared)
    (shared / f"{run_folder.PREFIX}1-link").symlink_to(mine)
    (shared / f"{run_folder.PREFIX}1-zero").symlink_to("/dev/zero")
    (shared / f"{run_folder.PREFIX}1-file").touch()
    os.mkfifo(shared / f"{run_folder.PREFIX}1-pipe")
    folder("1-open", ".lock").chmod(0o777)
    os.mkfifo(folder("1-lock-that-is-a-pipe") / ".lock")
    (folder("1-lock-that-is-a-link") / ".lock").symlink_to("/dev/zero")
    (folder("1-deep", ".lock") / "below").mkdir()
    (shared / f"{run_folder.PREFIX}1-deep" / "below" / "file").touch()
    (folder("1-with-a-link", ".lock") / "link").symlink_to(mine, target_is_directory=True)
    if os.getuid() == 0:
        os.chown(folder("1-of-another-user", ".lock"), 12345, 12345)
    before = {path.name for path in shared.iterdir()}
    assert [path.name.partition("1-")[2] for path in run_folder.sweep()] == ["deep", "with-a-link"]
    assert before - {path.name for path in shared.iterdir()} == {f"{run_folder.PREFIX}1-with-a-link"}
    assert (shared / f"{run_folder.PREFIX}1-deep" / "below" / "file").exists(), "nothing is searched in depth"
    assert (mine / "model").exists()
    told(doctor.left_overs(True), "warning", "1 folder of dead runs", "not removed", "1-deep", "by hand")


@needs_shared_memory
def test_a_new_folder_that_another_run_sweeps_at_once_is_made_again(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    """It is dead until its launcher has its lock, and somebody else may look just before."""
    monkeypatch.setattr(run_folder, "SHARED", tmp_path)
    take, swept = files.take, list[Path]()

    def disturbed(path: Path, sure: bool = False) -> files.Lock | None:
        if len(swept) < 2:
            monkeypatch.setattr(run_folder, "take", take)
            swept.extend(run_folder.sweep())
            monkeypatch.setattr(run_folder, "take", disturbed)
        return take(path, sure)

    monkeypatch.setattr(run_folder, "take", disturbed)
    made = run_folder.make_run_folder({"agents": 2})
    assert len(swept) == 2 and made.path not in swept
    assert [*tmp_path.iterdir()] == [made.path] and (made.path / "run.json").exists()
    assert run_folder.sweep() == []
    made.remove()
    assert not [*tmp_path.iterdir()]


# -- the self-test ---------------------------------------------------------------------------------


@needs_shared_memory
def test_a_self_test_that_fails_says_what_the_processes_said(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setattr(run_folder, "SHARED", tmp_path)
    script = tmp_path / "broken"
    script.write_text("#!/bin/sh\necho a model was torn\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    told(doctor.self_test(), "FAILED", "a model was torn", "report it")
    script.write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(selftest, "PATIENCE", 0.3)
    told(doctor.self_test(), "FAILED", "no exchange within 0.3 s")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "none"))
    told(doctor.self_test(), "FAILED", "FileNotFoundError")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"], "nothing is left in shared memory"
    monkeypatch.setattr(run_folder, "SHARED", tmp_path / "none")
    told(doctor.self_test(), "FAILED", "There is no", "see shared memory")


@needs_shared_memory
def test_a_process_of_the_self_test_notices_a_torn_model(tmp_path: Path, monkeypatch: Patch) -> None:
    monkeypatch.setenv("OFFBEAT_RUN", str(tmp_path))
    monkeypatch.setenv("OFFBEAT_RANK", "0")
    torn = torch.cat([torch.full((9_999,), 7.0), torch.full((1,), 8.0)])
    sample = Snapshot(Vector((torn,)))
    theirs = Register.create(tmp_path / "register.1", layout_of(sample))
    with Scope():
        (placed,) = theirs.begin([sample.x])
    theirs.finish(Snapshot(placed), Tag())
    with pytest.raises(SystemExit, match="torn or stale model: 7 to 8"):
        selftest.exchange()
    monkeypatch.setattr(selftest, "PATIENCE", 0.05)
    monkeypatch.setenv("OFFBEAT_RANK", "2")
    with pytest.raises(SystemExit, match="read 0 models of the other process, expected 300"):
        selftest.exchange()
