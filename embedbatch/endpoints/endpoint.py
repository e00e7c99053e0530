"""What one server accepts."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

from ..errors import ConfigurationError

ApiKey: TypeAlias = "str | Callable[[], str | Awaitable[str]]"
"""A key, or what gives one when it is asked: a function or an async function without arguments."""

EncodingFormat: TypeAlias = Literal["base64", "float"] | None

Meaning: TypeAlias = Literal["rate", "overload", "quota", "key", "model", "request", "failure"]
"""What a refusal can mean: see docs/explanation/faults.md."""

_AUTH = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+: [^\x00-\x1f\x7f]*\{key\}[^\x00-\x1f\x7f]*")
_CAPS = ("max_inputs", "max_input_tokens", "max_request_tokens", "max_request_bytes")
_RATES = ("max_requests_per_minute", "max_tokens_per_minute")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """
    One server's side of the wire contract.

    *base_url* ends before *path*; where it is nothing but a host, *root* stands between the two. ``{model}`` in them is
    the model's name. *query* is added to the address. A server is known by its *hosts*; ``*`` begins one that others
    end with.

    *max_inputs*, *max_request_tokens* and *max_request_bytes* cap one request, *max_input_tokens* one text.
    *token_arrays* tells whether arrays of token ids are taken as inputs. *encoding_format* is what is asked for at
    first; what comes back is decoded by what it is. *input_field*, *encoding_field* and *dimensions_field* are the
    names of these fields, the last ``None`` where vectors have one size. *extra_body* are fields that the server needs.

    *auth* is the header with the key; *token_auth* is that of a token of Microsoft Entra or the like, where it is
    another. *key_variable* and *url_variable* are the environment's names for key and address.

    *normalised* tells whether vectors have length 1, as far as that is known. *rate_headers* is false where the
    x-ratelimit headers describe somebody else's account. *refusals* gives codes, types or words of an error a meaning
    of their own. *source* says where all this is known from.

    *api_key* and *model* are those to use at this one, where several are used together; *max_requests_per_minute* and
    *max_tokens_per_minute* are the quota of that key. Without them those of the embedder hold.

    Raises :class:`ConfigurationError` for what cannot work.
    """

    name: str
    base_url: str | None = None
    api_key: ApiKey | None = field(default=None, repr=False)
    model: str | None = None
    max_requests_per_minute: float | None = None
    max_tokens_per_minute: float | None = None
    path: str = "/embeddings"
    root: str = ""
    query: Mapping[str, str] = field(default_factory=dict, hash=False)
    hosts: tuple[str, ...] = ()
    needs_key: bool = False
    key_variable: str | None = "OPENAI_API_KEY"
    url_variable: str | None = "OPENAI_BASE_URL"
    auth: str = "Authorization: Bearer {key}"
    token_auth: str | None = None
    max_inputs: int = 2_048
    max_input_tokens: int | None = None
    max_request_tokens: int = 300_000
    max_request_bytes: int = 2_000_000
    token_arrays: bool = False
    encoding_format: EncodingFormat = "base64"
    input_field: str = "input"
    encoding_field: str = "encoding_format"
    dimensions_field: str | None = "dimensions"
    extra_body: Mapping[str, object] = field(default_factory=dict, hash=False)
    normalised: bool | None = None
    rate_headers: bool = True
    refusals: Mapping[str, Meaning] = field(default_factory=dict, hash=False)
    source: str = ""

    def __post_init__(self) -> None:
        for name in _RATES:
            rate = getattr(self, name)
            if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
                raise ConfigurationError(f"{name}: expected a number above 0, got {rate!r}")
        for name in _CAPS:
            value = getattr(self, name)
            if value is None and name == "max_input_tokens":
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"{name}: expected an int of at least 1, got {value!r}")
        for name in ("path", "root"):
            value = getattr(self, name)
            if not isinstance(value, str) or (value and not value.startswith("/")):
                raise ConfigurationError(f'{name}: expected a path that begins with "/", got {value!r}')
        if self.encoding_format not in ("base64", "float", None):
            raise ConfigurationError(
                f"encoding_format: expected 'base64', 'float' or None; got {self.encoding_format!r}"
            )
        for name in ("auth", "token_auth"):
            value = getattr(self, name)
            if (name == "auth" or value is not None) and not (isinstance(value, str) and _AUTH.fullmatch(value)):
                raise ConfigurationError(f"{name}: expected a header such as 'api-key: {{key}}', got {value!r}")
        for word, meaning in self.refusals.items():
            if meaning not in get_args(Meaning):
                raise ConfigurationError(
                    f"refusals: expected one of {', '.join(get_args(Meaning))} for {word!r}, got {meaning!r}"
                )

    def auth_header(self, key: str) -> tuple[str, str]:
        """The name and the value of the header that carries *key*."""
        is_token = key.startswith("eyJ") and "." in key  # a JSON Web Token: {" in base64, and more after a full stop
        auth = self.token_auth if self.token_auth and is_token else self.auth
        name, _, value = auth.partition(": ")
        return name, value.replace("{key}", key)

    def is_at(self, host: str) -> bool:
        """True if this server is known to be at *host*."""
        return any(host.endswith(known[1:]) if known.startswith("*") else host == known for known in self.hosts)
