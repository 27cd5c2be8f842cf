"""Two network namespaces of this machine as two machines: a link between them, and a node of Ray in each."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

NAMES = "offbeat-bench-0", "offbeat-bench-1"
ADDRESSES, LINK, PORT = ("10.213.7.1", "10.213.7.2"), "offbeat", 6399
"""Where each is reached, over the interface of this name in both."""

STARTS = 120.0
"""Seconds that both nodes have to be there."""


def possible() -> bool:
    """Whether this machine lets us: it takes root, and `ip`."""
    if os.geteuid() or shutil.which("ip") is None:
        return False
    made = _ip("netns", "add", NAMES[0], check=False)
    _ip("netns", "del", NAMES[0], check=False)
    return made


def within(which: int, command: Sequence[str]) -> list[str]:
    """The command that runs this one in a namespace, also from within the other."""
    return ["ip", "netns", "exec", NAMES[which], *command]


@contextmanager
def nodes() -> Iterator[tuple[str, dict[str, str]]]:
    """Both, and a node of Ray in each: the address of the cluster, and the environment of who is let in."""
    folder = tempfile.mkdtemp(prefix="offbeat-ray-")
    env = {
        **os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_worker_niceness": "0", "RAY_TMPDIR": folder,
    }  # fmt: skip
    address, ray = f"{ADDRESSES[0]}:{PORT}", str(Path(sys.executable).parent / "ray")
    common = ["--num-cpus=8", "--disable-usage-stats", "--block"]
    head = ["--head", f"--port={PORT}", "--include-dashboard=false", f"--temp-dir={folder}/ray"]
    running = []
    try:
        _link()
        for which, how in enumerate((head, [f"--address={address}"])):
            command = [ray, "start", f"--node-ip-address={ADDRESSES[which]}", *how, *common]
            said = (Path(folder) / f"said-{which}").open("wb")
            running.append(
                subprocess.Popen(within(which, command), env=env, stdout=said, stderr=subprocess.STDOUT)
            )
            _wait(Path(said.name), running[-1])
        yield address, env
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait()
        for name in NAMES:
            _ip("netns", "del", name, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _link() -> None:
    for name in NAMES:
        _ip("netns", "add", name)
    ends = f"{LINK}-0", f"{LINK}-1"
    _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
    for name, end, address in zip(NAMES, ends, ADDRESSES, strict=True):
        _ip("link", "set", end, "netns", name)
        _ip("-n", name, "link", "set", end, "name", LINK)
        _ip("-n", name, "addr", "add", f"{address}/24", "dev", LINK)
        for each in ("lo", LINK):
            _ip("-n", name, "link", "set", each, "up")


def _wait(said: Path, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + STARTS
    while "Ray runtime started" not in said.read_text():
        if process.poll() is not None or time.monotonic() > end:
            raise SystemExit(f"No node of Ray in a namespace:\n{said.read_text()}")
        time.sleep(0.1)


def _ip(*words: str, check: bool = True) -> bool:
    return subprocess.run(["ip", *words], check=check, stderr=subprocess.DEVNULL).returncode == 0
