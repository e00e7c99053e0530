"""What the tests over httpx share: a respx router, and real servers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, TypeAlias

import httpx
import pytest
import respx

from embedbatch import Embedder, Retries
from embedbatch.testing import ScriptedServer

from . import raw
from .asking import reply
from .loopback import serve_in_a_thread

MakeEmbedder: TypeAlias = Callable[..., Embedder]

URL = "https://api.test/v1/embeddings"


@pytest.fixture(params=raw.CARRIERS)
def every_transport(request: pytest.FixtureRequest) -> Iterator[str]:
    """
    Run the test that asks for this with each transport, on each event loop that it runs on, in real time.

    The value is the name of the event loop.
    """
    backend, raw.over = raw.CARRIERS[request.param]
    yield backend
    raw.over = None


@pytest.fixture
def router() -> respx.MockRouter:
    """Routes that a test fills in. A request that none of them fits is an error."""
    return respx.MockRouter(assert_all_called=False)


@pytest.fixture
def make_embedder(router: respx.MockRouter) -> MakeEmbedder:
    """Make an embedder whose requests go to the router; it tries once, and its dice are seeded."""

    def make(model: str = "test-model", **options: Any) -> Embedder:
        transport = httpx.MockTransport(router.async_handler)
        defaults = {"base_url": "https://api.test/v1", "retries": Retries(max_attempts=1), "rng": Random(7)}
        return Embedder(model, **{"transport": transport, **defaults, **options})

    return make


@pytest.fixture
def script() -> ScriptedServer:
    """What the loopback server says."""
    return ScriptedServer()


@pytest.fixture
def loopback(script: ScriptedServer) -> Iterator[str]:
    """The address of a real server on loopback, which runs in a thread of its own."""
    with serve_in_a_thread(script) as base_url:
        yield base_url


@pytest.fixture
def route(router: respx.MockRouter) -> respx.Route:
    """The embeddings path; one right vector, if the test says nothing else."""
    return router.post(URL).respond(json=reply())
