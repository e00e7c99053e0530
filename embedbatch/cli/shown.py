"""Words on a terminal: what may stand there, and in how much room."""

from __future__ import annotations


def printable(text: str) -> str:
    """*text* without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def shortened(text: str, longest: int = 120) -> str:
    """The beginning of *text*, *longest* characters at most, in one line and printable."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
