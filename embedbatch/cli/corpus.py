"""A real corpus that every machine has: the documentation of Python's own library."""

from __future__ import annotations

import ast
import sysconfig
from collections.abc import Iterator
from pathlib import Path

# Not the library itself: its tests, what it ships for its own tools, and what was installed on top of it.
_LEFT_OUT = {
    "dist-packages",
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "site-packages",
    "test",
    "tests",
    "turtledemo",
}


def library() -> Path:
    """Where this Python keeps its own library."""
    return Path(sysconfig.get_path("stdlib"))


def read_docstrings(folder: Path) -> dict[str, str]:
    """
    The docstrings in the modules below *folder*, by qualified name: modules, classes, functions and methods.

    Names that begin with an underscore are private, and left out. Files are parsed and not imported: importing some
    modules has effects, such as opening a browser.
    """
    docstrings: dict[str, str] = {}
    for path in sorted(folder.rglob("*.py")):
        name = _module_name(path.relative_to(folder))
        module = _parse(path) if name else None
        if name is None or module is None:
            continue
        for qualified_name, docstring in _docstrings(module, name):
            # One for each name: of two definitions, such as one for each platform, the first.
            docstrings.setdefault(qualified_name, docstring)
    return docstrings


def _module_name(path: Path) -> str | None:
    """The name of the module in *path*, ``None`` if it is private or not of the library."""
    parts = path.with_suffix("").parts
    if parts[-1] == "__init__":
        parts = parts[:-1]
    public = all(part.isidentifier() and not part.startswith("_") and part not in _LEFT_OUT for part in parts)
    return ".".join(parts) if public and parts else None


def _parse(path: Path) -> ast.Module | None:
    """The module in *path*, ``None`` if this Python cannot read it: such a file is not of its library."""
    try:
        return ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _docstrings(node: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, str]]:
    """The docstring of a module or a class called *name*, and of what is defined in it."""
    docstring = ast.get_docstring(node)
    if docstring:
        yield name, docstring
    for child in _definitions(node):
        if child.name.startswith("_"):
            continue
        if isinstance(child, ast.ClassDef):
            yield from _docstrings(child, f"{name}.{child.name}")
        elif docstring := ast.get_docstring(child):
            yield f"{name}.{child.name}", docstring


def _definitions(node: ast.AST) -> Iterator[ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef]:
    """What is defined directly in *node*, also under an ``if`` or a ``try``."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
        elif isinstance(child, ast.If | ast.Try | ast.ExceptHandler):
            yield from _definitions(child)
