"""What came back for a probe, read without trust: vectors, usage, or the shape of an error. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..errors import RequestError
from ..values import Vector
from ..wire.body import FLOAT32, unpack
from ..wire.fault import ServerMessage, read_message
from .probes import Probe

BUSY = (408, 429, 503, 529)  # statuses that say something about the moment, and nothing about the request
SAME = 2e-3  # of its length may a vector differ from another that is to be the same


@dataclass(frozen=True, slots=True)
class Item:
    """One of ``data``: its index, if it is a number; its vector, if it can be read; how that was written."""

    index: int | None
    vector: Vector | None
    encoding: Literal["base64", "float", "other"]


@dataclass(frozen=True)
class Answer:
    """What came back for *probe*: a reply, or the *error* that there was none."""

    probe: Probe
    status: int | None = None
    headers: Mapping[str, str] | None = None
    text: bytes = b""
    error: RequestError | None = None

    @cached_property
    def _json(self) -> Any:
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            return None

    @cached_property
    def items(self) -> list[Item]:
        """The vectors in it; none where it is no embeddings reply."""
        data = self._json.get("data") if isinstance(self._json, dict) and self.status == 200 else None
        if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
            return []
        return [_read_item(item) for item in data]

    @property
    def vector(self) -> Vector | None:
        """The first of the vectors."""
        return self.items[0].vector if self.items else None

    @property
    def is_good(self) -> bool:
        """True if there is a vector for each input."""
        return len(self.items) == self.probe.count and all(item.vector is not None for item in self.items)

    @property
    def is_open(self) -> bool:
        """True if it leaves the question open: there is no reply, or one about the moment."""
        # Gateways say 503 to a model that they do not have.
        is_about_moment = self.status in BUSY and not (self.status == 503 and self.probe.name == "wrong_model")
        return self.error is not None or is_about_moment

    @property
    def usage(self) -> int | None:
        """The tokens that it says the inputs have; ``None`` where it does not say."""
        usage = self._json.get("usage") if isinstance(self._json, dict) else None
        tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) else None

    @property
    def names_model(self) -> str | None:
        """The model that it says it is from."""
        model = self._json.get("model") if isinstance(self._json, dict) else None
        return model if isinstance(model, str) else None

    @cached_property
    def words(self) -> ServerMessage:
        """The server's own, about an error."""
        return read_message(self.text)

    @property
    def shape(self) -> str:
        """What kind of error body it is, such as ``{error: {message, type, code: int}}``."""
        return _shape(self._json, self.text)

    @property
    def refusal(self) -> str:
        """One line about what it is instead of vectors."""
        if self.error is not None:
            return f"no reply: {self.error}"
        if self.status == 200 and not self.words.code and b'"data"' in self.text:
            return f"200 with {len(self.items)} vectors that can be read, for {self.probe.count}"
        return f"{self.status}: {self.words.message}" if self.words.message else f"{self.status}, and no word"


def _read_item(item: dict[str, Any]) -> Item:
    index, embedding = item.get("index"), item.get("embedding")
    vector: Vector | None = None
    encoding: Literal["base64", "float", "other"] = "other"
    if isinstance(embedding, str):
        packed = unpack(embedding.encode())
        encoding, vector = "base64", None if isinstance(packed, str) else np.frombuffer(packed, FLOAT32)
    elif isinstance(embedding, list) and embedding:
        encoding, vector = "float", _as_vector(embedding)
    is_number = isinstance(index, int) and not isinstance(index, bool)
    is_usable = vector is not None and bool(np.isfinite(vector).all()) and bool(vector.any())
    return Item(index if is_number else None, vector if is_usable else None, encoding)


def _as_vector(numbers: list[Any]) -> Vector | None:
    try:
        with np.errstate(over="ignore"):
            return np.array(numbers, FLOAT32)
    except (TypeError, ValueError):
        return None


def are_same(one: Vector | None, other: Vector | None) -> bool:
    """True if both are there and differ by no more than what servers add from call to call."""
    if one is None or other is None or one.shape != other.shape:
        return False
    with np.errstate(invalid="ignore"):
        return length(one.astype(np.float64) - other) <= SAME * length(one)


def length(vector: npt.NDArray[np.floating[Any]]) -> float:
    """The length of *vector*, also where its square is more than a float32 can hold."""
    return float(np.linalg.norm(vector.astype(np.float64)))


def _shape(found: Any, text: bytes) -> str:
    if found is None:
        start = text.lstrip()[:100].lower()
        is_page = start.startswith((b"<!doctype html", b"<html"))
        return "HTML" if is_page else "text" if start else "an empty body"
    if not isinstance(found, dict):
        return "JSON of another kind"
    name = next((name for name in ("error", "errors", "detail") if name in found), None)
    inner = found[name] if name else found
    in_list = isinstance(inner, list)
    while isinstance(inner, list) and inner:
        inner = inner[0]
    if isinstance(inner, dict):
        fields = ", ".join(
            f"{field}: {_kind(inner[field])}" if field == "code" else field
            for field in ("message", "msg", "type", "param", "code")
            if field in inner
        )
        shown = f"{{{fields}}}" if fields else "{…}"
    else:
        shown = _kind(inner)
    return f"{{{name}: {f'[{shown}]' if in_list else shown}}}" if name else shown


def _kind(value: Any) -> str:
    names = {bool: "bool", int: "int", float: "float", str: "text", dict: "object", list: "list"}
    return "null" if value is None else names[type(value)]
