"""What gateways do to requests and replies: none of it costs a vector, and what cannot work is said at once."""

from __future__ import annotations

import time
from collections.abc import Sequence

import anyio
import numpy as np
import pytest

from embedbatch import (
    AuthenticationError,
    Embedder,
    Endpoint,
    Limits,
    QuotaExhaustedError,
    RateLimitedError,
    RequestError,
    Retries,
    RunStoppedError,
)
from embedbatch.events import AttemptFailed, Event
from embedbatch.testing import ScriptedProxy
from embedbatch.values import Vectors

from ..contract.loopback import serve_in_a_thread
from .starting import KEY, RealServer

pytestmark = pytest.mark.anyio

TEXTS = [f"text {number}" for number in range(300)]
SMALL = Limits(max_batch_inputs=20, max_concurrent_requests=4)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def vectors_at(
    server: RealServer, model: str, texts: Sequence[str] = TEXTS
) -> tuple[Vectors, list[AttemptFailed]]:
    """The vectors of *texts*, and the faults that were lived through."""
    faults: list[AttemptFailed] = []

    def observe(event: Event) -> None:
        if isinstance(event, AttemptFailed):
            faults.append(event)

    async with Embedder(model, base_url=server.base_url, api_key=KEY, limits=SMALL, observe=observe) as embedder:
        return (await embedder.embed(texts)).vectors, faults


@pytest.mark.parametrize(
    ("condition", "kinds"),
    [
        ("busy", {"RateLimited"}),
        ("limited", {"RateLimited"}),
        ("two-objects", {"RateLimited"}),
        ("broken", {"Server"}),
        ("wrapped", {"MalformedReply"}),
    ],
)
async def test_every_fourth_request_fails_and_no_vector_is_lost(
    served: RealServer, gateway: RealServer, condition: str, kinds: set[str]
) -> None:
    """
    A 429 without a word of when, with an empty body, with two objects; an upstream's page; an error with status 200.

    All vectors are those of the server behind it, and no more requests failed than the gateway let fail.
    """
    expected, _ = await vectors_at(served, "local")

    with anyio.fail_after(120):
        vectors, faults = await vectors_at(gateway, f"local/{condition}")

    np.testing.assert_array_equal(vectors, expected)
    assert {fault.kind for fault in faults} == kinds
    assert len(faults) <= len(TEXTS) / 20 / 3 + 1


@pytest.mark.parametrize(
    ("model", "key", "error", "words"),
    [
        ("local", "sk-of-somebody-else", AuthenticationError, "无效的令牌"),
        ("local/no-quota", KEY, QuotaExhaustedError, "user quota is not enough"),
    ],
)
async def test_what_no_request_would_survive_ends_the_run(
    gateway: RealServer, model: str, key: str, error: type[RequestError], words: str
) -> None:
    """A bad token and a quota that is used up: one request, and the gateway's own words."""
    proxy = ScriptedProxy(gateway.base_url)

    with serve_in_a_thread(proxy) as base_url, pytest.raises(RunStoppedError) as caught:
        async with Embedder(model, base_url=base_url, api_key=key) as embedder:
            await embedder.embed(TEXTS)

    assert isinstance(caught.value.__cause__, error)
    assert words in str(caught.value)
    assert key not in str(caught.value)
    assert len(proxy.received) == 1


async def test_a_model_without_a_channel_ends_the_run_after_a_few_requests(gateway: RealServer) -> None:
    """It is a 503, which may pass; it does not, and the run stops with the gateway's words."""
    proxy = ScriptedProxy(gateway.base_url)

    with anyio.fail_after(120), serve_in_a_thread(proxy) as base_url, pytest.raises(RunStoppedError) as caught:
        async with Embedder("local/no-channel", base_url=base_url, api_key=KEY) as embedder:
            await embedder.embed(TEXTS)

    assert "无可用渠道" in str(caught.value)
    assert len(proxy.received) <= 2 * Retries().max_attempts


async def test_token_arrays_that_a_channel_drops_are_not_taken_for_vectors(gateway: RealServer) -> None:
    """Of two arrays and a text only the text reaches the upstream: one vector for three inputs is used for none."""
    endpoint = Endpoint(name="gateway", base_url=gateway.base_url, token_arrays=True)

    async with Embedder("local/ali", endpoint=endpoint, api_key=KEY) as embedder:
        embeddings = await embedder.embed([[1, 2], "a text", [3, 4]], on_failure="collect")
        alone = await embedder.embed(["a text"])

    assert [failure.position for failure in embeddings.failures] == [0, 2]
    np.testing.assert_array_equal(embeddings.vectors[1], alone.vectors[0])


async def test_litellms_429s_are_waited_for(litellm: RealServer) -> None:
    """
    Somebody else has used up the 60 requests of this minute. All texts are embedded in the next one.

    Its 429 has no Retry-After but `llm_provider-retry-after: 60`, which everyone keeps to: only those meet it that
    were under way.
    """
    body = {"model": "bert-60", "input": "somebody else's"}
    while (response := litellm.post(**body)).status_code == 200:
        pass
    assert response.status_code == 429
    assert "retry-after" not in response.headers
    asked = float(response.headers["llm_provider-retry-after"])
    began_at = time.monotonic()

    vectors, faults = await vectors_at(litellm, "bert-60", TEXTS[:60])

    assert vectors.shape == (60, 64)
    assert {type(fault.error) for fault in faults} == {RateLimitedError}
    assert len(faults) <= SMALL.max_concurrent_requests
    assert time.monotonic() - began_at >= asked
