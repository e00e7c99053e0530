"""What one server accepts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ..errors import ConfigurationError


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
