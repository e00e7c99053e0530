"""From what the user says to where a run goes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from ..errors import ConfigurationError
from .choice import for_address, preset
from .endpoint import ApiKey, Endpoint
from .models import MODELS, UNKNOWN_MODEL, Model
from .presets import LOCAL, OPENAI, PRESETS


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where a run goes: an endpoint at an address, with a key and the *name* of a model, and what is known of them."""

    endpoint: Endpoint
    base_url: str
    api_key: ApiKey | None = field(repr=False)
    name: str
    model: Model
    dimensions: int | None

    @property
    def url(self) -> str:
        """Where requests are posted to. A query in the address stays behind the path, one of the endpoint joins it."""
        endpoint = self.endpoint
        address = urlsplit(self.base_url)
        path = address.path.rstrip("/")
        name = quote(self.name, safe="")
        if not path:
            path = endpoint.root.replace("{model}", name)
        own = endpoint.path.replace("{model}", name)
        if not path.endswith(own):  # as when the whole address was copied
            path += own
        given = {name for name, _ in parse_qsl(address.query, keep_blank_values=True)}
        added = urlencode({name: value for name, value in endpoint.query.items() if name not in given})
        return urlunsplit(address._replace(path=path, query="&".join(filter(None, (address.query, added)))))

    @property
    def max_input_tokens(self) -> int:
        """The longest input that the server takes for this model."""
        return min(self.endpoint.max_input_tokens or self.model.max_input_tokens, self.model.max_input_tokens)


def resolve(
    model: str,
    *,
    base_url: str | None,
    api_key: ApiKey | None,
    endpoint: Endpoint | str | None,
    dimensions: int | None,
    environ: Mapping[str, str] = os.environ,
) -> Target:
    """
    Find the endpoint for *model*: from the arguments, then the environment.

    A key goes to the server that it is for: ``OPENAI_API_KEY`` to OpenAI, to ``OPENAI_BASE_URL`` and to servers that
    have no variable of their own.

    Raises :class:`ConfigurationError` when there is no way to reach one, or *dimensions* cannot be had.
    """
    if not model or not isinstance(model, str):
        raise ConfigurationError(f"model: expected a name, got {model!r}")
    endpoint = _read_endpoint(endpoint)
    given, model = model, (endpoint and endpoint.model) or model
    at_home = model == "local" and base_url is None and endpoint is None
    if at_home:
        found, address, key = LOCAL, LOCAL.base_url or "", None
    else:
        address, from_environment = _address(base_url, endpoint, environ)
        found = for_address(address, endpoint)
        variables = [found.key_variable, "OPENAI_API_KEY" if from_environment else None]
        from_variables = (environ.get(variable) for variable in variables if variable)
        key = found.api_key or api_key or next(filter(None, from_variables), None)
        _check_key(found, key)
    # Many servers take any model name, "local" among them: that one is known at home only.
    # A deployment of a known model may have any name, so what the embedder calls it counts as well.
    names = (name for name in (model, given) if at_home or name != "local")
    knowledge = next((MODELS[name] for name in names if name in MODELS), UNKNOWN_MODEL)
    return Target(
        endpoint=found,
        base_url=address,
        api_key=key,
        name=model,
        model=knowledge,
        dimensions=_check_dimensions(model, knowledge, dimensions),
    )


def _read_endpoint(endpoint: Endpoint | str | None) -> Endpoint | None:
    if endpoint is None or isinstance(endpoint, Endpoint):
        return endpoint
    if isinstance(endpoint, str):
        return preset(endpoint)
    raise ConfigurationError(f"endpoint: expected an Endpoint or a name, got {endpoint!r}")


def _address(base_url: str | None, endpoint: Endpoint | None, environ: Mapping[str, str]) -> tuple[str, bool]:
    """The address, and whether it is ``OPENAI_BASE_URL``."""
    if address := base_url or (endpoint and endpoint.base_url):
        return address, False
    variable = endpoint.url_variable if endpoint else "OPENAI_BASE_URL"
    if address := environ.get(variable) if variable else None:
        return address, variable == "OPENAI_BASE_URL"
    if endpoint is not None and endpoint.name in PRESETS:  # another server than OpenAI's
        hint = f", or set {variable}" if variable else ""
        raise ConfigurationError(f"no address for {endpoint.name}: pass base_url={hint}")
    return OPENAI.base_url or "", False


def _check_key(endpoint: Endpoint, key: ApiKey | None) -> None:
    if key is not None and not isinstance(key, str) and not callable(key):
        raise ConfigurationError(f"api_key: expected a text or a callable, got {type(key).__name__}")
    if endpoint.needs_key and not key:
        variable = f"set {endpoint.key_variable} or " if endpoint.key_variable else ""
        raise ConfigurationError(
            f"no key for {endpoint.name}: {variable}pass api_key=. For another server pass base_url=; "
            'model="local" needs neither key nor network.'
        )


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
