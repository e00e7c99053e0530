"""
Tokenizers of Hugging Face, from a ``tokenizer.json``. The only place for tokenizers, but for the embedded model.

The file is read from disk; nothing is ever downloaded.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConfigurationError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from .tokens import Offsets

# The most that a step of normalisation makes of a text, in bytes, by a search through all of Unicode. U+FDFA is 3
# bytes, and 33 when it is decomposed for compatibility; U+1D160 has 4, and 12 in the canonical form; "Ⱥ" has 2, and 3
# in lower case.
_GROWTH = {
    "BertNormalizer": 1,  # counted in characters, of which accents, that decomposing makes of one, are taken out
    "Nmt": 1,
    "Strip": 1,
    "StripAccents": 1,
    "Lowercase": 1.5,
    "NFC": 3,
    "NFD": 3,
    "NFKC": 11,
    "NFKD": 11,
    "Precompiled": 11,
    "Prepend": 1,  # once for a text
}
_UNKNOWN_GROWTH = 16
_SPACE_MARK = "▁"  # one token, although it has three bytes


class HfTokenizer:
    """
    A ``tokenizers.Tokenizer``. What it adds to a text, such as ``[CLS]`` and ``[SEP]``, is counted.

    A special token that stands in a text is one, as it is for servers. Safe to call from several threads.
    """

    def __init__(self, tokenizer: Tokenizer, name: str) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        self.name = name
        self._tokenizer = tokenizer
        self._special_tokens = tokenizer.num_special_tokens_to_add(is_pair=False)
        self._growth = growth(json.loads(tokenizer.to_str())["normalizer"])

    def bound(self, nbytes: int, /) -> int:
        """
        The most tokens that a text of *nbytes* UTF-8 bytes can have.

        A token is at least one byte of the normalised text, which can be longer than the text. Only the mark that
        some put in front of a text is none of it; those within stand for white space.
        """
        return math.ceil(self._growth * nbytes) + 1 + self._special_tokens

    def count(self, text: str, /) -> int:
        """The exact number of tokens in *text*, and those that are added to it."""
        return len(self._encode(text)) + self._special_tokens

    def ends(self, text: str, /) -> Offsets:
        """For each token of *text*, the offset after its last character: int64, shape (tokens,), not decreasing."""
        offsets = np.array(self._encode(text).offsets, np.int64).reshape(-1, 2)
        return np.maximum.accumulate(offsets[:, 1])

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        """False: what a cut does to the tokens beside it depends on the vocabulary."""
        return False

    def decode(self, tokens: Sequence[int], /) -> str:
        """
        The text of *tokens*, which may be with what is added to it or without.

        Raises ``ValueError`` if they are not the tokens of that text: many vocabularies forget capitals and spaces.
        """
        ids = list(tokens)
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True)
        for adds in (False, True):
            if self._tokenizer.encode_batch([text], add_special_tokens=adds)[0].ids == ids:
                return text
        raise ValueError(f"{text[:80]!r} has other tokens")

    def _encode(self, text: str) -> Encoding:
        # As a batch of one: `encode` does not let other threads run meanwhile.
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        return encoding


def read(path: Path) -> HfTokenizer:
    """
    The tokenizer in the file *path*, or in ``tokenizer.json`` in the folder *path*.

    Raises :class:`ConfigurationError` if there is none, or the extra ``hf`` is not installed. Its name has a part of
    the file's digest: another file with the same name is another tokenizer.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise ConfigurationError(
            f"tokenizer: {path} needs the package tokenizers. Install it with: pip install 'embedbatch[hf]'"
        ) from error
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"tokenizer: cannot read {file}: {error.strerror}") from error
    try:
        tokenizer = Tokenizer.from_buffer(data)
    except Exception as error:  # it raises nothing more precise
        raise ConfigurationError(f"tokenizer: {file} is not a tokenizer.json: {error}") from error
    return HfTokenizer(tokenizer, f"{file.name} {hashlib.sha256(data).hexdigest()[:16]}")


def growth(normalizer: dict[str, Any] | None) -> float:
    """How many times as long a text can be that *normalizer*, as it is described in a ``tokenizer.json``, was over."""
    if normalizer is None:
        return 1
    if normalizer["type"] == "Sequence":
        return math.prod(map(growth, normalizer["normalizers"]))
    if normalizer["type"] == "Replace":
        return _growth_by_replacing(normalizer)
    return _GROWTH.get(normalizer["type"], _UNKNOWN_GROWTH)


def _growth_by_replacing(normalizer: dict[str, Any]) -> float:
    content = len(normalizer["content"].replace(_SPACE_MARK, " ").encode())
    least = len(normalizer["pattern"].get("String", " ").encode())  # a pattern may match a single character
    return max(1, content / max(1, least))
