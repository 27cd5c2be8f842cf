"""What the pages name is there: files, folders, modules and what is in them; the picture is of today."""

import re
from functools import cache
from importlib import import_module

import pytest
import reproduced
from algorithms_page import PAGE, page
from concept_pictures import drawn
from picture import PICTURE, picture
from rooms import PATHS, SOURCE

import offbeat

ROOT = SOURCE.parent
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "tests/README.md",
    *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")),
]
PLACES = (ROOT, SOURCE, SOURCE / "offbeat", ROOT / "tests")
SUFFIXES = r"py|c|md|toml|svg|png|jsonl"
MADE = re.compile(
    r"build/|(\w+-)?(out|results|live|grid|train|script|random|trace|agent|run|report|model|metrics|mine|FILE)\b"
)
"""How files begin that are the reader's own, or that a command writes."""


@cache
def text(page: str) -> str:
    """Without the blocks of code, which are run elsewhere."""
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def there(name: str, page: str) -> bool:
    """From the root, the source or the tests; or beside the page."""
    return any((place / name).exists() for place in (*PLACES, (ROOT / page).parent))


def known(dotted: str) -> bool:
    """`offbeat.core.agent`, `offbeat.world.delays.FAMILIES`."""
    words = dotted.split(".")
    longest = max(k for k in range(1, len(words) + 1) if ".".join(words[:k]) in PATHS)
    value: object = import_module(".".join(words[:longest]))
    for word in words[longest:]:
        if not hasattr(value, word):
            return False
        value = getattr(value, word)
    return True


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page: str) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text(page))
    missing = [link for link in links if "://" not in link and not ((ROOT / page).parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES)
def test_paths_that_are_named_are_there(page: str) -> None:
    """In code, with a suffix of ours or a slash at the end."""
    code = " ".join(re.findall(r"`([^`]+)`", text(page)))
    paths = re.findall(rf"(?<![\w./-])((?:[\w.-]+/)*[\w.+-]+\.(?:{SUFFIXES})|(?:[\w.-]+/)+)(?![\w/*<])", code)
    assert [path for path in paths if not there(path, page) and not MADE.match(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_names_of_offbeat_are_there(page: str) -> None:
    names = re.findall(r"\boffbeat(?:\.[A-Za-z_]\w*)+", text(page))
    assert [
        name for name in names if name.rsplit(".", 1)[1] not in ("toml", "yaml") and not known(name)
    ] == []


def test_the_picture_of_the_rooms_is_of_today() -> None:
    """`make docs` draws it again."""
    assert PICTURE.read_text("utf-8") == picture()


@pytest.mark.usefixtures("usually_evaluated")
def test_the_page_of_the_algorithms_is_of_today() -> None:
    """`make docs` writes it again."""
    assert PAGE.read_text("utf-8") == page()


@pytest.mark.usefixtures("usually_evaluated")
def test_the_pictures_of_the_concepts_are_of_today() -> None:
    """`make docs` draws them again."""
    assert {path.name: text for path, text in drawn().items() if path.read_text("utf-8") != text} == {}


def test_the_site_leads_to_every_page() -> None:
    """By the lists of docs/index.md and docs/api/index.rst; `make docs` fails on what is in none, too."""
    pages = re.findall(
        r"^```{toctree}\n(.*?)^```", (ROOT / "docs/index.md").read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    listed = {line for block in pages for line in block.splitlines()}
    assert {path.stem for path in ROOT.glob("docs/*.md")} - {"index"} <= listed
    assert {f"   {path.stem}" for path in ROOT.glob("docs/api/*.rst")} - {"   index"} <= {
        *(ROOT / "docs/api/index.rst").read_text("utf-8").splitlines()
    }


def test_every_public_name_is_in_the_api_reference() -> None:
    text = "".join(path.read_text("utf-8") for path in ROOT.glob("docs/api/*.rst"))
    named = {
        name.rsplit(".", 1)[-1]
        for name in re.findall(r"^\.\. (?:auto\w+|data):: ([\w.]+)", text, re.MULTILINE)
    }
    rooms = {name for name in offbeat.__all__ if f"offbeat.{name}" in PATHS}
    assert {*offbeat.__all__} - rooms - {"__version__"} <= named
    dotted = re.findall(r"^\.\. auto\w+:: (offbeat\.[\w.]+)", text, re.MULTILINE)
    assert [name for name in dotted if not known(name)] == []


@pytest.mark.usefixtures("usually_evaluated")
@pytest.mark.parametrize("name", reproduced.PAGES)
def test_the_page_of_an_evaluation_is_that_of_its_runs(name: str) -> None:
    """`make docs` writes it again, and its figures."""
    path = reproduced.FOLDER / f"{name}.md"
    assert path.read_text("utf-8") == reproduced.page(reproduced.reproduction(name))
