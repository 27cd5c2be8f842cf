"""Code of the user's own that is named by its file: how it is read, loaded, blamed, and what a version is."""

import hashlib
import pickle
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from offbeat.core.errors import SettingError
from offbeat.core.system import own
from offbeat.core.system.named import Own, separated

THING = "a thing"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    path, loaded = [*sys.path], {*sys.modules}
    yield tmp_path
    sys.path[:] = path
    for name in {*sys.modules} - loaded:
        if Path(getattr(sys.modules[name], "__file__", None) or "").is_relative_to(tmp_path):
            del sys.modules[name]


def loaded(text: str) -> Any:
    named = Own.parse(text)
    assert named is not None
    return own.load(named, THING)


def made(text: str, **offered: Any) -> Any:
    named = Own.parse(text)
    assert named is not None
    return own.made(named, offered, THING)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("adsgd,dsgd:after", ["adsgd", "dsgd:after"]),
        ("a.py:A(h=1, k=[2, 3]),b.py:B", ["a.py:A(h=1, k=[2, 3])", "b.py:B"]),
        ("a.py:A(s='),('),b", ["a.py:A(s='),(')", "b"]),
        ('"a b,c/m.py:M(k=[1, 2])",adsgd', ['"a b,c/m.py:M(k=[1, 2])"', "adsgd"]),
        (r"a.py:A(s='\'),'),it's.py:B,c", [r"a.py:A(s='\'),')", "it's.py:B", "c"]),
    ],
)
def test_commas_within_parentheses_and_quotes_do_not_separate(text: str, parts: list[str]) -> None:
    assert separated(text) == parts


@pytest.mark.parametrize("text", ["adsgd", "dsgd:after", "random-regular:4", "graph.csv", "py:A"])
def test_other_names_name_no_file(text: str) -> None:
    assert Own.parse(text) is None


def test_a_name_is_written_as_it_is_read() -> None:
    text = "a b/c.py.d/e.py:F(h=10, s='x,y', k=(1, -2.5), n=None)"
    named = Own.parse(text)
    assert named is not None and (named.file, named.name) == ("a b/c.py.d/e.py", "F")
    assert str(named) == text and str(named.elsewhere()) == str(Path.cwd() / text)
    assert Own.parse(str(named)) == named


@pytest.mark.parametrize("text", ["a.py", "a.py:", "a.py:B-C", "a.py:B.C", "a.py:B()c"])
def test_what_names_nothing_in_a_file_is_refused(text: str) -> None:
    with pytest.raises(SettingError, match=r"a\.py; expected FILE\.py:NAME"):
        Own.parse(text)


@pytest.mark.parametrize(
    "options", ["1", "h", "h=k", "h=f()", "**{}", "*[]", "h=1,h=2", "h=1+", ")(", "h=1)(k=2"]
)
def test_options_are_literals_by_keyword_and_nothing_is_evaluated(options: str) -> None:
    with pytest.raises(SettingError, match="Cannot read the options"):
        Own.parse(f"a.py:B({options})")


def test_a_file_is_executed_once_with_its_folder_importable(folder: Path) -> None:
    (folder / "below").mkdir()
    (folder / "below" / "a.py").write_text("import beside\ncount = beside.count\n\nclass A:\n    pass\n")
    (folder / "below" / "beside.py").write_text("count = [0]\ncount[0] += 1\n")
    first = loaded("below/a.py:count")
    assert loaded(f"{folder}/below/a.py:count") is first == [1]
    assert not (folder / "below" / "__pycache__").exists()
    assert sys.path[0] != str(folder / "below")
    assert isinstance(pickle.loads(pickle.dumps(loaded("below/a.py:A")())), loaded("below/a.py:A"))


def test_a_file_that_has_changed_is_loaded_anew_with_what_it_imports(folder: Path) -> None:
    (folder / "a.py").write_text("import changing\nx = changing.x\n")
    (folder / "changing.py").write_text("x = 1\n")
    assert loaded("a.py:x") == 1
    (folder / "changing.py").write_text("x = 2\n")
    assert loaded("a.py:x") == 2


def test_a_version_is_what_sha256sum_says(folder: Path) -> None:
    (folder / "a.py").write_text("x = 1\n")
    alone = hashlib.sha256(b"x = 1\n").hexdigest()
    assert own.version("a.py") == alone
    (folder / "b.py").write_text("import os\nfrom a import x\n")
    both = f"{alone}  a.py\n{hashlib.sha256((folder / 'b.py').read_bytes()).hexdigest()}  b.py\n"
    assert own.version("b.py") == hashlib.sha256(both.encode()).hexdigest()


