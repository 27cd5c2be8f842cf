"""Docstrings as the API reference can show them: arguments and attributes stand in sections."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from itertools import dropwhile, takewhile

from rooms import modules

ENTRY = re.compile(r"(?P<names>\w+(?:, ?\w+)*): +\S")
COLUMNS = re.compile(r"\S+(?:, \S+)* {2,}\S")
SECTIONS = ("Args:", "Attributes:")

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[str]:
    a = node.args
    return {arg.arg for arg in (*a.posonlyargs, *a.args, *a.kwonlyargs, a.vararg, a.kwarg) if arg is not None}


@cache
def known(node: Documented) -> set[str]:
    """The names that a docstring may say something of: parameters; of a class, its fields and properties."""
    if not isinstance(node, ast.ClassDef):
        return parameters(node)
    names = {
        n.target.id for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
    }
    names |= {
        n.attr
        for n in ast.walk(node)
        if isinstance(n, ast.Attribute) and isinstance(n.value, ast.Name) and n.value.id == "self"
    }
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    return (
        names
        | {n.name for n in methods}
        | {p for n in methods if n.name == "__init__" for p in parameters(n)}
    )


def documented(tree: ast.AST) -> Iterator[tuple[Documented, list[str]]]:
    for node in ast.walk(tree):
        if isinstance(node, Documented) and (docstring := ast.get_docstring(node)):
            yield node, docstring.splitlines()


def outside(node: Documented, lines: list[str]) -> list[str]:
    """Lines that say something of a name of this class or function, though they are in no section."""
    names = known(node)
    found = [(line, ENTRY.match(line)) for line in lines]
    return [line for line, entry in found if entry and set(re.split(", ?", entry["names"])) & names]


def section(lines: list[str]) -> list[str]:
    """The lines of a section: all that are indented; so an example that follows it, too."""
    body = list(dropwhile(lambda line: line not in SECTIONS, lines))[1:]
    return list(takewhile(lambda line: not line or line.startswith(" "), body))


def wrong(node: Documented, lines: list[str]) -> list[str]:
    """Lines of a section that say something of no name, or of one that is not there."""
    begun = [line[4:] for line in section(lines) if line[4:5].strip()]
    more = not isinstance(node, ast.ClassDef) and node.args.kwarg is not None
    entries = [(line, ENTRY.match(line)) for line in begun]
    return [
        line for line, e in entries if not e or not (more or set(re.split(", ?", e["names"])) <= known(node))
    ]


def test_what_is_said_of_arguments_and_attributes_stands_in_sections() -> None:
    """In Google's style, "Args:" and "Attributes:", by four spaces: Sphinx shows anything else
    as one paragraph. What a section names is there; an example stands before it.
    """
    every = [(m.name, *found) for m in modules() for found in documented(m.tree)]
    assert len(every) > 1000
    in_no_section = {(name, node.name): lines for name, node, text in every if (lines := outside(node, text))}
    of_nothing = {(name, node.name): lines for name, node, text in every if (lines := wrong(node, text))}
    assert (in_no_section, of_nothing) == ({}, {})


def test_nothing_is_aligned_in_columns_that_the_api_reference_runs_together() -> None:
    """A list has bullets, or it is indented, as code."""
    found = [
        (module.name, line)
        for module in modules()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Module | Documented)
        for line in (ast.get_docstring(node) or "").splitlines()
        if COLUMNS.match(line)
    ]
    assert found == []


def test_the_style_of_before_is_noticed() -> None:
    fields = "    size: int\n    x: int\n"
    before = f"class A:\n    '''A.\n\n    size:   how large\n    x, y:   where\n    '''\n{fields}"
    section = "    Attributes:\n        size: how large\n        gone: what\n\n        code()\n"
    now = f"class A:\n    '''A.\n\n{section}    '''\n{fields}"
    (one,), (other,) = documented(ast.parse(before)), documented(ast.parse(now))
    assert COLUMNS.match("size:   how large") and not COLUMNS.match("    code  # as it is")
    assert outside(*one) == ["size:   how large", "x, y:   where"]
    assert (outside(*other), wrong(*other)) == ([], ["gone: what", "code()"])
