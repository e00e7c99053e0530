"""What a provider writes: embeddings, and errors in OpenAI's words."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import numpy as np
import pybase64

from ..values import Content, Vectors
from .quota import Refusal, format_seconds

Encoded: TypeAlias = "bytes | list[int]"
"""An input: the UTF-8 of a text, or a token array."""

_NUMBERS = 8  # of a vector that are drawn from its input; longer vectors repeat them
_REFERENCE = "Please check the API reference: https://platform.openai.com/docs/api-reference."


class Asked(msgspec.Struct):
    """The body of a request."""

    input: str | list[str | int | list[int]]
    model: str = ""
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None

    def inputs(self) -> list[Encoded]:
        """The inputs, also of a request with a single one."""
        if isinstance(self.input, str):
            return [self.input.encode()]
        if self.input and isinstance(self.input[0], int):
            return [self.input]  # type: ignore[list-item] # one token array
        return [item.encode() if isinstance(item, str) else item for item in self.input]  # type: ignore[misc]


class _Item(msgspec.Struct):
    object: str
    index: int
    embedding: str | list[float]


read_request = msgspec.json.Decoder(Asked).decode
_write = msgspec.json.Encoder().encode


def encode_input(content: Content) -> Encoded:
    """An input as the functions here take it."""
    return content.encode() if isinstance(content, str) else list(content)


def vectors_of(inputs: Sequence[Encoded], dimensions: int) -> Vectors:
    """
    A vector of length 1 for each input: float32, shape (inputs, dimensions).

    From 4 dimensions on, different inputs have different vectors but for a chance of one in 2**63.
    """
    digests = b"".join(
        hashlib.blake2b(
            item if isinstance(item, bytes) else b"tokens:" + _write(item), digest_size=2 * _NUMBERS
        ).digest()
        for item in inputs
    )
    # Odd, so none is 0. In whole numbers, so a row does not depend on the rows beside it.
    numbers = np.frombuffer(digests, "<i2").astype(np.int64).reshape(len(inputs), _NUMBERS) | 1
    if dimensions != _NUMBERS:
        numbers = numbers[:, np.arange(dimensions) % _NUMBERS]
    norms = np.sqrt((numbers * numbers).sum(axis=1, keepdims=True))
    vectors: Vectors = (numbers / norms).astype(np.float32)
    return vectors


def write_embeddings(asked: Asked, inputs: Sequence[Encoded], dimensions: int, usage: int) -> bytes:
    """The body of a good reply."""
    vectors = vectors_of(inputs, asked.dimensions or dimensions)
    embeddings: list[Any]
    if asked.encoding_format == "base64":
        raw = vectors.astype("<f4", copy=False).tobytes()
        size = 4 * vectors.shape[1]
        encode = pybase64.b64encode_as_string
        embeddings = [encode(raw[start : start + size]) for start in range(0, len(raw), size)]
    else:
        embeddings = vectors.tolist()
    return _write(
        {
            "object": "list",
            "data": [_Item("embedding", index, embedding) for index, embedding in enumerate(embeddings)],
            "model": asked.model,
            "usage": {"prompt_tokens": usage, "total_tokens": usage},
        }
    )


def write_error(
    message: str, kind: str | None = "invalid_request_error", code: str | None = None, param: str | None = None
) -> bytes:
    """An error in the shape that OpenAI gives it."""
    return _write({"error": {"message": message, "type": kind, "param": param, "code": code}})


def write_refusal(refusal: Refusal, model: str) -> bytes:
    """The body of a 429 about requests or tokens per minute."""
    unit = "requests per min (RPM)" if refusal.kind == "requests" else "tokens per min (TPM)"
    limit, used, requested = (math.ceil(number - 1e-6) for number in (refusal.limit, refusal.used, refusal.requested))
    if math.isinf(refusal.wait):
        message = (
            f"Request too large for {model} in organization org-x on {unit}: Limit {limit}, Requested {requested}. "
            "The input or output tokens must be reduced in order to run successfully. "
        )
    else:
        message = (
            f"Rate limit reached for {model} in organization org-x on {unit}: Limit {limit}, Used {used}, "
            f"Requested {requested}. Please try again in {format_seconds(refusal.wait)}. "
        )
    visit = "Visit https://platform.openai.com/account/rate-limits to learn more."
    return write_error(message + visit, refusal.kind, "rate_limit_exceeded")


SLOW_DOWN = write_error(
    "Your traffic has grown too quickly. Please slow down and increase it gradually.", "rate_limit_error", "slow_down"
)
NO_CREDIT = write_error(
    "You exceeded your current quota, please check your plan and billing details.",
    "insufficient_quota",
    "credit_balance_exhausted",
)
TOO_MANY_REQUESTS = _write({"error": {"message": "Too Many Requests"}})
NO_JSON = write_error("We could not parse the JSON body of your request.")
INVALID_INPUT = write_error(f"'$.input' is invalid. {_REFERENCE}")
SERVER_ERROR = write_error("The server had an error while processing your request. Sorry about that!", "server_error")
OVERLOADED = write_error(
    "The server is currently overloaded. Please try again later.", "service_unavailable_error", "server_is_overloaded"
)
BUSY = b"Service busy"
MODEL_OVERLOADED = _write({"message": "Model is overloaded", "type": "Overloaded"})


def write_too_many_inputs(count: int, most: int, *, announce: bool) -> bytes:
    """The body of a 400 for a request with more than *most* inputs."""
    if not announce:
        return write_error("Too many inputs in request, split into more batches.", param="input")
    message = (
        f"Invalid 'input': array too long. Expected an array with maximum length {most}, "
        f"but got an array with length {count} instead."
    )
    return write_error(message, code="array_above_max_length", param="input")


def write_too_many_tokens(count: int, most: int, *, announce: bool) -> bytes:
    """The body of a 400 for a request with more than *most* tokens."""
    if not announce:
        return write_error("This request has too many tokens.")
    code = "max_tokens_per_request"
    return write_error(f"Requested {count} tokens, max {most} tokens per request", code, code)


def write_too_many_bytes(most: int, *, announce: bool) -> bytes:
    """The body of a 413 for a body of more than *most* bytes."""
    if not announce:
        return b"Payload Too Large"
    return write_error(f"Request body is too large: the maximum is {most} bytes.")
