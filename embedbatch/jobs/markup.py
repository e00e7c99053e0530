"""HTML and SVG from text that may hold anything. What it makes is well-formed XML as well. Pure."""

from __future__ import annotations

import re
from html import escape

_VOID = frozenset({"meta", "br"})
# What XML has no way to write; a surrogate cannot be encoded either.
_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|[\x7f-\x9f]")


class Markup(str):
    """Text that is markup already: it is not escaped again."""

    __slots__ = ()


def text(content: object) -> Markup:
    """Any text, as it is shown."""
    return content if isinstance(content, Markup) else Markup(escape(_FORBIDDEN.sub("\ufffd", str(content))))


def tag(name: str, /, *children: object, **attributes: object) -> Markup:
    """
    An element. Children that are no :class:`Markup` are text; ``None`` is nothing.

    Underscores in the names of attributes are hyphens, and one at the end is dropped: ``class_``, ``text_anchor``.
    """
    opened = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{text(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{opened}/>")
    return Markup(f"<{name}{opened}>{join(*children)}</{name}>")


def join(*children: object) -> Markup:
    """Several elements and texts after one another."""
    return Markup("".join(text(child) for child in children if child is not None))