def test_what_is_pinned_stays_what_it_was_or_is_refused(folder: Path) -> None:
    (folder / "a.py").write_text("x = 1\n")
    with own.pinned(["a.py"]) as code:
        assert loaded("a.py:x") == 1
        (folder / "a.py").write_text("x = 2\n")
        assert loaded("a.py:x") == 1  # it is here already
        assert own.version("a.py") == code["a.py"]
    assert loaded("a.py:x") == 2
    with own.pinned(["a.py"], code):
        assert loaded("a.py:x") == 1
    with own.pinned(["a.py"], {"a.py": "0" * 64}), pytest.raises(SettingError, match="has changed"):
        loaded("a.py:x")
    with pytest.raises(SettingError, match=r"a\.py, or what it imports from its folder, has changed"):
        own.together(code, {"a.py": own.version("a.py")})


def test_two_files_of_one_name_are_not_mixed(folder: Path) -> None:
    for name in "ab":
        (folder / name).mkdir()
        (folder / name / f"{name}.py").write_text("import shared\nx = shared.x\n")
        (folder / name / "shared.py").write_text(f"x = '{name}'\n")
    assert loaded("a/a.py:x") == "a"
    with pytest.raises(SettingError, match="have one name, and Python holds one module of a name"):
        loaded("b/b.py:x")


def test_globals_of_randomness_are_the_same_everywhere_and_left_alone(folder: Path) -> None:
    lines = "import random\nimport numpy\nimport torch\n\n\ndef f(seed=None):\n"
    (folder / "a.py").write_text(
        f"{lines}    return random.random(), numpy.random.rand(), float(torch.rand(1))\n"
    )
    first = made("a.py:f", seed=3)
    import torch

    before = torch.get_rng_state()
    assert made("a.py:f", seed=3) == first != made("a.py:f", seed=4)
    assert torch.equal(torch.get_rng_state(), before)


FAULTY = """import json

def crash(n):
    return json.loads("{" * n)

def deep():
    return helper()

def helper():
    return 1 / 0

def needy(n, depth): ...

def free(**options):
    return options

value = 3
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no.py:f", r"^Cannot read no\.py \(in .*\): No such file or directory\. Expected"),
        ("a.py:crush", r"^a\.py has no 'crush', where a thing was expected\. Did you mean 'crash'\?"),
        ("a.py:zzz", r"It has crash, deep, helper, needy, free\."),
        ("a.py:crash", r"^a\.py:crash: a\.py, line 4, in crash: JSONDecodeError: .* Expected a thing\.$"),
        ("a.py:deep", r"^a\.py:deep: a\.py, line 10, in helper: ZeroDivisionError: division by zero\."),
        (
            "a.py:needy",
            r"needs 'depth'; expected a\.py:needy\(depth=\.\.\.\), or a default.*without that: n\.",
        ),
        ("a.py:crash(depth=2)", r"there is no option 'depth'; it takes n\."),
        ("a.py:crash(n=2)", r"'n' is a setting of the experiment; expected --n instead"),
        ("a.py:value(h=1)", r"is a int, and takes no options; expected a thing"),
        ("syntax.py:f", r"^Cannot load syntax\.py: syntax\.py, line 2: SyntaxError"),
        ("missing.py:f", r"^Cannot load missing\.py: missing\.py, line 1: ModuleNotFoundError: No module"),
        ("leaves.py:f", r"^Cannot load leaves\.py: leaves\.py, line 2: SystemExit: 3"),
        ("imports.py:f", r"^Cannot load imports\.py: syntax\.py, line 2: SyntaxError"),
    ],
)
def test_faults_are_said_with_file_and_line(text: str, said: str, folder: Path) -> None:
    (folder / "a.py").write_text(FAULTY)
    (folder / "syntax.py").write_text("x = 1\ndef f(:\n")
    (folder / "missing.py").write_text("import no_such_module_at_all\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(3)\n")
    (folder / "imports.py").write_text("import syntax\n")
    with pytest.raises(SettingError, match=said):
        made(text, n=2)


def test_a_function_that_takes_everything_gets_what_it_is_given(folder: Path) -> None:
    (folder / "a.py").write_text(FAULTY)
    assert made("a.py:free(h=[1, 2])", n=2) == {"h": [1, 2]}
