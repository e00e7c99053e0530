"""`ScriptedProxy`: a real server's own replies, but for those that a test has scripted."""

from __future__ import annotations

import numpy as np
import pytest

from embedbatch import ConnectionLostError, Embedder, Retries, RunStoppedError
from embedbatch.testing import Received, Scripted, ScriptedProxy, ScriptedServer

pytestmark = pytest.mark.anyio

TEXTS = [f"text {number}" for number in range(40)]


@pytest.fixture
def proxy(server: ScriptedServer) -> ScriptedProxy:
    """In front of *server*, which stands for a real one."""
    return ScriptedProxy("https://real.test:8443/ignored", transport=server)


def marked(request: Received) -> Scripted | None:
    """A refusal for requests with the eighth text."""
    body = {"error": {"message": "the eighth is not for me"}}
    return Scripted(status=400, body=body) if TEXTS[7] in request.inputs else None


async def test_a_marked_text_is_refused_and_the_others_have_the_servers_vectors(
    server: ScriptedServer, proxy: ScriptedProxy
) -> None:
    """One failure with the scripted reason; the server has never seen the marked text."""
    proxy.reply_when(marked)

    async with Embedder("m", base_url="http://proxy/v1", transport=proxy) as embedder:
        embeddings = await embedder.embed(TEXTS, on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [7]
    assert "the eighth is not for me" in str(embeddings.failures[0].error)
    good = [number for number in range(40) if number != 7]
    np.testing.assert_array_equal(embeddings.vectors[good], [server.vector_of(TEXTS[number]) for number in good])
    assert TEXTS[7] not in [text for request in server.received for text in request.inputs]
    assert len(proxy.received) > len(server.received)
    assert server.is_closed


async def test_a_request_is_passed_on_as_it_came(server: ScriptedServer, proxy: ScriptedProxy) -> None:
    """Path, body and headers are its own; the address, and the Host header with it, are the server's."""
    async with Embedder("m", base_url="http://proxy/a/v1?b=c", api_key="the-key", transport=proxy) as embedder:
        await embedder.embed(["a"])

    (request,) = server.received
    assert request.url == "https://real.test:8443/a/v1/embeddings?b=c"
    assert request.headers["host"] == "real.test:8443"
    assert request.headers["authorization"] == "Bearer the-key"
    assert request.body == proxy.received[0].body


async def test_replies_may_be_faults_that_no_server_shows_on_demand(proxy: ScriptedProxy) -> None:
    """A connection that breaks, twice; then the reply of the real server."""
    proxy.reply_next(Scripted(breaks="read"), Scripted(breaks="body", body=b"half of something"))

    async with Embedder("m", base_url="http://proxy/v1", transport=proxy) as embedder:
        await embedder.embed(["a"])
        proxy.reply_when(lambda request: Scripted(breaks="read"))
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["b"])

    assert isinstance(caught.value.__cause__, ConnectionLostError)
    assert len(proxy.received) == 3 + Retries().max_attempts
