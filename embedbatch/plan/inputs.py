"""Every input form of the contract becomes a list of documents; what is none of them is refused by position."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence, Set
from typing import Any, TypeAlias

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
    if isinstance(inputs, AsyncIterable):
        raise InvalidInputError("embed() needs all texts at once; an async iterable goes to stream()")
    if inputs is None or isinstance(inputs, bytes | Mapping | Set) or not isinstance(inputs, Iterable):
        raise InvalidInputError(f"expected texts, got {_kind(inputs)}")
    documents: list[Any] = _to_list(inputs)
    if documents and _is_token(documents[0]):
        for position, token in enumerate(documents):
            if not _is_token(token):
                raise InvalidInputError(f"expected a token id, got {_kind(token)} - at [{position}]")
        return [documents]
    for position, document in enumerate(documents):
        if not isinstance(document, str):
            _check(document, position)
    return documents


def _check(document: object, position: int) -> None:
    content = document.content if isinstance(document, Document) else document
    if isinstance(content, str):
        return
    if isinstance(content, bytes | Mapping) or not (isinstance(content, Sequence) or hasattr(content, "tolist")):
        raise InvalidInputError(f"expected a text or a token array, got {_kind(content)} - at [{position}]")
    for at, token in enumerate(_to_list(content)):
        if not _is_token(token):
            raise InvalidInputError(f"expected a token id, got {_kind(token)} - at [{position}][{at}]")


def _to_list(items: Any) -> list[Any]:
    """A list of Python objects, also from numpy, pandas and array.array."""
    listed = items.tolist() if hasattr(items, "tolist") else items
    return list(listed) if isinstance(listed, Iterable) else [listed]


def _is_token(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _kind(value: object) -> str:
    return "None" if value is None else type(value).__name__
