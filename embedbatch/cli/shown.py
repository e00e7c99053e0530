"""Words on a terminal: what may stand there, and in how much room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


def printable(text: str) -> str:
    """*text* without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def shortened(text: str, longest: int = 120) -> str:
    """The beginning of *text*, *longest* characters at most, in one line and printable."""
    line = " ".join(printable(text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


@contextmanager
def telling(words: str) -> Iterator[Callable[[str], object]]:
    """Shows *words* on stderr, where that is a terminal, and then what is told to the value of the block."""
    from rich.console import Console  # a search shows no such thing, and should be quick

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda words: None
        return
    with console.status(words) as status:
        yield status.update
