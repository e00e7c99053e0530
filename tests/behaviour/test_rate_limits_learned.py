"""Rate limits that nobody set: from headers, from the words of a 429, and from being refused."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from embedbatch import Embeddings, Limits, QuotaExhaustedError, RunStoppedError
from embedbatch.testing import Latency, ProviderSimulator, Quota, Received, RequestRecord, Scripted, ScriptedServer

from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio

ONE_EACH = Limits(max_batch_inputs=1)
SPREAD = Latency(median=0.2, sigma=0.1)


def texts_of(count: int, size: int = 8) -> list[str]:
    """So many different texts of so many bytes."""
    return [f"{n:0{size}}" for n in range(count)]


def of_quota(limit: object, remaining: object, reset: str = "1s", unit: str = "requests") -> dict[str, str]:
    """OpenAI's headers about one quota."""
    return {
        f"x-ratelimit-limit-{unit}": str(limit),
        f"x-ratelimit-remaining-{unit}": str(remaining),
        f"x-ratelimit-reset-{unit}": reset,
    }


def telling(headers: Iterator[dict[str, str]]) -> ScriptedServer:
    """A server whose replies, of 0.1 s, have these headers."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(lambda request: Scripted(headers=next(headers)))
    return server


def always(headers: dict[str, str]) -> Iterator[dict[str, str]]:
    """The same again and again."""
    while True:
        yield headers


def per_second(times: list[float], start: float, end: float) -> float:
    """How many a second, from *start* to *end* seconds after the first."""
    return sum(start <= at - times[0] < end for at in times) / (end - start)


def times_of(server: ScriptedServer) -> list[float]:
    """When the requests came."""
    return [request.at for request in server.received]


# headers ------------------------------------------------------------------------------------------------------


async def test_headers_teach_a_limit_that_nobody_set(make_embedder: MakeEmbedder) -> None:
    """600 requests a minute by the headers, of which all remain: 10 a second are sent, and none is refused."""
    provider = ProviderSimulator(latency=SPREAD, quota=Quota(requests_per_minute=600, window=3.0))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(600))
        capacity = embedder.stats().capacity[0]

    assert provider.share(429) == 0
    assert capacity.requests_per_second == pytest.approx(10, rel=0.01)
    assert provider.requests[-1].at == pytest.approx(60, rel=0.1)


async def test_headers_teach_tokens_too(make_embedder: MakeEmbedder) -> None:
    """60,000 tokens a minute by the headers: 1,000 a second are sent, and none is refused."""
    provider = ProviderSimulator(latency=SPREAD, quota=Quota(tokens_per_minute=60_000, window=3.0))

    async with make_embedder(transport=provider) as embedder:
        await embedder.embed(["warm"])
        await embedder.embed(texts_of(600, 400))  # 60,000 tokens

    assert provider.share(429) == 0
    assert 55 <= provider.requests[-1].at <= 66


async def test_headers_lower_a_limit_that_was_set(make_embedder: MakeEmbedder) -> None:
    """6,000 requests a minute were set, the headers say 600: 10 a second are sent."""
    server = telling(always(of_quota(600, 590)))
    limits = Limits(max_batch_inputs=1, max_requests_per_minute=6_000)

    async with make_embedder(transport=server, limits=limits) as embedder:
        await embedder.embed(texts_of(300))

    assert per_second(times_of(server), 5, 25) == pytest.approx(10, rel=0.05)


async def test_headers_never_raise_a_limit_that_was_set(make_embedder: MakeEmbedder) -> None:
    """600 were set, the headers say 60,000: 10 a second are sent, and no window of 10 s sees more than 2 s more."""
    server = telling(always(of_quota(60_000, 59_990)))
    limits = Limits(max_batch_inputs=1, max_requests_per_minute=600)

    async with make_embedder(transport=server, limits=limits) as embedder:
        await embedder.embed(texts_of(300))

    times = times_of(server)
    assert max(sum(start <= at < start + 10 for at in times) for start in times) <= 120
    assert times[-1] - times[0] == pytest.approx(30, rel=0.1)


async def test_incoherent_headers_are_not_believed(make_embedder: MakeEmbedder) -> None:
    """A gateway that copies the headers of a random upstream: after a few replies they limit nothing."""

    def any_upstream() -> Iterator[dict[str, str]]:
        while True:
            yield of_quota(60, 59)
            yield of_quota(3_000, 10)
            yield of_quota(500, 1)

    server = telling(any_upstream())

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(2_000))
        capacity = embedder.stats().capacity[0]

    assert capacity.requests_per_second == math.inf
    times = times_of(server)
    assert times[-1] - times[0] <= 60  # at 60 a minute it would be half an hour


@pytest.mark.parametrize(
    "headers",
    [of_quota(0, 0), of_quota(-1, -1), of_quota(10, 50), of_quota("", ""), of_quota("many", "few", "soon")],
    ids=str,
)
async def test_headers_that_cannot_be_are_not_believed(headers: dict[str, str], make_embedder: MakeEmbedder) -> None:
    """Zeros for "unknown", minus one, more remaining than the limit, words: they limit nothing."""
    server = telling(always(headers))

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(500))

    times = times_of(server)
    assert times[-1] - times[0] <= 20


async def test_a_quota_of_a_day_is_no_pace(make_embedder: MakeEmbedder) -> None:
    """Groq's 14,400 requests a day, of which 30 are used: they are not spread over the day."""
    server = telling(always(of_quota(14_400, 14_370, "3m0s")))

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(500))

    times = times_of(server)
    assert times[-1] - times[0] <= 20


