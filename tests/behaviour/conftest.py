"""A scripted server, and embedders that talk to it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, TypeAlias

import numpy as np
import pytest

from embedbatch import Embedder, Embeddings
from embedbatch.testing import ScriptedServer

MakeEmbedder: TypeAlias = Callable[..., Embedder]


@pytest.fixture
def server() -> ScriptedServer:
    """A server that answers at once, with vectors of 8 numbers."""
    return ScriptedServer()


@pytest.fixture
def make_embedder(server: ScriptedServer) -> MakeEmbedder:
    """Make an embedder that talks to the server; its dice are seeded."""

    def make(model: str = "test-model", **options: Any) -> Embedder:
        options = {"base_url": "http://test/v1", "transport": server, "rng": Random(7), **options}
        return Embedder(model, **options)

    return make


async def warm_up(embedder: Embedder, server: ScriptedServer, *, places: int) -> None:
    """
    Let *embedder* find out that *places* requests may be in flight; the server forgets about it.

    Before the first good reply one is in flight, then 4. More takes a server whose replies take time.
    """
    await embedder.embed(["warm"])
    for _ in range(50):
        if embedder.stats().capacity[0].places >= places:
            break
        await embedder.embed([f"warm {n}" for n in range(4 * places)])
    assert embedder.stats().capacity[0].places == places
    server.received.clear()
    server.max_in_flight = 0


def assert_aligned(embeddings: Embeddings, texts: list[Any], server: ScriptedServer) -> None:
    """Assert that every row is the vector of its own text, bit by bit."""
    expected = np.stack([server.vector_of(text) for text in texts])
    np.testing.assert_array_equal(embeddings.vectors, expected)
