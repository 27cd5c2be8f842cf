"""A Ray that starts nodes as the real one does, as far as signals and files go, and nothing else.

Its nodes are processes that end with the thread that started them; while one begins, SIGTERM is Ray's,
which then ends the process at once. A node says "begins" and waits for the file "on" in the current folder;
where there is one, "late", it does not come; where there is one, "each", the next waits for another "on".
Where there is one, "take", it takes the signals, and does nothing with them.
"""

import ctypes
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any


def _end(number: int, _: Any) -> None:
    print("Ray ends the process", flush=True)
    sys.exit(1)


LIBC, IGNORE = ctypes.CDLL(None), ctypes.c_void_p(1)
PR_SET_PDEATHSIG = 1


def _share_fate() -> None:
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


utils = SimpleNamespace(
    set_sigterm_handler=lambda handler: signal.signal(signal.SIGTERM, handler),
    set_kill_on_parent_death_linux=_share_fate,
)


class Cluster:
    """Of `ray.cluster_utils`."""

    def __init__(self) -> None:
        self.nodes = list[subprocess.Popen[bytes]]()

    @property
    def address(self) -> str:
        return "127.0.0.1:1"

    def add_node(self, **_: Any) -> None:
        utils.set_sigterm_handler(_end)
        print("a node begins", flush=True)
        while not Path("on").exists():
            if Path("take").exists():
                for number in (signal.SIGINT, signal.SIGTERM):
                    LIBC.signal(number, IGNORE)
            time.sleep(0.005)
        if Path("late").exists():
            raise Exception(
                "The current node timed out during startup. This could\nhappen for reasons." + " more" * 100
            )
        if Path("each").exists():
            Path("on").unlink()
        share_fate = utils.set_kill_on_parent_death_linux
        self.nodes.append(subprocess.Popen(["sleep", "100"], preexec_fn=share_fate))
        print("a node is there", flush=True)

    def shutdown(self) -> None:
        print(f"ends {sum(node.poll() is None for node in self.nodes)}", flush=True)
        for node in self.nodes:
            node.kill()
            node.wait()


def install() -> None:
    """Be the Ray of this process."""
    package, private, nodes = ModuleType("ray"), ModuleType("ray._private"), ModuleType("ray.cluster_utils")
    package.__dict__.update(_private=private, shutdown=lambda: None, __path__=[])
    private.__dict__.update(utils=utils)
    nodes.__dict__.update(Cluster=Cluster)
    sys.modules |= {"ray": package, "ray._private": private, "ray.cluster_utils": nodes}
