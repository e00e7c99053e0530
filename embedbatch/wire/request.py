"""A batch becomes the JSON body of `POST /v1/embeddings`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from ..endpoints import EncodingFormat
from ..errors import ConfigurationError
from ..values import Batch


@dataclass(frozen=True, slots=True)
class Form:
    """
    How requests are put: which *encoding_format* is asked for, if any, whether *dimensions* are, and whether
    *token_arrays* are sent as they are.
    """

    encoding_format: EncodingFormat = "base64"
    dimensions: bool = True
    token_arrays: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNames:
    """What the fields are called; without a name for *dimensions* there is no such field."""

    input: str = "input"
    encoding_format: str = "encoding_format"
    dimensions: str | None = "dimensions"


class RequestTemplate:
    """
    Everything of a request's body but its inputs, encoded once for each form. What *extra_body* has wins.

    *overhead* is the most bytes that a body has without inputs.
    """

    def __init__(
        self,
        model: str,
        dimensions: int | None,
        user: str | None,
        extra_body: Mapping[str, object],
        names: FieldNames = FieldNames(),
    ) -> None:
        if names.input in extra_body:
            raise ConfigurationError(f"extra_body: {names.input!r} is what embedbatch fills in")
        self._model, self._user, self._extra_body = model, user, extra_body
        self._dimensions = dimensions if names.dimensions not in extra_body else None
        self._names = names
        self._heads: dict[tuple[EncodingFormat, bool], bytes] = {}
        self.overhead = len(self._head(Form())) + 2

    def first_form(self, encoding_format: EncodingFormat, *, token_arrays: bool) -> Form:
        """The form with all that is wanted; what *extra_body* says is nothing to ask for otherwise."""
        if self._names.encoding_format in self._extra_body:
            encoding_format = None
        asks_for_size = self._names.dimensions is not None and self._dimensions is not None
        return Form(encoding_format, asks_for_size, token_arrays)

    def body(self, batch: Batch, form: Form) -> bytes:
        """The body for *batch*: always an array of inputs; token arrays are nested."""
        return b"".join((self._head(form), b",".join(batch.inputs), b"]}"))

    def _head(self, form: Form) -> bytes:
        key = form.encoding_format, form.dimensions
        if key not in self._heads:
            self._heads[key] = self._encode(form)
        return self._heads[key]

    def _encode(self, form: Form) -> bytes:
        names = self._names
        optional = {
            names.encoding_format: form.encoding_format,
            names.dimensions or "": self._dimensions if form.dimensions else None,
            "user": self._user,
        }
        fields = {"model": self._model} | {name: value for name, value in optional.items() if value is not None}
        try:
            head = msgspec.json.encode({**fields, **self._extra_body})[:-1]
            return head + b",%b:[" % msgspec.json.encode(names.input)
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"model, user or extra_body: not what JSON can carry: {error}") from error
