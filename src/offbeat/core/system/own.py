"""The user's own code, named FILE.py:NAME or FILE.py:NAME(h=10): loaded here, and nowhere else.

    load(Own.parse("mine.py:Mine"), "an algorithm")              # what NAME is in FILE
    made(Own.parse("mine.py:f(k=3)"), {"seed": 0}, "a task")     # or what it gives when it is called

A file is executed once a process, with its folder importable. Its *version* is the SHA-256 of its bytes or,
if it imports others from its folder, of the lines "SHA-256  name" of them all, by rising name, which is what
`sha256sum *.py | sha256sum` says. Within `pinned` files have one version: a file that has changed is taken as
it was loaded, and refused if it was not.
"""

import ast
import hashlib
import importlib
import inspect
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

from offbeat.core.errors import OffbeatError, SettingError
from offbeat.core.system.named import Own, called
from offbeat.core.system.reading import content
from offbeat.core.system.streams import seeded

LARGEST = 100_000_000  # bytes of a file with source

_pins: ContextVar[Mapping[Path, str]] = ContextVar("pins", default=MappingProxyType({}))
_modules: dict[tuple[Path, str], ModuleType] = {}
_executed: dict[Path, str] = {}
"""Of every file that was executed, the SHA-256 of its bytes then."""


# -- versions --------------------------------------------------------------------------------------


@contextmanager
def pinned(files: Iterable[str], known: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """In here these files are of one version each: what is `known`, or pinned already, or that of now.

    Yields file -> version. Raises SettingError for a file that is not there.
    """
    before, known = _pins.get(), known or {}
    found = {file: known.get(file) or version(file) for file in files}
    token = _pins.set({**before, **{_path(file): each for file, each in found.items()}})
    try:
        yield found
    finally:
        _pins.reset(token)


def together(*codes: Mapping[str, str]) -> dict[str, str]:
    """File -> version of all of these. Raises SettingError if a file is there in two versions."""
    found: dict[str, str] = {}
    for code in codes:
        for file, each in code.items():
            _refuse_changed(file, found.setdefault(file, each), each)
    return found


def version(file: str) -> str:
    """The version of a file: what it is pinned to, or as it is now."""
    return _pins.get().get(_path(file)) or _version(_sources(_path(file), file))


def data(file: str) -> bytes:
    """The bytes of a file that is not executed. SettingError if it is not there, or has changed."""
    sources = _sources(_path(file), file)
    _refuse_changed(file, _pins.get().get(_path(file)), _version(sources))
    return sources[_path(file)]


def refuse_changed(files: Iterable[str]) -> None:
    """Raise SettingError for a file that is not as it is pinned."""
    for file in files:
        data(file)


def of_versions(code: Mapping[str, str], said: Mapping[str, str]) -> bool:
    """Whether what was made of `code`, file -> version, is of the versions that are said of these files."""
    return all(said.get(file, each) == each for file, each in code.items())


def _path(file: str) -> Path:
    return Path(file).resolve()


def _version(sources: Mapping[Path, bytes]) -> str:
    sums = {path: hashlib.sha256(source).hexdigest() for path, source in sources.items()}
    if len(sums) == 1:
        return next(iter(sums.values()))
    folder = next(iter(sums)).parent
    named = sorted((path.relative_to(folder).as_posix(), each) for path, each in sums.items())
    return hashlib.sha256("".join(f"{each}  {name}\n" for name, each in named).encode()).hexdigest()


def _refuse_changed(file: str, wanted: str | None, found: str) -> None:
    if wanted not in (None, found):
        more = ", or what it imports from its folder," * file.endswith(".py")
        sums = f"its SHA-256 was {str(wanted)[:12]}..., and is {found[:12]}... now"
        do = "Results of two versions are not mixed: restore it, or start anew"
        raise SettingError(f"{file}{more} has changed: {sums}. {do}.")


def _sources(path: Path, file: str) -> dict[Path, bytes]:
    """A file and, if it is Python's, those that it imports from its folder, directly or not."""
    found, waiting = dict[Path, bytes](), [path]
    while waiting:
        each = waiting.pop()
        if each in found:
            continue
        try:
            found[each] = content(each, *[LARGEST] * (each.suffix == ".py"))
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or str(error)
            where = "" if Path(file).is_absolute() else f" (in {Path.cwd()})"
            raise SettingError(
                f"Cannot read {file}{where}: {why}. Expected a file that can be read."
            ) from None
        if each.suffix == ".py":
            waiting += _imported(found[each], each, path.parent)
    return found


def _imported(source: bytes, path: Path, folder: Path) -> Iterator[Path]:
    """The files in the folder that this source may import."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):  # which is said when it is executed
        return
    for node in ast.walk(tree):
        names, base = list[str](), folder
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            head = [node.module] if node.module else []
            names = [".".join([*head, alias.name]) for alias in node.names]
            base = path.parents[node.level - 1] if 0 < node.level <= len(path.parents) else folder
        for name in names:
            parts = name.split(".")
            for k in range(1, len(parts) + 1):
                at = base.joinpath(*parts[:k])
                yield from (
                    each for each in (at.with_name(f"{at.name}.py"), at / "__init__.py") if each.is_file()
                )


# -- loading ---------------------------------------------------------------------------------------


def load(own: Own, expected: str) -> Any:
    """What NAME is in FILE, not called. Raises SettingError, with the line of the fault."""
    module = _module(own.file)
    if own.name in vars(module):
        return vars(module)[own.name]
    there = [
        name for name, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__
    ]
    near = get_close_matches(own.name, there, n=1)
    hint = f" Did you mean '{near[0]}'?" if near else f" It has {', '.join(there) or 'nothing'}."
    raise SettingError(f"{own.file} has no '{own.name}', where {expected} was expected.{hint}")


def made(own: Own, offered: Mapping[str, Any], expected: str) -> Any:
    """What NAME in FILE gives when it is called with its options, and with what it names of `offered`.

    Raises SettingError for options that it does not take, and with the line of the fault for what it raises.
    """
    function: Callable[..., Any] = load(own, expected)
    if not callable(function):
        raise SettingError(
            f"{own} is a {type(function).__name__}, and takes no options; expected {expected}."
        )
    takes, every = parameters(function)
    for name in own.options:
        if name in offered:
            raise SettingError(f"{own}: '{name}' is a setting of the experiment; expected --{name} instead.")
        if name not in takes and not every:
            raise SettingError(f"{own}: there is no option '{name}'; it takes {', '.join(takes) or 'none'}.")
    given = {name: value for name, value in offered.items() if name in takes}
    if missing := [name for name, needed in takes.items() if needed and name not in {*given, *own.options}]:
        ready = f" What it may name without that: {', '.join(offered)}." if offered else ""
        say = called({**own.options, missing[0]: ...}).replace("Ellipsis", "...")
        advice = f"expected {own.file}:{own.name}{say}, or a default"
        raise SettingError(f"{own} needs '{missing[0]}'; {advice}.{ready}")
    with blamed(str(own), own.file, expected), seeded(given.get("seed", 0)):
        return function(**own.options, **given)


def parameters(function: Callable[..., Any]) -> tuple[dict[str, bool], bool]:
    """What it takes by keyword, and whether it must be given; and whether it takes any keyword."""
    try:
        found = inspect.signature(function).parameters.values()
    except (ValueError, TypeError):
        return {}, True
    kinds = inspect.Parameter
    named = [each for each in found if each.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY)]
    every = any(each.kind is kinds.VAR_KEYWORD for each in found)
    return {each.name: each.default is kinds.empty for each in named}, every


@contextmanager
def blamed(what: str, file: str, expected: str) -> Iterator[None]:
    """What is raised here is the fault of the user's code in this file: SettingError, with the line."""
    try:
        yield
    except OffbeatError:
        raise
    except (Exception, SystemExit) as error:
        raise SettingError(f"{what}: {fault(error, file)}. Expected {expected}.") from error


def fault(error: BaseException, file: str) -> str:
    """The line of a file, or of one below its folder, that raised this, and what it was."""
    path = _path(file)
    said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    what = f"{type(error).__name__}: {said}".removesuffix(": ").rstrip(".")
    lines = [(each.filename, each.lineno, each.name) for each in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno, "<module>"))
    for name, line, function in reversed(lines):
        if Path(name).is_relative_to(path.parent):
            shown = file if Path(name) == path else Path(name).relative_to(path.parent)
            return f"{shown}, line {line}{f', in {function}' * (function[0] != '<')}: {what}"
    return what


