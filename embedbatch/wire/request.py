"""A batch becomes the JSON body of `POST /v1/embeddings`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..errors import ConfigurationError
from ..values import Batch


class RequestTemplate:
    """Everything of a request's body but its inputs, encoded once for whatever *more* fields there are."""

    def __init__(
        self,
        model: str,
        encoding_format: str | None,
        dimensions: int | None,
        user: str | None,
        extra_body: Mapping[str, object],
    ) -> None:
        if "input" in extra_body:
            raise ConfigurationError("extra_body: 'input' is what embedbatch fills in")
        fields: dict[str, object] = {"model": model}
        optional = {"encoding_format": encoding_format, "dimensions": dimensions, "user": user}
        fields |= {name: value for name, value in optional.items() if value is not None}
        fields |= extra_body
        self._fields = fields
        self._heads: dict[bytes, bytes] = {}
        try:
            self.overhead = len(self._head(b"")) + 2
            """Bytes of a body without inputs and more fields."""
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"model, user or extra_body: not what JSON can carry: {error}") from error

    def body(self, batch: Batch, more: bytes = b"") -> bytes:
        """
        The body for *batch*: always an array of inputs; token arrays are nested.

        *more* is empty, or a JSON object whose fields stand in for those of the same name.
        """
        return b"".join((self._head(more), b",".join(batch.inputs), b"]}"))

    def _head(self, more: bytes) -> bytes:
        if more not in self._heads:
            fields = {**self._fields, **msgspec.json.decode(more or b"{}")}
            self._heads[more] = msgspec.json.encode(fields)[:-1] + b',"input":['
        return self._heads[more]
