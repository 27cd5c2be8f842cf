"""The wheel: what is inside, and that it works where the source is not."""

import importlib.util
import json
import os
import subprocess
import sys
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import offbeat
from offbeat.algorithms import USUAL

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "offbeat"

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("build", "hatchling", "pip")),
    reason="needs build, hatchling and pip",
)


def done(*command: str | Path, cwd: Path) -> str:
    """Run a command to its end; its standard output."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "COVERAGE_PROCESS_START")
    env = {key: value for key, value in os.environ.items() if key not in hidden}
    result = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source with what is installed."""
    folder = tmp_path_factory.mktemp("wheel")
    done(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@dataclass(frozen=True)
class Installed:
    """An environment in which nothing is installed but the wheel."""

    folder: Path

    @property
    def scripts(self) -> Path:
        return self.folder / ("Scripts" if os.name == "nt" else "bin")

    @property
    def python(self) -> Path:
        return self.scripts / "python"


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    """The wheel in an environment of its own, which borrows the dependencies of this one.

    The borrowed folders are on the path but are no site folders, so that their .pth files, among them that
    of an editable install, mean nothing there.
    """
    env = Installed(tmp_path_factory.mktemp("environment"))
    venv.create(env.folder, with_pip=False, symlinks=os.name != "nt")
    pip = (sys.executable, "-m", "pip", "--python", env.python, "--disable-pip-version-check")
    done(*pip, "install", "--no-deps", "--no-index", "--no-compile", wheel, cwd=env.folder)
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    home = Path(done(env.python, "-c", code, cwd=env.folder).strip())
    borrowed = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    (home / "borrowed.pth").write_text("\n".join(borrowed) + "\n", encoding="utf-8")
    return env


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.endswith("/")]
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("/METADATA"))
    ours = {name for name in names if name.startswith("offbeat/")}
    info = f"offbeat-{offbeat.__version__}.dist-info/"
    assert all(name.startswith(info) for name in set(names) - ours)
    files = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert ours == {path.relative_to(PACKAGE.parent).as_posix() for path in files}
    assert {"offbeat/py.typed", "offbeat/cli/commands.py", "offbeat/algorithms/adsgd.py"} <= ours
    assert f"{info}licenses/LICENSE" in names
    assert f"Version: {offbeat.__version__}\n" in metadata
    assert "Requires-Python: >=3.11\n" in metadata


def test_the_environment_has_the_wheel_and_not_the_source(installed: Installed) -> None:
    code = "import offbeat, pathlib; print(pathlib.Path(offbeat.__file__).resolve())"
    where = Path(done(installed.python, "-c", code, cwd=installed.folder).strip())
    assert where.is_relative_to(installed.folder.resolve())
    assert not where.is_relative_to(ROOT.resolve())


def test_the_command_works_from_the_wheel(installed: Installed) -> None:
    command = ("compare", "--task", "quadratic", "--until", "2", "--json", "out.json", "--report", "out.html")
    out = done(installed.scripts / "offbeat", *command, cwd=installed.folder)
    assert "adsgd" in out
    record = json.loads((installed.folder / "out.json").read_text("utf-8"))
    assert record["offbeat"] == offbeat.__version__
    assert [run["algorithm"] for run in record["runs"]] == list(USUAL)
    assert "</html>" in (installed.folder / "out.html").read_text("utf-8")


def test_python_m_offbeat_is_offbeat(installed: Installed) -> None:
    out = done(installed.python, "-m", "offbeat", "--version", cwd=installed.folder)
    assert out == f"offbeat {offbeat.__version__}\n"
