"""Azure OpenAI: both forms of its address, keys and tokens, given or asked for, and a token that expires."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from embedbatch import AuthenticationError, Limits, RateLimitedError, RunStoppedError
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

TEXTS = [f"text {n}" for n in range(60)]
HOST = "https://my-resource.openai.azure.com"
KEY = "0123456789abcdef0123456789abcdef"


def token(number: int) -> str:
    """A token as Microsoft Entra gives it, as far as its form goes."""
    return f"eyJ0eXAiOiJKV1QifQ.eyJuIjp7{number:04}fX0.c2lnbmF0dXJl"


def asked_for(secret: str) -> Any:
    """An async function that gives it."""

    async def give() -> str:
        return secret

    return give


FORMS = [
    (HOST, f"{HOST}/openai/v1/embeddings"),
    (f"{HOST}/openai/v1/", f"{HOST}/openai/v1/embeddings"),
    (f"{HOST}/openai/deployments/dep", f"{HOST}/openai/deployments/dep/embeddings?api-version=2024-10-21"),
    (
        f"{HOST}/openai/deployments/dep/embeddings?api-version=2023-05-15",
        f"{HOST}/openai/deployments/dep/embeddings?api-version=2023-05-15",
    ),
]
SECRETS = [
    (KEY, {"api-key": KEY}),
    (asked_for(KEY), {"api-key": KEY}),
    (token(1), {"authorization": f"Bearer {token(1)}"}),
    (asked_for(token(1)), {"authorization": f"Bearer {token(1)}"}),
]


@pytest.mark.parametrize(("base_url", "url"), FORMS)
@pytest.mark.parametrize(("secret", "headers"), SECRETS, ids=["key", "callable key", "token", "callable token"])
async def test_every_form_of_address_takes_keys_and_tokens(
    base_url: str, url: str, secret: Any, headers: dict[str, str], make_embedder: MakeEmbedder
) -> None:
    """The host is enough to know it: a key goes in api-key, a token in Authorization, each alone."""
    server = ScriptedServer()

    async with make_embedder("dep", transport=server, base_url=base_url, api_key=secret) as embedder:
        assert_aligned(await embedder.embed(TEXTS), TEXTS, server)

    for request in server.received:
        assert request.url == url
        assert {
            name: request.headers.get(name) for name in ("api-key", "authorization") if name in request.headers
        } == headers
        assert request.body["model"] == "dep"


async def test_a_deployment_of_a_known_model_may_have_any_name(make_embedder: MakeEmbedder) -> None:
    """The name of the deployment stands in the address, percent-encoded."""
    server = ScriptedServer()

    async with make_embedder(
        "my dep/1", transport=server, base_url=HOST, endpoint="azure-deployments", api_key=KEY
    ) as embedder:
        await embedder.embed(["a"])

    assert server.received[0].url == f"{HOST}/openai/deployments/my%20dep%2F1/embeddings?api-version=2024-10-21"


@pytest.mark.parametrize("base_url", [f"{HOST}/openai/v1", f"{HOST}/openai/deployments/dep"])
async def test_a_token_that_expires_in_mid_run_is_replaced(base_url: str, make_embedder: MakeEmbedder) -> None:
    """An hour of work with tokens of 10 minutes: each is asked for once when the one before is refused."""
    server = ScriptedServer(latency=30.0)
    given: list[str] = []

    async def entra() -> str:
        given.append(token(len(given)))
        return given[-1]

    def expires(request: Received) -> Scripted | None:
        current = token(int(request.at - began) // 600)
        if request.headers["authorization"] == f"Bearer {current}":
            return None
        message = "Unauthorized. Access token is missing, invalid, audience is incorrect, or have expired."
        return Scripted(status=401, body={"statusCode": 401, "message": message})

    server.reply_when(expires)
    began = anyio.current_time()
    async with make_embedder(
        "dep",
        transport=server,
        base_url=base_url,
        api_key=entra,
        limits=Limits(max_batch_inputs=1, max_concurrent_requests=2, initial_concurrent_requests=2),
    ) as embedder:
        assert_aligned(await embedder.embed(TEXTS), TEXTS, server)
        faults = dict(embedder.stats().faults)

    assert len(given) >= 2
    assert faults["Authentication"] <= 2 * (len(given) - 1)


async def test_azures_own_words_are_understood(make_embedder: MakeEmbedder) -> None:
    """401 as {"statusCode", "message"} stops with its words; 429 waits for retry-after-ms; a limit of 0 is none."""
    server = ScriptedServer()
    server.reply_next(
        Scripted(
            status=429,
            headers={"retry-after-ms": "1500", "x-ratelimit-limit-requests": "0"},
            body={"error": {"code": "429", "message": "Requests to the Embeddings_Create Operation have exceeded"}},
        )
    )
    async with make_embedder("dep", transport=server, base_url=HOST, api_key=KEY) as embedder:
        assert_aligned(await embedder.embed(["a"]), ["a"], server)
        stats = embedder.stats()
        assert stats.faults == {RateLimitedError.__name__.removesuffix("Error"): 1}
        assert stats.capacity[0].requests_per_second > 0
    assert server.received[1].at - server.received[0].at >= 1.5

    server.reply_when(lambda request: Scripted(status=401, body={"statusCode": 401, "message": "Unauthorized. Wrong."}))
    async with make_embedder("dep", transport=server, base_url=HOST, api_key=KEY) as embedder:
        with pytest.raises(RunStoppedError, match="Wrong") as caught:
            await embedder.embed(["a"])
    assert isinstance(caught.value.__cause__, AuthenticationError)
