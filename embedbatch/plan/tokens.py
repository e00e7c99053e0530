"""
How many tokens: the proven bound, the exact count, the learned ratio. The only place for tiktoken.

A byte-level BPE token is at least one byte, so most texts are proven to fit without being tokenized. Caps are
checked with the bound or the exact count; only the pace of sending goes by the ratio.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from ..errors import ConfigurationError
from . import splitting, vocabulary

if TYPE_CHECKING:
    import tiktoken

Offsets = npt.NDArray[np.int64]

_CONTINUATIONS = bytes(range(0x80, 0xC0))  # of a character of several bytes in UTF-8, all but the first
_INDENTED = re.compile(r"[^\S\r\n]*\S")
_PARTING = {splitting.CUT, splitting.END}


@runtime_checkable
class Tokenizer(Protocol):
    """
    What the planner asks of a tokenizer. Methods are called from worker threads, one call at a time.

    What the server adds to every input, such as ``[CLS]`` and ``[SEP]``, belongs to the *bound* and to the *count* of
    a text, also of the empty one. It has no *ends*, and is no part of what is decoded.
    """

    name: str

    def bound(self, nbytes: int, /) -> int:
        """The most tokens that a text of *nbytes* UTF-8 bytes can have."""

    def count(self, text: str, /) -> int:
        """The exact number of tokens in *text*."""

    def ends(self, text: str, /) -> Offsets:
        """
        For each token, the offset after the last character of *text* it has a byte of: int64, shape (tokens,).

        Not decreasing. Tokens that are pieces of one character all have the offset after that character.
        """

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        """True if cutting *text* before character *cut* provably leaves the tokens on both sides as they are."""

    def decode(self, tokens: Sequence[int], /) -> str:
        """The text of *tokens*; raises ``ValueError`` (or ``KeyError``) if they are not the tokens of a text."""


class TiktokenTokenizer:
    """A ``tiktoken.Encoding`` as a :class:`Tokenizer`. Text that looks like a special token is ordinary text."""

    def __init__(self, encoding: tiktoken.Encoding, *, splits_like_cl100k: bool = False) -> None:
        self.name = encoding.name
        self._encoding = encoding
        self._splits_like_cl100k = splits_like_cl100k

    @functools.cached_property
    def _characters(self) -> npt.NDArray[np.int32]:
        """How many characters begin in each token id. In 64 bits the table would not fit in the processor's cache."""
        characters = np.zeros(self._encoding.max_token_value + 1, np.int32)
        for token in self._encoding.token_byte_values():
            characters[self._encoding.encode_single_token(token)] = len(token.translate(None, _CONTINUATIONS))
        return characters

    def bound(self, nbytes: int, /) -> int:
        return nbytes

    def count(self, text: str, /) -> int:
        return len(self._encode(text))

    def ends(self, text: str, /) -> Offsets:
        return np.cumsum(self._characters[self._encode(text)], dtype=np.int64)

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        """
        Two kinds of boundary are proven, for the split pattern of cl100k_base, which never looks back.

        Before a space that follows something else than white space: nothing that the pattern matches reaches
        across, and the left side ends in the same match. After the last newline of a stretch of white space
        with something behind it: the pattern ends a match there, and so it does at the end of a text.
        """
        if not self._splits_like_cl100k or not 0 < cut < len(text):
            return False
        if text[cut] == " " and not text[cut - 1].isspace():
            return True
        return text[cut - 1] == "\n" and _INDENTED.match(text, cut) is not None

    def decode(self, tokens: Sequence[int], /) -> str:
        return self._encoding.decode_bytes(tokens).decode()

    def _encode(self, text: str) -> npt.NDArray[np.uint32]:
        return self._encoding.encode_to_numpy(text, disallowed_special=())


class QuickTokenizer(TiktokenTokenizer):
    """cl100k_base from its *ranks*: the same tokens as tiktoken's, in a half to two thirds of the time."""

    def __init__(self, ranks: dict[bytes, int], name: str = "cl100k_base") -> None:
        super().__init__(_cl100k_base(splitting.PATTERN, ranks, name), splits_like_cl100k=True)

    @functools.cached_property
    def _plain(self) -> tiktoken.Encoding:
        return _cl100k_base(vocabulary.PATTERN, self._encoding._mergeable_ranks, self.name)

    def encode_parts(self, text: str) -> npt.NDArray[np.uint32]:
        """The tokens of *text*, in which ``CUT`` does not occur and ``END`` parts texts, as a token of its own."""
        parts = splitting.with_cuts(text)
        tokens = self._encoding.encode_to_numpy(parts, allowed_special=_PARTING, disallowed_special=())
        return tokens[tokens != splitting.CUT_ID] if len(parts) > len(text) else tokens

    def _encode(self, text: str) -> npt.NDArray[np.uint32]:
        if splitting.CUT in text or splitting.END in text:
            return self._plain.encode_to_numpy(text, disallowed_special=())
        return self.encode_parts(text)