async def test_a_quota_that_others_use_up_is_left_to_them(make_embedder: MakeEmbedder) -> None:
    """While the headers say that 1 % of 600 remains, fewer than 10 a second are sent; later all of them again."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(
        lambda request: Scripted(
            headers=of_quota(600, 6, "59.4s")
            if 5 <= request.at - server.received[0].at < 15
            else of_quota(600, 500, "10s")
        )
    )

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(400))

    assert per_second(times_of(server), 6, 15) <= 5
    assert per_second(times_of(server), 20, 30) == pytest.approx(10, rel=0.1)


# what a 429 says ----------------------------------------------------------------------------------------------


def limited(message: str, **headers: str) -> Scripted:
    """OpenAI's 429."""
    error = {"message": message, "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
    return Scripted(status=429, headers=headers, body={"error": error})


async def test_retry_after_ms_is_taken_to_the_millisecond(make_embedder: MakeEmbedder) -> None:
    """It comes before retry-after, whose whole seconds are rounded up."""
    server = ScriptedServer()
    server.reply_next(limited("Slow down.", **{"retry-after": "7", "retry-after-ms": "1250"}))
    no_jitter = Limits(max_concurrent_requests=1)

    async with make_embedder(transport=server, limits=no_jitter) as embedder:
        await embedder.embed(["a"])
        paused = embedder.stats().paused_seconds

    assert paused == 1.25
    assert 1.25 <= server.received[1].at - server.received[0].at <= 1.25 + 0.5


async def test_a_429s_words_name_the_time_and_the_limit(make_embedder: MakeEmbedder) -> None:
    """Without any header: "try again in 2.812s" is the pause, and the limit it names is kept from then on."""
    server = ScriptedServer(latency=0.05)
    message = (
        "Rate limit reached for text-embedding-3-small in organization org-x on requests per min (RPM): Limit 600, "
        "Used 600, Requested 1. Please try again in 2.812s. Visit https://platform.openai.com for more."
    )
    server.reply_when(lambda request: limited(message) if request.number == 40 else None)

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(400))
        stats = embedder.stats()

    refused_at = server.received[39].at + 0.05
    assert stats.paused_seconds == pytest.approx(2.812)
    assert not [at for at in times_of(server) if refused_at < at < refused_at + 2.812]
    assert stats.capacity[0].requests_per_second <= 10
    assert per_second(times_of(server), 10, 20) == pytest.approx(10, rel=0.05)


