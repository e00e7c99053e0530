"""A batch becomes the JSON body of `POST /v1/embeddings`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ..errors import ConfigurationError
from ..values import Batch


class RequestTemplate:
    """Everything of a request's body but its inputs, encoded once."""

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
        try:
            self._head = msgspec.json.encode(fields)[:-1] + b',"input":['
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigurationError(f"model, user or extra_body: not what JSON can carry: {error}") from error

    @property
    def overhead(self) -> int:
        """Bytes of a body without inputs."""
        return len(self._head) + 2

    def body(self, batch: Batch) -> bytes:
        """The body for *batch*: always an array of inputs; token arrays are nested."""
        return b"".join((self._head, b",".join(batch.inputs), b"]}"))


def with_fields(body: bytes, fields: bytes) -> bytes:
    """*body* with more *fields*: JSON, each behind a comma."""
    return b"%b%b}" % (body[:-1], fields) if fields else body
