"""The gateway family of one-api and new-api: what it does to requests, replies and errors of its many upstreams."""

from __future__ import annotations

from typing import Any

import pytest

from embedbatch import (
    AuthenticationError,
    DimensionsError,
    Embedder,
    Limits,
    ModelNotFoundError,
    QuotaExhaustedError,
    RequestError,
    Retries,
    RunStoppedError,
)
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

TEXTS = [f"text {n}" for n in range(60)]
NAMES = ["one-api", "new-api", None]  # by its name, and as a server nothing is known of
SATURATED = "当前分组上游负载已饱和，请稍后再试"


def says(status: int, message: str, code: Any = None, type: str = "one_api_error") -> Scripted:
    """An error of the gateway's own."""
    error = {"message": f"{message} (request id: 20260101)", "type": type}
    return Scripted(status=status, body={"error": error if code is None else {**error, "code": code}})


def through(make_embedder: MakeEmbedder, server: ScriptedServer, name: str | None, **options: Any) -> Embedder:
    """An embedder in front of the gateway."""
    limits = Limits(max_batch_inputs=5, max_concurrent_requests=2)
    return make_embedder(transport=server, endpoint=name, api_key="sk-of-the-gateway", **{"limits": limits, **options})


FINAL = [
    (says(401, "无效的令牌"), AuthenticationError),
    (says(401, "Invalid token", type="new_api_error"), AuthenticationError),
    (says(401, "该令牌已过期"), AuthenticationError),
    (says(401, "该令牌额度已用尽"), QuotaExhaustedError),
    (says(403, "user quota is not enough", "insufficient_user_quota", "new_api_error"), QuotaExhaustedError),
    (says(403, "pre consume token quota failed", "pre_consume_token_quota_failed"), QuotaExhaustedError),
    (says(403, "该令牌无权使用模型：a-model"), AuthenticationError),
    (says(503, "当前分组 default 下对于模型 a-model 无可用渠道"), ModelNotFoundError),
    (
        says(503, "当前分组 default 下对于模型 a-model 无可用渠道", "model_not_found", "new_api_error"),
        ModelNotFoundError,
    ),
    (says(503, "No available channel for model a-model under group default (distributor)"), ModelNotFoundError),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("reply", "expected"), FINAL, ids=range(len(FINAL)))
async def test_what_is_final_costs_one_request(
    reply: Scripted, expected: type[RequestError], name: str | None, make_embedder: MakeEmbedder
) -> None:
    """A wrong or spent token, no quota, no channel for the model: the run stops with the gateway's words."""
    server = ScriptedServer()
    server.reply_when(lambda request: reply)

    async with through(make_embedder, server, name) as embedder:
        with pytest.raises(RunStoppedError, match="request id: 20260101") as caught:
            await embedder.embed(TEXTS)

    assert type(caught.value.__cause__) is expected
    assert len(server.received) == 1


