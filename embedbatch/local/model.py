"""WordLlama without its package: the weights and the tokenizer that are inside its wheel, and a mean of vectors."""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt

from ..errors import ConfigurationError, EmptyInputError
from ..values import Vectors

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

TokenIds: TypeAlias = npt.NDArray[np.uint32]
"""uint32, shape (tokens,)."""

VOCABULARY_SIZE = 32_000
"""Token ids are 0 to 31,999."""

_LONGEST_TOKEN = 16  # characters: "▁transformations"

# What the tokenizer returns costs 130 to 310 bytes a token, and a character is at most four tokens. Texts are
# tokenized in groups of at least this many characters, so that a request of megabytes takes some 30 MB.
_GROUP_CHARACTERS = 65_536

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class LocalTokenizer:
    """
    The tokenizer of Llama 2: BPE over characters, with a "▁" in front, and bytes for what it does not know.

    "<s>", "</s>" and "<unk>" in a text are special tokens, as in WordLlama itself. A lone surrogate in a text
    raises ``TypeError``. Safe to call from several threads.
    """

    name: str = "local"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer

    def bound(self, nbytes: int, /) -> int:
        """
        The most tokens that a text of *nbytes* UTF-8 bytes can have.

        Merging only lowers the count, so a run of text is at most a token a byte and the "▁" in front. A special
        token starts another run, with another "▁", but is itself one token of at least three bytes.
        """
        return nbytes + 1

    def least(self, characters: int, /) -> int:
        """The fewest tokens that a text of so many *characters* can have: none stands for more than 16."""
        return -(-characters // _LONGEST_TOKEN)

    def count(self, text: str, /) -> int:
        """The exact number of tokens in *text*; 0 only for the empty text."""
        (encoding,) = self._encode([text])
        return len(encoding)

    def ends(self, text: str, /) -> npt.NDArray[np.int64]:
        """
        For each token, the number of whole characters of *text* up to its end: int64, shape (tokens,).

        Never falls, and ends with ``len(text)``. ``text[:ends[i]]`` has at most ``i + 1`` tokens.
        """
        # Not `encode_batch_fast`: it leaves the offsets out.
        (encoding,) = self._tokenizer.encode_batch([text], add_special_tokens=False)
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        starts, ends = offsets[:, 0], offsets[:, 1].copy()
        # Each piece of a character, and the "▁" in front of it, claims all of it; only the last one completes it.
        ends[:-1] = np.minimum(ends[:-1], starts[1:])
        return ends

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        """False: the "▁" in front of what follows a cut can merge with it, so no cut is proven."""
        return False

    def encode(self, texts: Iterable[str]) -> Iterator[TokenIds]:
        """The token ids of each text, in order."""
        for group in _groups(texts):
            for encoding in self._encode(group):
                yield np.array(encoding.ids, np.uint32)

    def decode(self, tokens: Sequence[int], /) -> str:
        """
        The text of *tokens*, special tokens by their names.

        Raises ``ValueError`` for an id outside the vocabulary and for tokens that begin or end inside a character.
        """
        return b"".join(map(self._bytes, tokens)).decode().removeprefix(" ")

    def _encode(self, texts: list[str]) -> list[Encoding]:
        # In a batch even for one text: `Tokenizer.encode` keeps the GIL.
        return self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)

    def _bytes(self, token: int) -> bytes:
        if not 0 <= token < VOCABULARY_SIZE:
            raise ValueError(f"expected token ids of 0 to {VOCABULARY_SIZE - 1:,}, got {token!r}")
        piece = self._tokenizer.id_to_token(token)
        assert piece is not None
        byte = _BYTE_TOKEN.fullmatch(piece)
        return bytes.fromhex(byte[1]) if byte else piece.replace("▁", " ").encode()


class LocalModel:
    """
    Static embeddings: the vector of a text is the mean of the vectors of its tokens, at length 1.

    *embedding* is float32 of shape (32,000, 256), a row for each token id. Safe to call from several threads.
    """

    dimensions: ClassVar[int] = 256
    max_input_tokens: ClassVar[int] = 8_192

    def __init__(self, embedding: Vectors, tokenizer: LocalTokenizer) -> None:
        self.tokenizer = tokenizer
        self._embedding = embedding

    def embed(self, texts: Sequence[str]) -> tuple[Vectors, list[int]]:
        """
        The vectors of *texts*, float32 of shape (len(texts), 256), and their token counts.

        A text longer than ``max_input_tokens`` is not refused: the limit is the wire's. Raises
        ``EmptyInputError`` for an empty text.
        """
        tokens = list(self.tokenizer.encode(texts))
        return self.embed_tokens(tokens), [len(ids) for ids in tokens]

    def embed_tokens(self, inputs: Sequence[Sequence[int] | TokenIds]) -> Vectors:
        """
        The vectors of arrays of token ids: float32, shape (len(inputs), 256).

        Raises ``EmptyInputError`` for an array without tokens, ``IndexError`` or ``OverflowError`` for an id
        outside the vocabulary.
        """
        vectors = np.empty((len(inputs), self.dimensions), np.float32)
        # One text at a time, 8 MB at the most for 8,192 tokens. WordLlama's own embed pads 64 texts to the longest
        # of them, which with one such text is 1 GB; np.add.reduceat over all texts is 6 times slower (numpy 2.4).
        for row, ids in enumerate(inputs):
            if not len(ids):
                raise EmptyInputError(f"input {row} has no tokens: there is nothing to take the mean of")
            # uint32, because a negative id would count from the end of the vocabulary.
            self._embedding[np.asarray(ids, np.uint32)].sum(axis=0, out=vectors[row])
        return normalised(vectors)


def normalised(vectors: Vectors) -> Vectors:
    """
    The rows of *vectors* at length 1; float32, the same shape.

    A row of zeros has no direction and stays as it is: never NaN.
    """
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True).astype(np.float32)
    lengths[lengths == 0] = 1
    return vectors / lengths


@functools.cache
def load() -> LocalModel:
    """
    The model of this process, read from disk by the first call (some 0.15 s, 32 MB).

    Raises ``ConfigurationError`` when the extra that brings it is not installed. Threads that come first together
    may each read it: one of the equal models is kept.
    """
    # Importing wordllama would reconfigure the root logger and bring requests and pydantic, in 0.8 s.
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise _not_installed("the package wordllama is missing")
    return read(Path(spec.submodule_search_locations[0]))


def read(folder: Path) -> LocalModel:
    """The model from the files in *folder*, laid out as in WordLlama's wheel. Raises ``ConfigurationError``."""
    try:
        from safetensors import safe_open
        from tokenizers import Tokenizer
    except ImportError as error:
        raise _not_installed(f"the package {error.name} is missing") from error
    weights = folder / "weights" / "l2_supercat_256.safetensors"
    vocabulary = folder / "tokenizers" / "l2_supercat_tokenizer_config.json"
    for file in (weights, vocabulary):
        if not file.is_file():
            raise _not_installed(f"the file {file} is missing")
    with safe_open(weights, framework="np") as tensors:
        embedding = np.ascontiguousarray(tensors.get_tensor("embedding.weight"), np.float32)
    tokenizer = Tokenizer.from_file(str(vocabulary))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return LocalModel(embedding, LocalTokenizer(tokenizer))


def _not_installed(reason: str) -> ConfigurationError:
    return ConfigurationError(f"model=\"local\": {reason}. Install it with: pip install 'embedbatch[local]'")


def _groups(texts: Iterable[str]) -> Iterator[list[str]]:
    group: list[str] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += len(text)
        if characters >= _GROUP_CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group