class ByteBound:
    """
    One token per byte: the proven bound as a :class:`Tokenizer`, for models whose tokenizer is not known.

    The server adds *special_tokens* to every input.
    """

    name = "bytes"

    def __init__(self, special_tokens: int = 0) -> None:
        self._special_tokens = special_tokens

    def bound(self, nbytes: int, /) -> int:
        return nbytes + self._special_tokens

    def count(self, text: str, /) -> int:
        return len(text.encode()) + self._special_tokens

    def ends(self, text: str, /) -> Offsets:
        return np.cumsum((np.frombuffer(text.encode(), np.uint8) & 0xC0) != 0x80, dtype=np.int64)

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        return True

    def decode(self, tokens: Sequence[int], /) -> str:
        return bytes(tokens).decode()


class LazyTokenizer:
    """
    A tokenizer that is loaded when it is first needed: most runs never count a token.

    Loading cl100k_base takes some 0.4 s, which is why it happens in the thread that counts.
    *overhead* is what its bound adds to the number of bytes.
    """

    def __init__(self, name: str, load: Callable[[], Tokenizer], *, overhead: int = 0) -> None:
        self.name = name
        self.load = functools.cache(load)
        self._overhead = overhead

    def bound(self, nbytes: int, /) -> int:
        return nbytes + self._overhead

    def count(self, text: str, /) -> int:
        return self.load().count(text)

    def ends(self, text: str, /) -> Offsets:
        return self.load().ends(text)

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        return self.load().is_stable_cut(text, cut)

    def decode(self, tokens: Sequence[int], /) -> str:
        return self.load().decode(tokens)


def as_tokenizer(given: object) -> Tokenizer:
    """
    What the user handed in as ``tokenizer=``: a ``tiktoken.Encoding``, the path of a ``tokenizer.json``, the name
    ``"cl100k_base"``, or anything that is a Tokenizer.
    """
    if given == "cl100k_base":
        return cl100k_base()
    if isinstance(given, str | PathLike):
        from .hf import read  # with the extra that it needs

        return read(Path(given).expanduser())
    import tiktoken

    if isinstance(given, tiktoken.Encoding):
        if _is_cl100k_base(given):
            return LazyTokenizer(given.name, functools.partial(_quicken, given))
        return TiktokenTokenizer(given, splits_like_cl100k=given.name == "cl100k_base")
    if isinstance(given, Tokenizer):
        return given
    raise ConfigurationError(
        f"tokenizer: expected a tiktoken.Encoding, a Tokenizer or the path of one, got {type(given).__name__}"
    )


def _is_cl100k_base(given: tiktoken.Encoding) -> bool:
    """True if *given* splits texts as cl100k_base does. A class of the caller's own may do anything."""
    import tiktoken

    is_plain = type(given) is tiktoken.Encoding and given._special_tokens == vocabulary.SPECIAL_TOKENS
    return is_plain and given._pat_str == vocabulary.PATTERN


@functools.lru_cache(maxsize=1)
def _quicken(encoding: tiktoken.Encoding) -> Tokenizer:
    return QuickTokenizer(encoding._mergeable_ranks, encoding.name)


def cl100k_base() -> Tokenizer:
    """The tokenizer of OpenAI's embedding models, from the vocabulary inside this package."""
    return LazyTokenizer("cl100k_base", _load_cl100k_base)


@functools.cache
def _load_cl100k_base() -> Tokenizer:
    return QuickTokenizer(vocabulary.load_ranks())


def _cl100k_base(pattern: str, ranks: dict[bytes, int], name: str) -> tiktoken.Encoding:
    import tiktoken

    return tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens=vocabulary.SPECIAL_TOKENS)


@dataclass(slots=True)
class TokenRatio:
    """
    Tokens per byte as the endpoint counts them for its limits. For pace only, never for caps.

    It starts at the 0.25 that OpenAI's limiter is reported to assume. What the limiter itself is seen to count
    decides; where that is never seen, ``usage`` does, which counts the tokens of the model: English runs at 0.22, CJK
    at 0.43, emoji at 0.69. What lies outside 0.05 to 1 is not believed: some servers count characters, some say 0.
    """

    value: float = 0.25
    weight: float = 0.1  # of a new reading; the last twenty or so decide
    is_seen: bool = False

    def learn(self, nbytes: int, tokens: int | None) -> None:
        """Take in the ``usage`` of *nbytes* bytes of input."""
        if not self.is_seen and tokens and nbytes:
            self._read(tokens / nbytes)

    def see(self, nbytes: int, tokens: float) -> None:
        """Take in what the limiter was seen to count for *nbytes* bytes. Where it is far off, at once."""
        if not nbytes or not 0.05 <= tokens / nbytes <= 1.0:
            return
        if abs(tokens / nbytes - self.value) > 0.25 * self.value:
            self.value = tokens / nbytes
        self.is_seen = True
        self._read(tokens / nbytes)

    def _read(self, reading: float) -> None:
        if 0.05 <= reading <= 1.0:
            self.value += self.weight * (reading - self.value)
