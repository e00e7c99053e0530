"""What is left on a connection that is given back, and what goes on after an embedder was closed."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import httpx
import numpy as np
import pytest
import zstandard

from embedbatch import Limits, Retries, RunStoppedError

from .raw import Misdeed, body_of, connect, serve_raw, vectors_of, with_length

pytestmark = pytest.mark.anyio

MANY = [f"text {number}" for number in range(60)]
ALONE = Limits(max_batch_inputs=1, max_concurrent_requests=8, initial_concurrent_requests=8)


def packed(reply: bytes, *, whole: bool) -> bytes:
    """*reply* with its body compressed, and cut off if it is not to be *whole*."""
    body = zstandard.compress(body_of(reply))
    return with_length(body if whole else body[:-3]).replace(b"\r\n", b"\r\nContent-Encoding: zstd\r\n", 1)


def make_client() -> httpx.AsyncClient:
    """A client whose requests wait for one connection: whoever waits gets it as soon as it is free."""
    return httpx.AsyncClient(limits=httpx.Limits(max_connections=1))


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "broken"])
@pytest.mark.parametrize("own", [True, False], ids=["own", "handed in"])
async def test_what_follows_a_compressed_reply_is_not_the_next_ones(
    every_transport: str, own: bool, whole: bool
) -> None:
    """Compressed right or not, whoever gets the connection next gets the vectors of its own texts."""
    good = Misdeed(says=lambda right: packed(right, whole=True), stays=True)
    more = Misdeed(says=lambda right: packed(right, whole=whole) + right, stays=True)
    client = None if own else make_client()
    options: dict[str, Any] = {} if client is None else {"http_client": client, "transport": None}
    options |= {"limits": ALONE, "retries": Retries(max_attempts=20, initial_wait=0.001, max_wait=0.002)}

    async with serve_raw(*[good, good, good, good, more] * 12) as server, connect(server, **options) as embedder:
        embeddings = await embedder.embed(MANY)
    if client is not None:
        await client.aclose()

    assert not server.misdeeds
    np.testing.assert_array_equal(embeddings.vectors, vectors_of(MANY))


async def test_after_it_was_closed_nothing_goes_out(every_transport: str) -> None:
    """In the middle of a run: what was embedded is in the error, no request follows, and no connection stays open."""
    async with serve_raw() as server:
        embedder = connect(server, limits=ALONE)
        errors: list[RunStoppedError] = []

        async def embed() -> None:
            with pytest.raises(RunStoppedError) as caught:
                await embedder.embed(MANY * 50)
            errors.append(caught.value)

        with anyio.fail_after(10):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(embed)
                while server.requests < 30:
                    await anyio.lowlevel.checkpoint()
                await embedder.aclose()
                sent, opened = server.requests, server.connections
            await server.all_closed()

    found = errors[0].embeddings
    assert found is not None
    done = ~np.isnan(found.vectors).any(axis=1)
    assert 20 <= done.sum() < len(MANY) * 50
    np.testing.assert_array_equal(found.vectors[done], vectors_of(MANY * 50)[done])
    assert server.requests <= sent + ALONE.max_concurrent_requests  # those that were on their way
    assert server.connections == opened
