"""2,000 texts through a proxy that refuses 20 of them in the server's own words: all others get their vectors."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import anyio
import httpx
import numpy as np
import pytest

from embedbatch import Embedder, Embeddings, Limits, RequestRefusedError
from embedbatch.sweep import generate
from embedbatch.testing import Received, Scripted, ScriptedProxy

from ..contract.loopback import serve_in_a_thread
from .starting import KEY, RealServer

pytestmark = pytest.mark.anyio

BAD = 20
BATCH = 64
MARK = "this one is poison"
TOLERANCE = 2e-5  # of a number in a vector of length 1: what other texts in the same batch change in float32


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def singles() -> dict[str, list[list[float]]]:
    """The vectors of single requests, by the server that made them: it is slow, and gateways make none."""
    return {}


def write_texts(number: int) -> tuple[list[str], list[int]]:
    """So many texts of 10 to 2,000 bytes, and the positions of those that are marked."""
    rng = Random(3)
    texts = [next(generate(int(10 * 200 ** rng.random() ** 2), rng)) + f" ({n})" for n in range(number)]
    marked = sorted(rng.sample(range(number), BAD))
    for position in marked:
        texts[position] += f" {MARK}"
    return texts, marked


def refusal_of(server: RealServer) -> Scripted:
    """How *server* refuses an input that it cannot take, by the refusal of one."""
    response = server.post(input=[server.bad_input])
    assert 400 <= response.status_code < 600, response.text
    return Scripted(
        status=response.status_code,
        headers={"content-type": response.headers.get("content-type", "text/plain")},
        body=response.content,
    )


async def one_at_a_time(server: RealServer, texts: list[str]) -> list[list[float]]:
    """The vectors of *texts*, each from a request of its own, by nothing but httpx."""
    vectors: list[list[float]] = [[] for _ in texts]
    headers = {"authorization": f"Bearer {KEY}"}
    positions = iter(range(len(texts)))

    async def ask(client: httpx.AsyncClient) -> None:
        for position in positions:
            body: dict[str, Any] = {"model": server.model, "input": texts[position], "encoding_format": "float"}
            response = await client.post(f"{server.base_url}/embeddings", json=body, headers=headers, timeout=60)
            vectors[position] = response.json()["data"][0]["embedding"]

    async with httpx.AsyncClient(trust_env=False) as client, anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(ask, client)
    return vectors


async def embed_through(proxy: ScriptedProxy, server: RealServer, texts: list[str]) -> Embeddings:
    """*texts* embedded at *server*, over sockets, with *proxy* between."""
    limits = Limits(max_batch_inputs=BATCH, max_concurrent_requests=8)
    with serve_in_a_thread(proxy) as base_url:
        async with Embedder(server.model, base_url=base_url, api_key=KEY, limits=limits) as embedder:
            return await embedder.embed(texts, on_failure="collect")


async def test_every_good_vector_is_right_and_every_bad_text_is_named(
    real: RealServer, singles: dict[str, list[list[float]]]
) -> None:
    """
    The refused texts fail with the server's own words; the vectors of the others are those of single requests, which
    behind a gateway go to the server that it has them from.

    Finding 20 bad texts in batches of 64 takes at most 2·log2(64) + 1 requests for each, beside those for the batches.
    """
    texts, marked = write_texts(real.texts)
    refusal = refusal_of(real)
    proxy = ScriptedProxy(real.base_url)

    def refuse(request: Received) -> Scripted | None:
        return refusal if any(MARK in text for text in request.inputs if isinstance(text, str)) else None

    proxy.reply_when(refuse)

    with anyio.fail_after(240):
        embeddings = await embed_through(proxy, real, texts)
        good = [position for position in range(len(texts)) if position not in set(marked)]
        origin = real.origin or real
        if origin.name not in singles:
            singles[origin.name] = await one_at_a_time(origin, [texts[position] for position in good])
    expected = np.array(singles[origin.name], np.float32)

    assert [failure.position for failure in embeddings.failures] == marked
    for failure in embeddings.failures:
        assert isinstance(failure.error, RequestRefusedError)
        assert failure.error.status == refusal.status
    norms = np.linalg.norm(expected, axis=1, keepdims=True)
    differences = np.abs(embeddings.vectors[good] - expected) / norms
    assert differences.max() < TOLERANCE
    batches = math.ceil(len(texts) / BATCH)
    most = batches + BAD * (2 * math.ceil(math.log2(BATCH)) + 1)
    print(f"{real.name}: {len(proxy.received)} requests, at most {most}; differences {differences.max():.1e}")
    assert len(proxy.received) <= most