PASSING = [
    says(429, SATURATED),  # in place of the upstream's words and its Retry-After
    Scripted(status=429),  # the limit per IP has no body
    Scripted(status=500),  # nor has a fault of Redis
    says(500, "do request failed", "do_request_failed"),
    Scripted(status=524, body={"error": {"message": "", "type": "upstream_error", "code": "bad_response_status_code"}}),
    Scripted(status=502, headers={"content-type": "text/html"}, body=b"<html>502 Bad Gateway</html>"),
    Scripted(body={"error": {"message": "upstream", "type": "upstream_error"}}),  # with status 200
    Scripted(status=429, body=b'{"error":{"message":"a","type":"new_api_error"}}{"error":{"message":"b"}}'),
    says(429, "too many at once", "token_concurrency_limit_reached", "new_api_error"),
]  # fmt: skip
AFTER_SUCCESS = [
    says(401, "Incorrect API key provided: sk-of-an-upstream", "invalid_api_key", "invalid_request_error"),
    says(403, "an upstream's region", None, "invalid_request_error"),
    says(503, "当前分组 default 下对于模型 a-model 无可用渠道", "model_not_found", "new_api_error"),
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reply", [*PASSING, *AFTER_SUCCESS], ids=range(len(PASSING) + len(AFTER_SUCCESS)))
async def test_what_one_channel_says_is_not_the_end(
    reply: Scripted, name: str | None, make_embedder: MakeEmbedder
) -> None:
    """After good replies a fault, also a refused key or a missing model, is one upstream's: another answers."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(lambda request: reply if request.number in (4, 9) else None)

    async with through(make_embedder, server, name) as embedder:
        assert_aligned(await embedder.embed(TEXTS), TEXTS, server)

    assert len(server.received) == 12 + 2


@pytest.mark.parametrize("name", NAMES)
async def test_a_key_that_stays_refused_after_successes_ends(name: str | None, make_embedder: MakeEmbedder) -> None:
    """Tried as often as a request may be, and no more: the gateway may have run out of upstreams."""
    server = ScriptedServer()

    async with through(make_embedder, server, name, retries=Retries(max_attempts=3)) as embedder:
        await embedder.embed(["warm"])
        server.reply_when(lambda request: says(401, "Incorrect API key provided"))
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["a"])

    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert len(server.received) == 1 + 3


@pytest.mark.parametrize("name", ["one-api", "new-api", "litellm", "openrouter"])
async def test_rates_of_strange_accounts_slow_nobody_down(name: str, make_embedder: MakeEmbedder) -> None:
    """Each reply carries the headers of another account, one of them nearly used up: they are not believed."""
    server = ScriptedServer(latency=0.1)

    def strange(request: Received) -> Scripted:
        limit = 60 if request.number % 2 else 3
        return Scripted(
            headers={
                "x-ratelimit-limit-requests": str(limit),
                "x-ratelimit-remaining-requests": "1",
                "x-ratelimit-reset-requests": "59s",
            }
        )

    server.reply_when(strange)
    async with through(make_embedder, server, name, base_url="http://test/v1") as embedder:
        assert_aligned(await embedder.embed(TEXTS), TEXTS, server)
        assert embedder.stats().capacity[0].requests_per_second == float("inf")

    assert server.received[-1].at - server.received[0].at < 5


async def test_the_headers_of_ones_own_account_are_believed(make_embedder: MakeEmbedder) -> None:
    """The same headers from a server that is not known to be a gateway lower the rate."""
    server = ScriptedServer()
    server.reply_when(lambda request: Scripted(headers={"x-ratelimit-limit-requests": "60"}))

    async with through(make_embedder, server, None) as embedder:
        await embedder.embed(TEXTS)
        assert embedder.stats().capacity[0].requests_per_second <= 1.0


@pytest.mark.parametrize("name", NAMES)
async def test_a_channel_with_another_model_is_never_mixed_in(name: str | None, make_embedder: MakeEmbedder) -> None:
    """One channel's vectors have another size: they are asked for again, and if they stay so the run stops."""
    server = ScriptedServer()
    server.edit(lambda request, body: _shortened(body) if request.number == 4 else body)
    async with through(make_embedder, server, name) as embedder:
        assert_aligned(await embedder.embed(TEXTS), TEXTS, server)

    server = ScriptedServer()
    server.edit(lambda request, body: _shortened(body) if request.number >= 4 else body)
    async with through(make_embedder, server, name) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(TEXTS)
    assert isinstance(caught.value.__cause__, DimensionsError)
    assert caught.value.embeddings is not None
    assert caught.value.embeddings.vectors.shape == (60, 8)


def _shortened(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "data": [{**item, "embedding": [0.5, 0.5]} for item in body["data"]]}


@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 0, "total_tokens": 0}, {}, "none"])
async def test_a_usage_that_says_nothing_is_unknown(usage: Any, make_embedder: MakeEmbedder) -> None:
    """0, null or nothing: no count of tokens is made up from it."""
    server = ScriptedServer()
    server.edit(
        lambda request, body: (
            {name: value for name, value in body.items() if name != "usage"}
            if usage is None
            else {**body, "usage": usage}
        )
    )

    async with through(make_embedder, server, "one-api") as embedder:
        embeddings = await embedder.embed(TEXTS)

    assert embeddings.usage.total_tokens is None
    assert embeddings.usage.replies_without_usage == embeddings.usage.replies == 12
