"""Rules of the house that a reader could check by looking, checked by looking."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import embedbatch

ROOT = Path(__file__).parents[2]
MAX_LINES_OF_A_FILE = 400
MAX_LINES_OF_A_FUNCTION = 60
# The ways to patch; respx's global router, which patches httpx's transport for everybody, is one of them.
PATCHING = {"MonkeyPatch", "mock", "mocker", "monkeypatch", "patch", "pytest_mock", "respx_mock", "unittest.mock"}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(folder: str) -> Iterator[tuple[str, str]]:
    """Each Python file below *folder*: its path from the root, and its text."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        yield path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")


def nodes(folder: str) -> Iterator[tuple[str, ast.AST]]:
    """Each syntax node below *folder*, and the file it stands in."""
    for path, text in sources(folder):
        for node in ast.walk(ast.parse(text)):
            yield path, node


def functions(folder: str) -> Iterator[tuple[str, Function]]:
    """Each function and method below *folder*, and where it stands."""
    for path, node in nodes(folder):
        if isinstance(node, Function):
            yield f"{path}:{node.lineno} {node.name}", node


def lines(node: ast.stmt) -> int:
    """How many lines *node* takes; a function's decorators are not among them."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def length(function: Function) -> int:
    """The lines of *function* without its docstring: explaining makes nothing longer."""
    return lines(function) - (lines(function.body[0]) if ast.get_docstring(function) else 0)


def names(node: ast.AST) -> set[str]:
    """What *node* itself calls by name: a variable, an argument, an attribute, what is imported and from where."""
    match node:
        case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name) | ast.alias(name=name):
            return {name}
        case ast.ImportFrom(module=str(module)):
            return {module}
    return set()


def assert_none(offenders: list[str]) -> None:
    """Fail with one line for each offender."""
    assert not offenders, "\n".join(["", *offenders])


def test_the_guards_look_at_the_whole_package() -> None:
    """
    The files that the rules below are checked on are there: a moved folder must not make every rule hold.
    """
    assert {"embedbatch/__init__.py", "embedbatch/pipeline.py"} <= dict(sources("embedbatch")).keys()
    assert Path(__file__).relative_to(ROOT).as_posix() in dict(sources("tests"))


@pytest.mark.parametrize("folder", ["embedbatch", "tests", "benchmarks"])
def test_no_file_is_longer_than_400_lines(folder: str) -> None:
    """
    A file has at most 400 lines, so that it can be read in one sitting.
    """
    lengths = {path: len(text.splitlines()) for path, text in sources(folder)}

    assert_none([f"{path}: {count} lines" for path, count in lengths.items() if count > MAX_LINES_OF_A_FILE])


def test_no_function_of_the_package_is_longer_than_60_lines() -> None:
    """
    A function of the package has at most 60 lines, its docstring not counted.
    """
    lengths = {place: length(function) for place, function in functions("embedbatch")}

    assert_none([f"{place}: {count} lines" for place, count in lengths.items() if count > MAX_LINES_OF_A_FUNCTION])


def test_no_test_patches_anything() -> None:
    """
    Tests use constructor arguments: where one would have to patch, a seam is missing.
    """
    patches = [(path, node, names(node) & PATCHING) for path, node in nodes("tests")]

    assert_none([f"{path}:{getattr(node, 'lineno', 1)} {name}" for path, node, found in patches for name in found])


def test_every_test_states_its_claim() -> None:
    """
    Every test function has a docstring, which says what it claims.
    """
    tests = [(place, function) for place, function in functions("tests") if function.name.startswith("test_")]

    assert_none([f"{place} has no docstring" for place, function in tests if not ast.get_docstring(function)])


def test_all_lists_the_visible_names() -> None:
    """
    `embedbatch.__all__` is what `dir(embedbatch)` shows without underscores and submodules, each name once.
    """
    public = {name: getattr(embedbatch, name) for name in dir(embedbatch) if not name.startswith("_")}
    public.pop("annotations", None)  # from __future__ import annotations
    visible = [name for name, value in public.items() if not isinstance(value, ModuleType)]

    assert sorted(name for name in embedbatch.__all__ if not name.startswith("_")) == sorted(visible)
