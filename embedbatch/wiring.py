"""From what the user says to the routes that requests take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING, Any

from .dispatch.credentials import Credentials
from .dispatch.forms import Forms
from .dispatch.hedges import MAX_OUT
from .dispatch.lessons import Lessons
from .dispatch.limiter import Limiter
from .dispatch.router import Route, Router
from .endpoints import LOCAL, ApiKey, Endpoint, Target, public_url, resolve
from .errors import ConfigurationError
from .events import Observe
from .settings import Limits, Retries, TransportName
from .wire.request import FieldNames, RequestTemplate

if TYPE_CHECKING:
    import httpx

    from .dispatch.inquiry import AsText
    from .dispatch.sender import Sender
    from .local import LocalApp


@dataclass(frozen=True, kw_only=True)
class Wiring:
    """What every route of an embedder has in common."""

    dimensions: int | None
    user: str | None
    extra_body: Mapping[str, object]
    headers: Mapping[str, str]
    timeout: float | httpx.Timeout | None
    limits: Limits
    retries: Retries
    http_client: httpx.AsyncClient | None
    transport: httpx.AsyncBaseTransport | TransportName | None
    rng: Random
    observe: Observe

    def connect(self, targets: Sequence[Target], limiter: Limiter | None, as_text: AsText) -> Sender:
        """A sender with a route to each of *targets*. *as_text* makes texts of token arrays."""
        from .dispatch.sender import Sender  # with httpx and tenacity a half of all the library takes to import

        if limiter is not None and len(targets) > 1:
            raise ConfigurationError("limiter: expected one endpoint, got several; each has a limiter of its own")
        return Sender(
            router=Router([self._route(target, limiter) for target in targets]),
            dimensions=targets[0].dimensions,
            retries=self.retries,
            rng=self.rng,
            observe=self.observe,
            as_text=as_text,
        )

    def _route(self, target: Target, limiter: Limiter | None) -> Route:
        from .dispatch.transport import Transport

        endpoint, limits = target.endpoint, _limits_of(target.endpoint, self.limits)
        limiter = limiter or Limiter(limits, rng=self.rng)
        names = FieldNames(
            input=endpoint.input_field,
            encoding_format=endpoint.encoding_field,
            dimensions=endpoint.dimensions_field,
        )
        extra_body = {**endpoint.extra_body, **self.extra_body}
        template = RequestTemplate(target.name, self.dimensions, self.user, extra_body, names)
        in_process = endpoint is LOCAL and not (self.http_client or self.transport)
        return Route(
            name=endpoint.name,
            key=f"{target.name} at {public_url(target.url)}",
            transport=Transport(
                target.url,
                self.headers,
                credentials=Credentials(target.api_key, endpoint.auth_header),
                timeout=self.timeout,
                max_connections=limiter.max_in_flight + (MAX_OUT if self.retries.hedge else 0),
                http_client=self.http_client,
                transport=self.transport,
                app=_local_app() if in_process else None,
            ),
            template=template,
            forms=Forms(template.first_form(endpoint.encoding_format, token_arrays=endpoint.token_arrays)),
            limiter=limiter,
            refusals=endpoint.refusals,
            reads_rates=endpoint.rate_headers,
            lessons=Lessons(
                max_inputs=min(limits.max_batch_inputs, endpoint.max_inputs),
                max_tokens=min(limits.max_batch_tokens, endpoint.max_request_tokens),
                max_bytes=min(limits.max_batch_bytes, endpoint.max_request_bytes) - template.overhead,
                overhead=template.overhead,
            ),
        )


def _local_app() -> LocalApp:
    from .local import LocalApp

    return LocalApp()


def find_targets(
    model: str,
    *,
    base_url: str | None,
    api_key: ApiKey | None,
    endpoint: Endpoint | str | None,
    endpoints: Sequence[Endpoint | str] | None,
    dimensions: int | None,
) -> list[Target]:
    """The endpoints to use: all of *endpoints*, or else the one that the other arguments name."""
    if endpoints is None:
        return [resolve(model, base_url=base_url, api_key=api_key, endpoint=endpoint, dimensions=dimensions)]
    if base_url is not None or endpoint is not None:
        raise ConfigurationError("endpoints: expected them alone, got base_url= or endpoint= as well")
    if not endpoints:
        raise ConfigurationError("endpoints: expected at least one, got none")
    targets = [
        resolve(model, base_url=None, api_key=api_key, endpoint=endpoint, dimensions=dimensions)
        for endpoint in endpoints
    ]
    sizes = {target.dimensions for target in targets} - {None}
    if len(sizes) > 1:
        raise ConfigurationError(f"endpoints: their models give vectors of different sizes: {sorted(map(str, sizes))}")
    return targets


def input_limits(targets: Sequence[Target], max_input_tokens: int | None) -> dict[str, Any]:
    """What every one of *targets* takes as one input."""
    if max_input_tokens is None:
        max_input_tokens = min(target.max_input_tokens for target in targets)
    return {
        "max_input_tokens": max_input_tokens,
        "token_arrays": all(target.endpoint.token_arrays for target in targets),
    }


def _limits_of(endpoint: Endpoint, limits: Limits) -> Limits:
    return replace(
        limits,
        max_requests_per_minute=endpoint.max_requests_per_minute or limits.max_requests_per_minute,
        max_tokens_per_minute=endpoint.max_tokens_per_minute or limits.max_tokens_per_minute,
    )
