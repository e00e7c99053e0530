"""
Counting the tokens of many texts at once.

A call of tiktoken costs 2 µs and a change of hands of the interpreter's lock. So short texts go into one call, with
a special token between them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .hf import HfTokenizer
from .splitting import CUT, END, END_ID
from .tokens import LazyTokenizer, QuickTokenizer, TiktokenTokenizer, Tokenizer

_TOGETHER = 500_000  # characters in one call, about: some 25 ms of work


def load(tokenizer: Tokenizer) -> Tokenizer:
    """*tokenizer*, or the one that it loads when it is first needed."""
    return tokenizer.load() if isinstance(tokenizer, LazyTokenizer) else tokenizer


def count_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The number of tokens in each of *texts*, where *tokenizer* is loaded."""
    if not isinstance(tokenizer, QuickTokenizer):
        return [tokenizer.count(text) for text in texts]
    counts = np.empty(len(texts), np.int64)
    for rows in _groups(texts):
        group = [texts[row] for row in rows]
        joined = END.join(group)
        if CUT in joined or joined.count(END) >= len(group):  # where it stands in a text it is ordinary text
            counts[rows] = [tokenizer.count(text) for text in group]
        else:
            tokens = tokenizer.encode_parts(joined)
            ends = np.flatnonzero(tokens == END_ID)
            counts[rows] = np.diff(ends, prepend=-1, append=len(tokens)) - 1
    return counts.tolist()


def bears_threads(tokenizer: Tokenizer) -> bool:
    """True if several threads may count at once. A tokenizer that a caller hands in need not bear that."""
    return isinstance(tokenizer, LazyTokenizer | TiktokenTokenizer | HfTokenizer)


def _groups(texts: Sequence[str]) -> Iterator[list[int]]:
    """Which of *texts* go together: as many as are worth a call and do not fill the memory, of ASCII or with others."""
    for is_ascii in (True, False):
        rows: list[int] = []
        characters = 0
        for row, text in enumerate(texts):
            if text.isascii() is is_ascii:
                rows.append(row)
                characters += len(text)
                if characters >= _TOGETHER:
                    yield rows
                    rows, characters = [], 0
        if rows:
            yield rows