def _module(file: str) -> ModuleType:
    path = _path(file)
    wanted = _pins.get().get(path)
    if wanted is None or (path, wanted) not in _modules:
        sources = _sources(path, file)
        found = _version(sources)
        _refuse_changed(file, wanted, found)
        if (path, found) not in _modules:
            _modules[path, found] = _execute(file, path, sources, found)
        wanted = found
    return _modules[path, wanted]


def _execute(file: str, path: Path, sources: Mapping[Path, bytes], version: str) -> ModuleType:
    """A module of these bytes, under a name that its version has in every process, for pickles.

    What it imports from its folder is imported again if it has changed since.
    """
    _make_way(sources, path)
    name = f"{path.stem}_{hashlib.sha256(f'{path} {version}'.encode()).hexdigest()[:8]}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    folder, writes = str(path.parent), sys.dont_write_bytecode
    sys.path.insert(0, folder)  # first, as for a script; afterwards last, so that nothing of ours is hidden
    sys.dont_write_bytecode = True
    importlib.invalidate_caches()
    try:
        with blamed(f"Cannot load {file}", file, "a file that can be imported"), seeded(0):
            exec(compile(sources[path], str(path), "exec"), vars(module))
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.dont_write_bytecode = writes
        sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)
    return module


def _make_way(sources: Mapping[Path, bytes], path: Path) -> None:
    """Forget modules of these files that are of older bytes. SettingError if another file has one's name."""
    sums = {each: hashlib.sha256(source).hexdigest() for each, source in sources.items()}
    changed = any(_executed.get(each, found) != found for each, found in sums.items())
    beside = {each.name for each in sums if each not in (path, path.with_name("__init__.py"))}
    for name, module in list(sys.modules.items()):
        at = Path(getattr(module, "__file__", None) or "")
        if name == "__main__" or module in _modules.values():
            continue
        if at in sums and changed:
            del sys.modules[name]
        elif at in _executed and at not in sums and at.name in beside:
            held = "and Python holds one module of a name"
            raise SettingError(
                f"{path.with_name(at.name)} and {at} have one name, {held}. Rename one of them."
            )
    _executed.update(sums)
