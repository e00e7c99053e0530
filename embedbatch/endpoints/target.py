"""From what the user says to where a run goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit, urlunsplit

from ..errors import ConfigurationError
from .endpoint import Endpoint
from .models import MODELS, UNKNOWN_MODEL, Model
from .presets import LOCAL, OPENAI, UNKNOWN


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
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """
    Find the endpoint for *model*: from the arguments, then ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY``.

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
    knowledge = next((MODELS[name] for name in names if name in MODELS), UNKNOWN_MODEL)
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
        if dimensions > knowledge.dimensions:
            raise ConfigurationError(f"dimensions: {model} gives at most {knowledge.dimensions:,}, got {dimensions:,}")
    return dimensions


def public_url(url: str) -> str:
    """*url* without what may be a secret: a user, a password, a query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
