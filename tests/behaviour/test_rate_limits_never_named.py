"""Limits of which a server says nothing but 429: what they are about shows in what it grants."""

from __future__ import annotations

import anyio
import pytest

from embedbatch import Limits
from embedbatch.testing import ProviderSimulator, Quota, Scripted, ScriptedServer

from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio

SILENT = {"headers": False, "retry_after": False, "detailed": False}
MINUTE = 60.0


def texts(count: int) -> list[str]:
    """Texts of 400 bytes, about 100 tokens each."""
    return [f"{number:0400}" for number in range(count)]


@pytest.mark.parametrize("style", ["bucket", "fixed"])
async def test_where_requests_are_few_each_is_full(style: str, make_embedder: MakeEmbedder) -> None:
    """60 requests a minute, and no limit of tokens: after ten minutes nearly all are used, by batches of 64."""
    quota = Quota(requests_per_minute=60, style=style)  # type: ignore[arg-type]
    provider = ProviderSimulator(quota=quota, **SILENT)  # type: ignore[arg-type]
    with anyio.move_on_after(20 * MINUTE):
        async with make_embedder(transport=provider, limits=Limits(max_batch_inputs=64)) as embedder:
            await embedder.embed(texts(100_000))

    answered = [each for each in provider.requests if each.status == 200 and each.at > 10 * MINUTE]
    assert len(answered) >= 0.85 * 10 * 60
    assert sum(each.inputs for each in answered) >= 0.9 * 64 * len(answered)


async def test_where_tokens_are_few_batches_shrink(make_embedder: MakeEmbedder) -> None:
    """120,000 tokens a minute, and no limit of requests: nearly all are used, by small batches."""
    provider = ProviderSimulator(quota=Quota(tokens_per_minute=120_000), **SILENT)  # type: ignore[arg-type]
    with anyio.move_on_after(20 * MINUTE):
        async with make_embedder(transport=provider, limits=Limits(max_batch_inputs=64)) as embedder:
            await embedder.embed(texts(100_000))

    answered = [each for each in provider.requests if each.status == 200 and each.at > 10 * MINUTE]
    assert sum(each.tokens for each in answered) >= 0.9 * 120_000 * 10
    assert sum(each.inputs for each in answered) <= 16 * len(answered)


async def test_a_batch_like_one_that_was_granted_is_not_halved(make_embedder: MakeEmbedder) -> None:
    """Five refusals in a row, as at the end of a minute: it waits, and goes as it is."""
    server = ScriptedServer()

    async with make_embedder(transport=server, limits=Limits(max_concurrent_requests=1)) as embedder:
        await embedder.embed(texts(8))
        server.reply_next(*[Scripted(status=429)] * 5)
        await embedder.embed(texts(8))

    assert [len(request.inputs) for request in server.received] == [8] * 7


async def test_a_server_that_grants_less_than_before_gets_halves_in_the_end(make_embedder: MakeEmbedder) -> None:
    """It took eight texts once, and takes four now: after nine refusals they are sent in halves."""
    server = ScriptedServer()

    async with make_embedder(transport=server, limits=Limits(max_concurrent_requests=1)) as embedder:
        await embedder.embed(texts(8))
        server.reply_when(lambda request: Scripted(status=429) if len(request.inputs) > 4 else None)
        embeddings = await embedder.embed(texts(8))

    assert not embeddings.failures
    assert [len(request.inputs) for request in server.received] == [8] * 10 + [4, 4]
