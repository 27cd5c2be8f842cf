"""A Ray cluster of several nodes on this machine, in a process of its own: `python raylets.py 2`.

It says its address, does what it reads ("kill 1": all of that node's processes, as when a machine fails;
"add"; "kill-head", "start-head": the cluster's own state, which lies on disk; "actors RUN": which live), and
ends with its standard input. Nobody without its token is let in.
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
        assert self.ask(what) == "done"

    def ask(self, what: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(what + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


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
    os.environ |= {"RAY_gcs_storage": "rocksdb", "RAY_gcs_storage_path": f"{folder}/state"}
    about: dict[str, Any] = {"include_dashboard": False, "temp_dir": f"{folder}/ray", "num_cpus": 8}
    for name in ("ray", "state"):
        Path(folder, name).mkdir()
    cluster = Cluster(True, head_node_args=about)
    nodes = [cluster.add_node(num_cpus=8) for _ in range(int(sys.argv[1]) - 1)]
    print(cluster.address, file=said, flush=True)
    for line in sys.stdin:
        answer = "done"
        match line.split():
            case ["kill", which]:
                cluster.remove_node(nodes[int(which) - 1], allow_graceful=False)
            case ["add"]:
                nodes.append(cluster.add_node(num_cpus=8))
            case ["kill-head"]:  # without its node
                cluster.head_node.kill_gcs_server(check_alive=False)
            case ["start-head"]:
                cluster.head_node.start_gcs_server()
            case ["actors", run]:
                actors = cluster.global_state.actor_table(None).values()
                living = [each["Name"] for each in actors if each["State"] != "DEAD"]
                answer = " ".join(name for name in living if name.startswith(run)) or "none"
        print(answer, file=said, flush=True)
    cluster.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
