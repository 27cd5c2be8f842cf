"""examples/clusters: what they run is what `offbeat launch` takes, and what they name Ray has."""

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
from user_scripts import EXAMPLES

from offbeat.cli.commands import loaded

SLURM, KUBERNETES = (EXAMPLES / "clusters" / name for name in ("slurm.sbatch", "rayjob.yaml"))
STUBS = {
    "scontrol": "printf 'node-%s\\n' {1..20000}",  # more than a pipe holds: one that is closed early is seen
    "srun": 'while [[ "${1:-}" == --* ]]; do shift; done; exec "$@"',
    "hostname": "echo 10.0.0.1 fe80::1",
    "ray": 'if [[ "$1" == symmetric-run ]]; then printf "%s\\n" "$@"; fi',
}
"""What stands for Slurm and Ray: the last one prints what it was given."""


def asked(command: list[str]) -> dict[str, Any]:
    """What `offbeat launch` understands of its command line. Raises what it raises for any other."""
    assert command[:2] == ["offbeat", "launch"]
    values: dict[str, Any] = loaded("launch").make_context("launch", command[2:]).params
    return values


@pytest.mark.parametrize("again", [False, True])
def test_the_slurm_script_starts_one_run_and_goes_on_with_it(tmp_path: Path, again: bool) -> None:
    for name, body in STUBS.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    if again:
        (tmp_path / "offbeat-runs" / "slurm").mkdir(parents=True)
        (tmp_path / "offbeat-runs" / "slurm" / "agent-0.trace").touch()
    slurm = {"JOB_NODELIST": "node-[1-2]", "JOB_ID": "12345", "JOB_NUM_NODES": "2", "CPUS_PER_TASK": "8"}
    environment = {"PATH": f"{tmp_path}:/usr/bin:/bin"} | {f"SLURM_{k}": v for k, v in slurm.items()}
    words = ["bash", str(SLURM), "train.py", "--epochs", "3"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()
    middle = said.index("--")
    assert said[:middle] == [
        "symmetric-run", "--address", "10.0.0.1:32345", "--min-nodes", "2", "--num-cpus=8",
    ]  # fmt: skip
    values = asked(said[middle + 1 :])
    assert (values["ray"], values["agents"], values["cpus"], values["resume"]) == ("auto", 16, 1.0, again)
    assert values["command"] == ["train.py", "--epochs", "3"]


def test_ray_has_the_command_that_the_slurm_script_runs() -> None:
    scripts = pytest.importorskip("ray.scripts.symmetric_run")
    options = {name for each in scripts.symmetric_run.params for name in each.opts}
    assert {"--address", "--min-nodes"} <= options


def test_the_kubernetes_job_runs_what_launch_takes_on_pods_that_can() -> None:
    yaml = pytest.importorskip("yaml")
    job = yaml.safe_load(KUBERNETES.read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    values = asked(shlex.split(job["spec"]["entrypoint"]))
    assert (values["ray"], values["no_ship"]) == ("auto", True)
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    (group,) = cluster["workerGroupSpecs"]
    pods = [each["template"]["spec"] for each in (cluster["headGroupSpec"], group)]
    for pod in pods:
        (container,) = pod["containers"]
        mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
        volumes = {each["name"]: each for each in pod["volumes"]}
        assert {*mounts.values()} == {*volumes}
        assert volumes[mounts["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
        for path in (values["out"], Path(values["command"][0])):
            assert str(path.parent) in mounts, "it is a volume that all pods have"
    room = group["replicas"] * int(pods[1]["containers"][0]["resources"]["limits"]["cpu"]) / values["cpus"]
    assert room >= values["agents"]
