"""Every input form of the contract becomes a list of documents; what is none of them is refused by position."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence, Set
from typing import Any, TypeAlias

import numpy as np

from ..errors import InvalidInputError
from ..values import Content, Document

Inputs: TypeAlias = "str | Document | Sequence[int] | Iterable[Content | Document]"


def read_inputs(inputs: Inputs) -> list[Content | Document]:
    """
    The documents in *inputs*: a text, a token array, a document, or an iterable of any of these.

    A single text is one document, not a list of characters; a list of ints is one token array. Raises
    :class:`InvalidInputError`, a ``TypeError``, naming the position and the type of the first thing that is
    neither, before anything is sent.
    """
    if isinstance(inputs, str | Document):
        return [inputs]
    refuse_table(inputs)
    if isinstance(inputs, AsyncIterable):
        raise InvalidInputError("embed() needs all texts at once; an async iterable goes to stream()")
    if inputs is None or isinstance(inputs, _BYTES | Mapping | Set) or not isinstance(inputs, Iterable):
        raise InvalidInputError(f"expected texts, got {kind_of(inputs)}")
    listed: Any = inputs.tolist() if hasattr(inputs, "tolist") else inputs  # numpy, pandas, array.array
    if isinstance(listed, str | bytes) or not isinstance(listed, Iterable):
        raise InvalidInputError(f"expected texts, got {kind_of(inputs)} of one {kind_of(listed)}")
    documents = list(listed)
    if documents and is_token(documents[0]):
        for position, token in enumerate(documents):
            if not is_token(token):
                raise InvalidInputError(f"expected a token id, got {kind_of(token)} - at [{position}]")
        return [documents]
    for position, document in enumerate(documents):
        if not isinstance(document, str):
            _check(document, position)
    return documents


def refuse_table(inputs: object) -> None:
    """Refuse a frame or table: to iterate over one gives the names of its columns, or the columns."""
    if hasattr(inputs, "columns"):
        raise InvalidInputError(
            f"expected texts, got a {kind_of(inputs)}: pass the column that has them, or the whole to embedbatch.jobs"
        )


def read_input(given: Content | Document) -> Document:
    """
    *given* as a document that can be compared and looked up, with an id: without one of its own it is 0.

    Raises :class:`InvalidInputError`, a ``TypeError``, if it is neither a text nor a token array.
    """
    content, id = (given.content, given.id) if isinstance(given, Document) else (given, None)
    if not isinstance(content, str):
        content = tuple(_tokens(content, "", ""))
    return Document(content, 0 if id is None else id)


def _check(document: object, position: int) -> None:
    content = document.content if isinstance(document, Document) else document
    if not isinstance(content, str):
        _tokens(content, f" - at [{position}]", f"[{position}]")


def _tokens(content: object, where: str, path: str) -> Sequence[Any]:
    tokens = token_sequence(content)
    if tokens is None:
        raise InvalidInputError(f"expected a text or a token array, got {kind_of(content)}{where}")
    for at, token in enumerate(tokens):
        if not is_token(token):
            raise InvalidInputError(f"expected a token id, got {kind_of(token)} - at {path}[{at}]")
    return tokens


_BYTES: TypeAlias = bytes | bytearray | memoryview  # they iterate over ints, and are no token ids


def token_sequence(content: Any) -> Sequence[Any] | None:
    """*content* as a sequence of what may be tokens, also from numpy and array.array; ``None`` if it is none."""
    if isinstance(content, _BYTES):
        return None
    listed = content.tolist() if hasattr(content, "tolist") else content
    return listed if isinstance(listed, Sequence) and not isinstance(listed, str | bytes) else None


def is_token(value: object) -> bool:
    """True for an int, also numpy's; a bool is no token."""
    return type(value) is int or (isinstance(value, int | np.integer) and not isinstance(value, bool))


def kind_of(value: object) -> str:
    """What *value* is, for a message."""
    return "None" if value is None else type(value).__name__
