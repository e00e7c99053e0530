"""The limits of the simulated provider: what it refuses, in which words, and what is enough to be let through."""

from __future__ import annotations

import itertools
from typing import Any

import anyio
import httpx
import numpy as np
import pybase64
import pytest

from embedbatch import Embedder
from embedbatch.testing import Latency, ProviderSimulator, Quota

from .conftest import assert_aligned
from .providing import ask, ask_together, error_of, seconds_taken

pytestmark = pytest.mark.anyio


async def test_every_input_gets_its_own_vector() -> None:
    """Numbers and base64 are the same vectors, those of vector_of(), for texts and token arrays, in any dimensions."""
    provider = ProviderSimulator()
    inputs = ["a", "b", "ä", [1, 2, 3], [3, 2, 1]]

    numbers = (await ask(provider, inputs)).json()["data"]
    encoded = (await ask(provider, inputs, encoding_format="base64", dimensions=12)).json()["data"]

    assert [item["index"] for item in numbers] == list(range(5))
    for content, as_numbers, as_base64 in zip(inputs, numbers, encoded, strict=True):
        np.testing.assert_array_equal(np.float32(as_numbers["embedding"]), provider.vector_of(content))
        decoded = np.frombuffer(pybase64.b64decode(as_base64["embedding"]), "<f4")
        np.testing.assert_array_equal(decoded, provider.vector_of(content, 12))
    assert len({provider.vector_of(content).tobytes() for content in inputs}) == 5


@pytest.mark.parametrize("single", ["a text", [5, 6, 7]])
async def test_a_single_input_needs_no_list(single: Any) -> None:
    """A text, or one token array, is a request with one input."""
    provider = ProviderSimulator()

    reply = (await ask(provider, single)).json()

    assert len(reply["data"]) == 1
    np.testing.assert_array_equal(np.float32(reply["data"][0]["embedding"]), provider.vector_of(single))
    assert provider.requests[0].inputs == 1


async def test_usage_is_not_what_the_quota_counts() -> None:
    """1,000 bytes are 220 tokens of usage and 250 of the quota; 3 bytes of one letter are 3 bytes."""
    provider = ProviderSimulator()

    reply = (await ask(provider, ["x" * 700, "€" * 100])).json()

    assert reply["usage"] == {"prompt_tokens": 220, "total_tokens": 220}
    assert provider.requests[0].tokens == 250
    assert provider.granted_tokens() == 250


async def test_a_refusal_reads_as_openai_writes_it() -> None:
    """Type, code, the three numbers and the time are in the body, the time also in the headers, in whole seconds."""
    provider = ProviderSimulator(quota=Quota(tokens_per_minute=60_000, requests_per_minute=100))
    await ask(provider, "x" * 200_000)

    response = await ask(provider, "x" * 80_000)

    assert response.status_code == 429
    message = (
        "Rate limit reached for test-model in organization org-x on tokens per min (TPM): Limit 60000, Used 60000, "
        "Requested 20000. Please try again in 20s. Visit https://platform.openai.com/account/rate-limits to learn more."
    )
    assert error_of(response) == {"message": message, "type": "tokens", "param": None, "code": "rate_limit_exceeded"}
    assert response.headers["retry-after"] == "20"
    assert response.headers["retry-after-ms"] == "20000"
    assert response.headers["x-ratelimit-limit-tokens"] == "60000"
    assert response.headers["x-ratelimit-remaining-tokens"] == "0"
    assert response.headers["x-ratelimit-reset-tokens"] == "1m0s"
    assert response.headers["x-ratelimit-remaining-requests"] == "98"


async def test_the_time_that_is_told_is_enough() -> None:
    """Who comes back after Retry-After is let through, whichever limit it was, also with windows nobody tells of."""
    for style in ("bucket", "fixed"):
        provider = ProviderSimulator(
            quota=Quota(tokens_per_minute=60_000, requests_per_minute=60, window=2.0, style=style),  # type: ignore[arg-type]
            latency=0.0,
        )
        statuses = []
        for size in (4_000, 4, 4, 4, 6_000, 8_000, 8_000):
            response = await ask(provider, "x" * size)
            statuses.append(response.status_code)
            if response.status_code == 429:
                assert response.headers["x-ratelimit-limit-tokens"] == "60000"
                await anyio.sleep(int(response.headers["retry-after-ms"]) / 1_000)
                assert (await ask(provider, "x" * size)).status_code == 200
        assert 200 in statuses and 429 in statuses


async def test_a_provider_can_be_taciturn() -> None:
    """Without headers, Retry-After and details a 429 has a status, and no number."""
    provider = ProviderSimulator(
        quota=Quota(requests_per_minute=1), headers=False, retry_after=False, detailed=False, latency=0.0
    )
    first = await ask(provider, "a")

    response = await ask(provider, "a")

    assert response.status_code == 429
    assert error_of(response) == {"message": "Too Many Requests"}
    for reply in (first, response):
        assert not [name for name in reply.headers if name.startswith(("x-ratelimit", "retry-after"))]


async def test_a_request_above_the_quota_is_told_to_be_smaller() -> None:
    """What never fits is refused without a time to wait."""
    provider = ProviderSimulator(quota=Quota(tokens_per_minute=600))

    response = await ask(provider, "x" * 4_000)

    assert response.status_code == 429
    assert "Request too large for test-model" in error_of(response)["message"]
    assert "retry-after" not in response.headers


