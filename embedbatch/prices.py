"""
What embedding models cost at their vendors. Facts with a date and a source: nobody is asked, and prices change.

They stand by themselves, and not with what is known of the models: a model is the same at every server, its price not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from urllib.parse import urlsplit

from .errors import ConfigurationError

_MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """
    US dollars for a million input tokens.

    *as_of* is the year, or the year and the month, in which *source* said so. Without them it is the caller's own.
    """

    usd_per_million: float
    as_of: str | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        _check("price", self.usd_per_million)

    def cost(self, tokens: int) -> float:
        """US dollars for *tokens*."""
        return float(_exact(self.usd_per_million) * tokens / _MILLION)


def price_of(model: str, base_url: str) -> Price | None:
    """
    What *model* costs at the server with the address *base_url*; ``None`` where that is not known.

    A vendor's price holds at the vendor's own address only: a gateway, or another cloud, has prices of its own.
    """
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        return None
    return PRICES.get((host, model))


def max_spend_for(max_cost: float, price: Price) -> int | None:
    """
    The most tokens that cost no more than *max_cost* US dollars; ``None``, which is no limit, where they are free.

    Raises :class:`ConfigurationError` if that is less than one token.
    """
    _check("max_cost", max_cost)
    if price.usd_per_million == 0:
        return None
    tokens = int(_exact(max_cost) * _MILLION / _exact(price.usd_per_million))
    if tokens < 1:
        raise ConfigurationError(
            f"max_cost: {max_cost!r} US dollars do not buy a token at {price.usd_per_million!r} for a million"
        )
    return tokens


def _exact(number: float) -> Fraction:
    """*number* as it is written: 0.1 is a tenth, not the binary fraction beside it."""
    return Fraction(str(number))


def _check(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ConfigurationError(f"{name}: expected US dollars of at least 0, got {value!r}")


_OPENAI = "https://developers.openai.com/api/docs/models/text-embedding-3-large"  # it names 3-small too
_GATEWAY = "https://vercel.com/ai-gateway/models/"
_ROUTER = "https://openrouter.ai/"
_ALIBABA = "https://www.alibabacloud.com/help/en/model-studio/text-embedding-synchronous-api"
_GOOGLE = "https://developers.googleblog.com/en/gemini-embedding-available-gemini-api/"

# Host, model, US dollars for a million input tokens, when, by which page. Free allowances, and the discount of batch
# APIs, are not counted in. A gateway's page is cited where it tells the vendor's price and the vendor's was not read.
_TABLE = (
    ("embedbatch.local", "local", 0.0, None, None),
    ("api.openai.com", "text-embedding-3-small", 0.02, "2026-09", _OPENAI),
    ("api.openai.com", "text-embedding-3-large", 0.13, "2026-09", _OPENAI),
    ("api.openai.com", "text-embedding-ada-002", 0.10, "2026", _GATEWAY + "text-embedding-ada-002"),
    ("api.mistral.ai", "mistral-embed", 0.10, "2026", _ROUTER + "mistralai/mistral-embed-2312"),
    ("api.mistral.ai", "codestral-embed", 0.15, "2026", _ROUTER + "mistralai/codestral-embed-2505"),
    ("generativelanguage.googleapis.com", "gemini-embedding-001", 0.15, "2025-07", _GOOGLE),
    ("api.voyageai.com", "voyage-4-large", 0.12, "2026", _GATEWAY + "voyage-4-large"),
    ("api.voyageai.com", "voyage-4", 0.06, "2026", _GATEWAY + "voyage-4"),
    ("api.voyageai.com", "voyage-4-lite", 0.02, "2026", _GATEWAY + "voyage-4-lite"),
    ("api.voyageai.com", "voyage-3-large", 0.18, "2026", _GATEWAY + "voyage-3-large"),
    ("dashscope-intl.aliyuncs.com", "text-embedding-v4", 0.07, "2026-03", _ALIBABA),
    ("dashscope.aliyuncs.com", "text-embedding-v4", 0.072, "2026-03", _ALIBABA),
)
PRICES = MappingProxyType(
    {
        (host, model): Price(usd_per_million=usd, as_of=as_of, source=source)
        for host, model, usd, as_of, source in _TABLE
    }
)
"""What is known, by host and model."""
