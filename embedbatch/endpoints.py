"""What one server accepts. Facts with their sources, and how one is found from what the user says."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

from .errors import ConfigurationError
from .models import UNKNOWN_MODEL, Model, known_model

__all__ = ["Endpoint"]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """
    One server's side of the wire contract.

    *base_url* ends before *path*. *max_inputs*, *max_request_tokens* and *max_request_bytes* cap one request,
    *max_input_tokens* one text. *token_arrays* tells whether arrays of token ids are taken as inputs.
    *encoding_format* is what is asked for; what comes back is decoded by what it is.

    *api_key* and *model* are those to use at this one, where several are used together; *max_requests_per_minute* and
    *max_tokens_per_minute* are the quota of that key. Without them those of the embedder hold.
    """

    name: str
    base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    model: str | None = None
    max_requests_per_minute: float | None = None
    max_tokens_per_minute: float | None = None
    path: str = "/embeddings"
    needs_key: bool = False
    max_inputs: int = 2_048
    max_input_tokens: int | None = None
    max_request_tokens: int = 300_000
    max_request_bytes: int = 2_000_000
    token_arrays: bool = False
    encoding_format: Literal["base64", "float"] | None = "base64"

    def __post_init__(self) -> None:
        for name in ("max_requests_per_minute", "max_tokens_per_minute"):
            rate = getattr(self, name)
            if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
                raise ConfigurationError(f"{name}: expected a number above 0, got {rate!r}")
        for name in ("max_inputs", "max_input_tokens", "max_request_tokens", "max_request_bytes"):
            value = getattr(self, name)
            if value is None and name == "max_input_tokens":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}: expected an int of at least 1, got {value!r}")
        if self.path and not self.path.startswith("/"):
            raise ConfigurationError(f'path: expected a path that begins with "/", got {self.path!r}')
        if self.encoding_format not in ("base64", "float", None):
            raise ConfigurationError(
                f"encoding_format: expected 'base64', 'float' or None; got {self.encoding_format!r}"
            )


# OpenAI's OpenAPI document, CreateEmbeddingRequest: at most 2,048 inputs, 8,192 tokens each, 300,000 in one
# request. The last is reported to be counted as 0.25 token per UTF-8 byte (timescale/pgai#730), so a body stays
# below 1.2 MB too.
OPENAI = Endpoint(
    name="openai",
    base_url="https://api.openai.com/v1",
    needs_key=True,
    max_request_bytes=1_200_000,
    token_arrays=True,
)

# The embedded model: see embedbatch.local.
LOCAL = Endpoint(name="local", base_url="http://embedbatch.local/v1", max_input_tokens=8_192)

# A server nothing is known of: the wire contract, without what many servers lack (contract: token arrays).
UNKNOWN = Endpoint(name="openai-compatible")


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a run goes: an endpoint at an address, with a key and the *name* of a model, and what is known of them."""

    endpoint: Endpoint
    base_url: str
    api_key: str | None = field(repr=False)
    name: str
    model: Model
    dimensions: int | None

    @property
    def url(self) -> str:
        """Where requests are posted to. A query in the address stays behind the path."""
        address = urlsplit(self.base_url)
        return urlunsplit(address._replace(path=address.path.rstrip("/") + self.endpoint.path))

    @property
    def max_input_tokens(self) -> int:
        """The longest input that the server takes for this model."""
        return min(self.endpoint.max_input_tokens or self.model.max_input_tokens, self.model.max_input_tokens)


def resolve(
    model: str,
    *,
    base_url: str | None,
    api_key: str | None,
    endpoint: Endpoint | None,
    dimensions: int | None,
    model_info: Model | None = None,
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """
    Find the endpoint for *model*: from the arguments, then ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``.

    *model_info* is known of the model, whatever is in the table.

    Raises :class:`ConfigurationError` when there is no way to reach one, or *dimensions* cannot be had.
    """
    if not model or not isinstance(model, str):
        raise ConfigurationError(f"model: expected a name, got {model!r}")
    given, model = model, (endpoint and endpoint.model) or model
    at_home = model == "local" and base_url is None and endpoint is None
    if at_home:
        endpoint, api_key = LOCAL, None
    else:
        base_url = base_url or (endpoint and endpoint.base_url) or environ.get("OPENAI_BASE_URL") or OPENAI.base_url
        api_key = (endpoint and endpoint.api_key) or api_key or environ.get("OPENAI_API_KEY") or None
        host = _host(base_url)
        if endpoint is None:
            endpoint = OPENAI if host == "api.openai.com" else UNKNOWN
    if endpoint.needs_key and not api_key:
        raise ConfigurationError(
            f"no key for {endpoint.name}: set OPENAI_API_KEY or pass api_key=. For another server pass base_url=; "
            'model="local" needs neither key nor network.'
        )
    # Many servers take any model name, "local" among them: that one is known at home only.
    # A deployment of a known model may have any name, so what the embedder calls it counts as well.
    names = (name for name in (model, given) if at_home or name != "local")
    knowledge = model_info or next(filter(None, map(known_model, names)), UNKNOWN_MODEL)
    return Target(
        endpoint=endpoint,
        base_url=base_url or endpoint.base_url or "",
        api_key=api_key,
        name=model,
        model=knowledge,
        dimensions=_check_dimensions(model, knowledge, dimensions),
    )


def _host(base_url: str | None) -> str | None:
    try:
        return urlsplit(base_url or "").hostname
    except (ValueError, AttributeError) as error:
        raise ConfigurationError(f"base_url: expected an http or https address, got {base_url!r}: {error}") from error


def _check_dimensions(model: str, knowledge: Model, dimensions: int | None) -> int | None:
    """The size the vectors must have, ``None`` where only the first reply can tell."""
    if dimensions is None:
        return knowledge.dimensions
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
        raise ConfigurationError(f"dimensions: expected an int of at least 1, got {dimensions!r}")
    if knowledge.dimensions is not None:
        if not knowledge.takes_dimensions and dimensions != knowledge.dimensions:
            raise ConfigurationError(f"dimensions: {model} always gives {knowledge.dimensions:,}, got {dimensions:,}")
        most = knowledge.max_dimensions or knowledge.dimensions
        if dimensions > most:
            raise ConfigurationError(f"dimensions: {model} gives at most {most:,}, got {dimensions:,}")
    return dimensions


def public_url(url: str) -> str:
    """*url* without what may be a secret: a user, a password, a query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