async def test_a_request_above_the_limit_of_a_minute_is_cut(make_embedder: MakeEmbedder) -> None:
    """Requested is more than Limit: waiting would be for ever, so the batch is cut to what fits, and all are done."""
    provider = ProviderSimulator(
        latency=0.1, quota=Quota(tokens_per_minute=2_000), headers=False, retry_after=False, remember=True
    )

    async with make_embedder(transport=provider) as embedder:
        embeddings = await embedder.embed(texts_of(100, 100))  # 2,500 tokens

    assert not embeddings.failures
    assert provider.requests[0].status == 429
    assert max(request.tokens for request in provider.requests[1:]) <= 2_000
    assert set(provider.embedded.values()) == {1}


@pytest.mark.parametrize("detailed", [True, False])
async def test_a_piece_too_large_for_a_short_window_is_cut(detailed: bool, make_embedder: MakeEmbedder) -> None:
    """60,000 a minute, granted by the second: 250 texts of 100 tokens arrive in pieces below 1,000 tokens."""
    quota = Quota(tokens_per_minute=60_000, window=1.0)
    provider = ProviderSimulator(latency=0.1, quota=quota, headers=False, retry_after=False, detailed=detailed)

    async with make_embedder(transport=provider) as embedder:
        embeddings = await embedder.embed(texts_of(250, 400))

    assert not embeddings.failures
    assert provider.requests[-1].at <= 120
    assert max(request.tokens for request in provider.requests if request.status == 200) <= 1_000


@pytest.mark.parametrize("limit", [300, 1_200])
async def test_a_limit_that_is_never_named_is_found(limit: int, make_embedder: MakeEmbedder) -> None:
    """Bare 429s, no headers: everything is embedded at half the limit or better, with few refusals in the long run."""
    quota = Quota(requests_per_minute=limit, window=5.0)
    provider = ProviderSimulator(latency=SPREAD, quota=quota, headers=False, retry_after=False, detailed=False)

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        embeddings = await embedder.embed(texts_of(5 * limit))

    assert not embeddings.failures
    assert provider.requests[-1].at <= 10 * 60
    assert provider.share(429, start=60) <= 0.05


async def test_one_bare_429_pauses_nobody(make_embedder: MakeEmbedder) -> None:
    """A single refusal amid successes that names no time: its own batch waits, the others go on."""
    server = ScriptedServer(latency=0.5)
    server.reply_when(lambda request: Scripted(status=429) if request.number == 50 else None)

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(300))
        stats = embedder.stats()

    assert stats.paused_seconds == 0
    assert stats.faults == {"RateLimited": 1}
    assert len(server.received) == 301


async def test_rate_refusals_are_outwaited_for_two_minutes(make_embedder: MakeEmbedder) -> None:
    """100 s of nothing but 429s, a second of Retry-After each: the one text is embedded, after far more than six."""
    server = ScriptedServer(latency=0.05)
    server.reply_when(
        lambda request: (
            Scripted(status=429, headers={"retry-after": "4"}) if request.at - server.received[0].at < 100 else None
        )
    )

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(["a"])

    assert not embeddings.failures
    assert len(server.received) > 7
    assert 100 <= anyio.current_time() - server.received[0].at <= 140


async def test_billing_in_a_429_is_not_outwaited(make_embedder: MakeEmbedder) -> None:
    """The credit ends after 1,000 tokens: the run stops at once, with what was done."""
    provider = ProviderSimulator(latency=0.1, credit_tokens=1_000)

    async with make_embedder(transport=provider, limits=Limits(max_batch_inputs=10)) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(texts_of(500, 100))

    assert isinstance(caught.value.__cause__, QuotaExhaustedError)
    done = caught.value.embeddings
    assert isinstance(done, Embeddings)
    assert 500 - len(done.failures) == 10 * sum(request.status == 200 for request in provider.requests) > 0