async def test_hammering_gets_nothing_and_patience_gets_the_rate() -> None:
    """At 1.2 times the rate, sent on and on, it is over when the bucket is empty; at the rate itself all goes."""
    provider = ProviderSimulator(quota=Quota(tokens_per_minute=60_000), latency=0.0)
    provider.start()
    for _ in range(1_200):
        await ask(provider, "x" * 2_400)
        await anyio.sleep(0.5)
    assert provider.granted_tokens(0, 330) > 0.99 * 60_000
    assert provider.granted_tokens(330, 600) == 0

    await anyio.sleep(1)
    for _ in range(100):
        await ask(provider, "x" * 2_400)
        await anyio.sleep(0.6)

    assert provider.share(200, 600) == 1
    assert provider.granted_tokens(600) == 60_000


async def test_refusals_are_quick_and_answers_take_their_time() -> None:
    """With a fixed latency of 0.5 s an answer takes that, a refusal 0.03 s, a slow uplink comes on top of both."""
    provider = ProviderSimulator(quota=Quota(requests_per_minute=1), latency=0.5)
    slow = ProviderSimulator(quota=Quota(requests_per_minute=1), latency=Latency(median=0.5, sigma=0, uplink=1.0))
    for server in (provider, slow):
        await ask_together(server, 2)

    assert [seconds_taken(record) for record in provider.requests] == pytest.approx([0.5, 0.03])
    assert all(0.03 < seconds_taken(record) < 1.5 for record in slow.requests)
    assert {record.status for record in slow.requests} == {200, 429}


async def test_a_request_above_a_cap_is_refused() -> None:
    """Above the inputs, tokens or bytes of a request it is 400, 400 and 413; the number is named if it shall be."""
    caps: dict[str, Any] = {"max_inputs": 10, "max_request_tokens": 1_000, "max_request_bytes": 8_000}
    for announces in (True, False):
        provider = ProviderSimulator(**caps, announce_caps=announces)
        for inputs, status, cap in ((["a"] * 11, 400, "10"), ("x" * 5_000, 400, "1000"), ("x" * 9_000, 413, "8000")):
            response = await ask(provider, inputs)
            assert response.status_code == status
            assert (cap in response.text) == announces
        assert (await ask(provider, ["x" * 390] * 10)).status_code == 200


async def test_poison_is_refused_without_a_name() -> None:
    """One bad text of three gets a 400 that does not say which; the two others alone are embedded."""
    provider = ProviderSimulator(poison=lambda text: "bad" in text)

    response = await ask(provider, ["good", "bad one", "fine"])

    assert response.status_code == 400
    assert error_of(response)["message"].startswith("'$.input' is invalid.")
    assert "bad" not in response.text
    assert (await ask(provider, ["good", "fine"])).status_code == 200


@pytest.mark.parametrize("content", [b"no json", b'{"model": "m"}', b'{"input": 5}', b'{"input": []}'])
async def test_a_body_that_is_no_request_is_refused(content: bytes) -> None:
    """It gets a 400, and counts for nobody."""
    provider = ProviderSimulator()

    response = await provider.handle_async_request(httpx.Request("POST", "http://test/v1/embeddings", content=content))

    assert response.status_code == 400
    assert error_of(response)["type"] == "invalid_request_error"
    assert provider.granted_tokens() == 0


async def test_credit_ends() -> None:
    """With credit for 1,000 tokens, four requests of 220 pass; then it is a billing error, without a time to wait."""
    provider = ProviderSimulator(credit_tokens=1_000)
    for _ in range(4):
        assert (await ask(provider, "x" * 1_000)).status_code == 200

    response = await ask(provider, "x" * 1_000)

    assert response.status_code == 429
    assert (error_of(response)["type"], error_of(response)["code"]) == (
        "insufficient_quota",
        "credit_balance_exhausted",
    )
    assert "retry-after" not in response.headers


async def test_growing_too_quickly_is_slowed_down() -> None:
    """Of 2 million tokens in the first minute 1.5 million pass; the rest is told to slow down, and until when."""
    provider = ProviderSimulator(ramp=True, latency=0.0)
    responses = []
    for _ in range(20):
        responses.append(await ask(provider, "x" * 400_000))
        await anyio.sleep(1)

    assert [response.status_code for response in responses] == [200] * 15 + [429] * 5
    assert (error_of(responses[15])["type"], error_of(responses[15])["code"]) == ("rate_limit_error", "slow_down")
    assert responses[15].headers["retry-after"] == "45"


async def test_an_embedder_gets_its_vectors_through_a_quota() -> None:
    """Every text has its vector, though the provider lets one request a second through and refuses the others."""
    provider = ProviderSimulator(quota=Quota(requests_per_minute=60, window=1.0), latency=Latency())
    texts = [f"text {n}" for n in range(2_000)]

    async with Embedder("m", base_url="http://test/v1", transport=provider) as embedder:
        embeddings = await embedder.embed(texts)

    assert_aligned(embeddings, texts, provider)
    granted = [record.at for record in provider.requests if record.granted]
    assert all(later - earlier > 1 - 1e-6 for earlier, later in itertools.pairwise(granted))
    assert provider.is_closed
