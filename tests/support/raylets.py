"""A Ray cluster of several nodes on this machine, in a process of its own: `python raylets.py 2`.

It says its address, does what it reads ("kill 1": all of that node's processes, as when a machine fails;
"add"), and ends with its standard input. Nobody without its token is let in.
"""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True)
class Raylets:
    """The cluster, as a test has it: `env` is what whoever is let in has in his environment."""

    address: str
    env: dict[str, str]
    process: "subprocess.Popen[str]"

    def do(self, what: str) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline().strip() == what


@contextmanager
def raylets(nodes: int, tls: Mapping[str, str] = MappingProxyType({})) -> Iterator[Raylets]:
    """A cluster of so many nodes. tls: what is in the environment for that, if they encrypt."""
    env = {**os.environ, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), **tls}
    env["RAY_worker_niceness"] = "0"  # else gateways give way to all else that runs here
    command = [sys.executable, str(Path(__file__)), str(nodes)]
    process = subprocess.Popen(
        command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Raylets(process.stdout.readline().strip(), env, process)
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()


def main() -> None:
    from ray.cluster_utils import Cluster

    said, sys.stdout = sys.stdout, sys.stderr
    folder = tempfile.mkdtemp(prefix="raylets-")
    os.environ["RAY_TMPDIR"] = folder  # where Ray notes which cluster is this machine's
    about: dict[str, Any] = {"include_dashboard": False, "temp_dir": f"{folder}/ray", "num_cpus": 8}
    Path(folder, "ray").mkdir()
    cluster = Cluster(True, head_node_args=about)
    nodes = [cluster.add_node(num_cpus=8) for _ in range(int(sys.argv[1]) - 1)]
    print(cluster.address, file=said, flush=True)
    for line in sys.stdin:
        match line.split():
            case ["kill", which]:
                cluster.remove_node(nodes[int(which) - 1], allow_graceful=False)
            case ["add"]:
                nodes.append(cluster.add_node(num_cpus=8))
        print(line.strip(), file=said, flush=True)
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
