"""
The other columns of a source, which go into the result as they are: what they are called, and of what kind they are.

A source whose format has no types, such as JSON, is looked at row by row while it is scanned, so that what a column
holds is known before anything is sent, and no value can come that its column has no room for. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import reduce
from typing import Any

import msgspec

from ..errors import ConfigurationError

JSON = "json"
"""The kind of values that only JSON has room for: objects, lists of them, integers of more than 64 bits, a mixture."""

_LIST = "[]"  # behind the kind of what is in it
_DEEPEST = 4  # lists within lists that have a type of their own
_EXACT = range(-(2**53), 2**53 + 1)  # integers that a float of 64 bits can be
_INT64 = range(-(2**63), 2**63)
_WIDER = {frozenset({"int", "long"}): "long", frozenset({"int", "float"}): "float"}
_KINDS: dict[type, str] = {type(None): "null", bool: "bool", float: "float", str: "text"}
_SURROGATE = re.compile("[\ud800-\udfff]")


class Kinds:
    """Finds out which columns rows have, and of what kind each is. Those of *names* are there in any case."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.columns: dict[str, str] = dict.fromkeys(names, "null")

    def add(self, row: Mapping[str, Any]) -> None:
        """Take in the columns of another *row*."""
        for name, value in row.items():
            known = self.columns.get(name)
            try:
                kind = _KINDS.get(type(value)) or kind_of(value)
            except RecursionError:
                kind = JSON
            if known is None:
                check_names((name,), taken=())
            if kind != known:
                self.columns[name] = kind if known is None else joined(known, kind)


def kind_of(value: Any) -> str:
    """Of what kind *value* is: null, bool, int, long, float, text, json; or one of these with ``[]`` for each list."""
    match value:
        case None | bool() | float() | str():
            return _KINDS[type(value)]
        case int():
            return "int" if value in _EXACT else "long" if value in _INT64 else JSON
        case list():
            inner = reduce(joined, {_KINDS.get(type(each)) or kind_of(each) for each in value}, "null")
            return JSON if inner == JSON or inner.count(_LIST) >= _DEEPEST else inner + _LIST
        case _:
            return JSON


def joined(one: str, other: str) -> str:
    """The kind that has room for both, without a loss."""
    if one == other or other == "null":
        return one
    if one == "null":
        return other
    if one.endswith(_LIST) and other.endswith(_LIST):
        inner = joined(one.removesuffix(_LIST), other.removesuffix(_LIST))
        return JSON if inner == JSON else inner + _LIST
    return _WIDER.get(frozenset({one, other}), JSON)


def check_names(names: Iterable[str], taken: Collection[str]) -> None:
    """Raise :class:`ConfigurationError` for *names* of columns that a result cannot have, or has *taken* itself."""
    seen: set[str] = set()
    for name in names:
        if not isinstance(name, str) or _SURROGATE.search(name):
            raise ConfigurationError(f"columns: {name!a} cannot be the name of a column")
        if name in seen:
            raise ConfigurationError(f"columns: {name!r} is named twice")
        if name in taken:
            raise ConfigurationError(
                f"columns: {name!r} is one of the result's own columns, {', '.join(sorted(taken))}. Name those "
                "that you want, without it; ids come from id_column (--id-column), texts with keep_text (--keep-text)"
            )
        seen.add(name)


def encode(value: Any) -> bytes:
    """*value* as JSON. A number that is not finite is null, and bytes are base64."""
    try:
        return msgspec.json.encode(value, enc_hook=_other)
    except UnicodeEncodeError:
        return msgspec.json.encode(cleaned(value), enc_hook=_other)


def writable(text: str) -> str:
    """*text* as it was sent: UTF-8 cannot carry a lone surrogate."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def cleaned(value: Any, clean: Callable[[str], str] = writable) -> Any:
    """*value* with each of its texts as *clean* makes it."""
    match value:
        case str():
            return clean(value)
        case list() | tuple():
            return [cleaned(each, clean) for each in value]
        case dict():
            return {cleaned(key, clean): cleaned(each, clean) for key, each in value.items()}
        case _:
            return value


def _other(value: Any) -> str:
    """What JSON and msgspec have no name for, as a text: a timestamp of pandas, for one."""
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
