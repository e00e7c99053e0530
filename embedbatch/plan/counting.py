"""
The tokens of cl100k_base, faster than tiktoken finds them alone, and of many texts at once.

Two things cost more than the work itself. The split pattern looks ahead in one place, ``\\s+(?!\\S)``, and for that one
the whole pattern runs on an engine that can go back. It is needed only where three or more white-space characters,
none of which ends a line, stand before something else: all but the last are one piece. Here such a stretch is taken
out beforehand, as a text of its own, and the rest of the pattern runs on an engine that never goes back.

And a call of tiktoken costs 2 µs and a change of hands of the interpreter's lock. So short texts go into one call.

What keeps texts apart in a call is a special token, which ends whatever the pattern would match.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from . import vocabulary
from .hf import HfTokenizer
from .tokens import LazyTokenizer, TiktokenTokenizer, Tokenizer

if TYPE_CHECKING:
    import tiktoken

# vocabulary.PATTERN without `\s+(?!\S)`, and without possessive quantifiers: each of them is followed by nothing that
# it could give a character to, so that greedy ones match the same.
PATTERN = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+$|\s*[\r\n]|\s"

_END, _CUT = "<|endoftext|>", "<|fim_prefix|>"  # behind a text, and around a stretch of white space
_END_ID, _CUT_ID = vocabulary.SPECIAL_TOKENS[_END], vocabulary.SPECIAL_TOKENS[_CUT]

# White space as the pattern has it, which is Unicode's: Python counts four control characters as well. Two or more of
# it, before one more and what is neither white space nor the end of a text. That a stretch is looked at from its
# beginning only (looking back from behind its first characters, where the search is still fast) keeps the time linear.
_SPACE = r"\t\v\f \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
_NO_END = rf"(?!{re.escape(_END)})"
_STRETCH = re.compile(rf"([{_SPACE}](?<![{_SPACE}][{_SPACE}])[{_SPACE}]+)(?=[{_SPACE}]{_NO_END}[^{_SPACE}\r\n])")
# The same where there is no white space but spaces and ends of lines, at two to four times the speed.
_SPACES = re.compile(rf"(  (?<!   ) *)(?= {_NO_END}[^ \r\n])")

_TOGETHER = 500_000  # characters in one call, about: some 25 ms of work


class QuickTokenizer(TiktokenTokenizer):
    """cl100k_base: the same tokens in a half to two thirds of the time. Its own tables take 20 MB and 0.1 s."""

    def __init__(self, encoding: tiktoken.Encoding) -> None:
        super().__init__(encoding, splits_like_cl100k=True)
        self._quick = type(encoding)(
            encoding.name,
            pat_str=PATTERN,
            mergeable_ranks=encoding._mergeable_ranks,
            special_tokens=vocabulary.SPECIAL_TOKENS,
        )

    def count_all(self, texts: Sequence[str]) -> list[int]:
        """The number of tokens in each of *texts*."""
        counts = np.empty(len(texts), np.int64)
        for rows in _groups(texts):
            group = [texts[row] for row in rows]
            joined = _END.join(group)
            if _CUT in joined or joined.count(_END) >= len(group):  # where it stands in a text it is ordinary text
                counts[rows] = [self.count(text) for text in group]
            else:
                tokens = self._encode_parts(joined)
                ends = np.flatnonzero(tokens == _END_ID)
                counts[rows] = np.diff(ends, prepend=-1, append=len(tokens)) - 1
        return counts.tolist()

    def _encode(self, text: str) -> npt.NDArray[np.uint32]:
        if _CUT in text or _END in text:
            return super()._encode(text)
        return self._encode_parts(text)

    def _encode_parts(self, text: str) -> npt.NDArray[np.uint32]:
        only_spaces = text.isascii() and not any(character in text for character in "\t\v\f")
        # What splits is part of the result, each time between what it parts.
        parts = _CUT.join((_SPACES if only_spaces else _STRETCH).split(text))
        tokens = self._quick.encode_to_numpy(parts, allowed_special={_END, _CUT}, disallowed_special=())
        return tokens[tokens != _CUT_ID] if len(parts) > len(text) else tokens


def quicken(tokenizer: Tokenizer) -> Tokenizer:
    """*tokenizer*, loaded, or one that finds the same tokens in less time."""
    if isinstance(tokenizer, LazyTokenizer):
        tokenizer = tokenizer._load()
    if not isinstance(tokenizer, TiktokenTokenizer):
        return tokenizer
    encoding = tokenizer._encoding
    is_known = encoding._pat_str == vocabulary.PATTERN and encoding._special_tokens == vocabulary.SPECIAL_TOKENS
    return _quick(encoding) if is_known else tokenizer


_quick = functools.lru_cache(maxsize=1)(QuickTokenizer)


def count_all(tokenizer: Tokenizer, texts: Sequence[str]) -> list[int]:
    """The number of tokens in each of *texts*."""
    if isinstance(tokenizer, QuickTokenizer):
        return tokenizer.count_all(texts)
    return [tokenizer.count(text) for text in texts]


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