# growth -------------------------------------------------------------------------------------------------------


def minutes(requests: list[RequestRecord], first: int, last: int) -> list[float]:
    """Tokens granted in each minute."""
    return [sum(r.tokens for r in requests if r.granted and 60 * m <= r.at < 60 * m + 60) for m in range(first, last)]


def ramping() -> ProviderSimulator:
    """OpenAI's ramp rule and nothing else; a byte is a token, which makes much of little text."""
    return ProviderSimulator(latency=0.5, ramp=True, quota=Quota(tokens_per_byte=1.0), usage_tokens_per_byte=1.0)


@pytest.mark.slow
async def test_the_ramp_is_kept_before_it_is_asked_for(make_embedder: MakeEmbedder) -> None:
    """Limits(ramp=True) against OpenAI's rule: never refused, a million a minute at first, more after half an hour."""
    provider = ramping()

    async with make_embedder(transport=provider, limits=Limits(ramp=True)) as embedder:
        with anyio.move_on_after(45 * 60):
            async with embedder.stream("x" * 4_000 for _ in range(10**7)) as results:
                async for _ in results:
                    pass

    assert provider.share(429) == 0
    tokens = minutes(provider.requests, 0, 45)
    assert 0.9e6 <= tokens[1] <= 1.2e6
    assert tokens[40] >= 2.0e6
    assert all(later <= 1.6 * max(1e6, earlier) for earlier, later in zip(tokens, tokens[15:], strict=False))


@pytest.mark.slow
async def test_slow_down_begins_the_ramp(make_embedder: MakeEmbedder) -> None:
    """Without the setting the first slow_down teaches it: the use stays high, and few are refused."""
    provider = ramping()

    async with make_embedder(transport=provider) as embedder:
        with anyio.move_on_after(20 * 60):
            async with embedder.stream("x" * 4_000 for _ in range(10**7)) as results:
                async for _ in results:
                    pass

    assert provider.share(429) > 0
    assert provider.share(429, start=300) <= 0.1
    assert min(minutes(provider.requests, 6, 20)) >= 0.7e6


# the beginning ------------------------------------------------------------------------------------------------


async def test_the_first_request_goes_alone(make_embedder: MakeEmbedder) -> None:
    """Until the endpoint has answered for the first time one request is in flight, then up to four."""
    server = ScriptedServer(latency=lambda request: 5.0 if request.number == 1 else 1.0)

    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(9))

    times = [at - server.received[0].at for at in times_of(server)]
    assert times == [0] + [5] * 4 + [6] * 4


async def test_a_first_request_that_fails_is_followed_by_one_alone(make_embedder: MakeEmbedder) -> None:
    """A fault is no answer: still one at a time."""
    server = ScriptedServer(latency=1.0)
    in_flight: list[int] = []

    def fail_thrice(request: Received) -> Scripted | None:
        in_flight.append(server.in_flight)
        return Scripted(status=503) if request.number <= 3 else None

    server.reply_when(fail_thrice)
    async with make_embedder(transport=server, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(5))

    assert set(in_flight[:4]) == {1}


async def test_limits_of_both_kinds_are_used_together(make_embedder: MakeEmbedder) -> None:
    """600 requests and 60,000 tokens a minute: 100,000 tokens of small texts take 100 s, within both limits."""
    quota: dict[str, Any] = {"requests_per_minute": 600, "tokens_per_minute": 60_000}
    provider = ProviderSimulator(latency=SPREAD, quota=Quota(**quota, window=5.0))
    limits = Limits(max_requests_per_minute=600, max_tokens_per_minute=60_000)

    async with make_embedder(transport=provider, limits=limits) as embedder:
        await embedder.embed(texts_of(4_000, 100))

    assert provider.share(429) == 0
    assert 95 <= provider.requests[-1].at <= 115
