"""respx holds the HTTP side to the contract: what comes back, redirects, and a client of the caller's own."""

from __future__ import annotations

import base64
import gzip
import json
import struct
import zlib
from typing import Any

import httpx
import pytest
import respx

from embedbatch import (
    AttemptTimeoutError,
    AuthenticationError,
    ConfigurationError,
    ConnectionLostError,
    Embedder,
    Endpoint,
    FailedDocumentsError,
    MalformedReplyError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestRefusedError,
    Retries,
    RunStoppedError,
    ServerError,
)

from .asking import VECTOR, Body, fail_one, give_up_one, reply, sent, stop_one
from .conftest import URL, MakeEmbedder

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]


# Replies


@pytest.mark.parametrize(
    "embedding",
    [VECTOR, base64.b64encode(struct.pack("<3f", *VECTOR)).decode()],
    ids=["floats", "base64"],
)
async def test_a_vector_is_read_by_its_type(embedding: Any, route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """A list of numbers, or base64 of little-endian float32: the same vector, whatever was asked for."""
    route.respond(json={"data": [{"index": 0, "embedding": embedding}]})

    async with make_embedder() as embedder:
        vector = await embedder.embed_one("a")

    assert vector.tolist() == VECTOR


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body, wbits=-15)),
        ("gzip, deflate", lambda body: zlib.compress(gzip.compress(body))),
        ("identity", bytes),
    ],
)
async def test_a_compressed_reply_is_unpacked(
    name: str, compress: Any, router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """gzip, deflate in both of its forms, both at once, and none."""
    packed = compress(json.dumps(reply()).encode())
    headers = {"content-encoding": name}
    router.post(URL).side_effect = lambda request: httpx.Response(200, headers=headers, stream=Body([packed]))

    async with make_embedder() as embedder:
        vector = await embedder.embed_one("a")

    assert vector.tolist() == VECTOR


# httpx leaves its generators open when a decoder fails, and trio warns when they are collected.
@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
@pytest.mark.parametrize("spoil", [lambda packed: b"no gzip", lambda packed: packed[:-8] + bytes(8)])
async def test_broken_compression_is_a_malformed_reply(
    spoil: Any, router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """What does not unpack, or has the wrong checksum, is not used."""
    packed = spoil(gzip.compress(json.dumps(reply()).encode()))
    headers = {"content-encoding": "gzip"}
    router.post(URL).side_effect = lambda request: httpx.Response(200, headers=headers, stream=Body([packed]))

    failure = await give_up_one(make_embedder())

    assert isinstance(failure.error, MalformedReplyError)
    assert "the reply's compression is broken" in str(failure.error)


@pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")
async def test_an_error_with_broken_compression_keeps_its_status(
    router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """A 429 is a 429, and its retry-after-ms counts, although its text cannot be read."""
    headers = {"content-encoding": "gzip", "retry-after-ms": "20"}
    refusal = httpx.Response(429, headers=headers, stream=Body([b"no gzip"]))
    replies = iter([refusal, httpx.Response(200, json=reply())])
    router.post(URL).side_effect = lambda request: next(replies)

    async with make_embedder(retries=Retries(max_attempts=2)) as embedder:
        await embedder.embed("a")
        stats = embedder.stats()

    assert stats.faults == {"RateLimited": 1}
    assert stats.paused_seconds == 0.02


@pytest.mark.parametrize("status", [200, 201, 203])
async def test_every_success_is_read_to_its_end(status: int, route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """A gateway's 201 is a reply like any other, also when it is larger than an error may be."""
    route.respond(status, json={**reply(256), "padding": "x" * 100_000})

    async with make_embedder() as embedder:
        embeddings = await embedder.embed(["a"] * 256)

    assert embeddings.vectors.tolist() == [VECTOR] * 256


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, {"error": {"message": "its words"}}, RequestRefusedError),
        (413, "its words", RequestRefusedError),
        (422, {"detail": [{"msg": "its words"}]}, RequestRefusedError),
        (429, {"error": {"message": "its words", "code": "rate_limit_exceeded"}}, RateLimitedError),
        (408, {"error": "its words"}, AttemptTimeoutError),
        (500, {"message": "its words", "code": 500, "type": "Internal"}, ServerError),
        (502, "<html>its words</html>", ServerError),
        (503, {"errors": [{"message": "its words"}]}, ServerError),
        (529, {"detail": "its words"}, ServerError),
    ],
)
async def test_a_status_has_its_type(
    status: int, body: Any, expected: type[Exception], route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """
    The document fails with a type that says what to do, the status, the server's words, and its request id.

    A refusal concerns the document alone; where the only attempt brought nothing else, the run stops as well.
    """
    content = body if isinstance(body, str) else json.dumps(body)
    route.respond(status, text=content, headers={"x-request-id": "req-1"})

    end_one = fail_one if expected is RequestRefusedError else give_up_one
    once = Retries(max_attempts=1, budget=1)  # a rate is asked for again whatever the attempts, while there is a budget
    error: Any = (await end_one(make_embedder(retries=once))).error

    assert type(error) is expected
    assert (error.status, error.request_id) == (status, "req-1")
    assert "its words" in str(error)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, {"error": {"message": "its words", "code": "invalid_api_key"}}, AuthenticationError),
        (403, {"error": {"message": "its words"}}, AuthenticationError),
        (404, {"error": {"message": "its words", "code": "model_not_found"}}, ModelNotFoundError),
        (402, {"error": {"message": "its words"}}, QuotaExhaustedError),
        (429, {"error": {"message": "its words", "code": "insufficient_quota"}}, QuotaExhaustedError),
        (200, {"error": {"message": "its words", "code": "insufficient_quota"}}, QuotaExhaustedError),
    ],
)
async def test_what_no_second_request_can_mend_stops_the_run(
    status: int, body: Any, expected: type[Exception], route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """Key, model and quota: one request, however many attempts are allowed."""
    route.respond(status, json=body)

    error: Any = await stop_one(make_embedder(retries=Retries(max_attempts=6)))

    assert type(error) is expected
    assert error.status == status
    assert "its words" in str(error)
    assert route.call_count == 1


@pytest.mark.parametrize("size", [200_000, 65_536, 65_537])
async def test_of_an_error_only_64_kb_are_read(
    size: int, router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """Some servers echo every input in the error: what comes after 64 kB is not read, and the response is closed."""
    body = Body([b"x" * 4_096] * (size // 4_096) + [b"y" * (size % 4_096)])
    router.post(URL).side_effect = lambda request: httpx.Response(400, stream=body)

    failure = await fail_one(make_embedder(endpoint=Endpoint(name="plain", encoding_format=None)))

    assert isinstance(failure.error, RequestRefusedError)
    assert body.read == 65_536
    assert body.is_closed


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, {"error": {"message": "you said sk-secret"}}),
        (500, "Authorization: Bearer sk-secret"),
        (200, {"error": {"message": "you said sk-secret"}}),
        (200, "Authorization: Bearer sk-secret"),
        (307, "you said sk-secret"),
    ],
)
async def test_a_key_that_a_server_repeats_is_struck_out(
    status: int, body: Any, route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """Whatever the status: the message that goes into logs and files has [key] in its place."""
    route.respond(status, text=body if isinstance(body, str) else json.dumps(body))

    async with make_embedder(api_key="sk-secret") as embedder:
        with pytest.raises((FailedDocumentsError, RunStoppedError)) as caught:
            await embedder.embed(["a"])

    assert caught.value.embeddings is not None
    failures = [failure.error for failure in caught.value.embeddings.failures]
    assert "[key]" in str(caught.value)
    for said in (caught.value, caught.value.__cause__, *failures):
        assert "sk-secret" not in str(said)


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location", ["https://evil.test/v1/embeddings", "/v2/embeddings", "http://api.test/v1/embeddings"]
)
async def test_a_redirect_is_never_followed(
    status: int, location: str, router: respx.MockRouter, route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """To another host, the same, or without TLS: one request; key and texts go nowhere else, and the run stops."""
    elsewhere = router.route().respond(json=reply())
    route.respond(status, headers={"location": location})

    error = await stop_one(make_embedder(api_key="sk-123", retries=Retries(max_attempts=6)))

    assert isinstance(error, RequestRefusedError)
    assert error.status == status
    assert (route.call_count, elsewhere.call_count) == (1, 0)


@pytest.mark.parametrize("location", ["mailto:someone", "http://[::1/", "https://a:b:c/", "//", "\x7f"])
async def test_a_redirect_to_nowhere_is_a_typed_failure(
    location: str, route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """
    httpx reads the address although it does not follow it.

    What it cannot read ends the attempt, and what it can the run: no error of its own comes out, nothing is followed.
    """
    route.respond(302, headers={"location": location})

    async with make_embedder() as embedder:
        try:
            failed = await embedder.embed(["a"], on_failure="collect")
            error: BaseException | None = failed.failures[0].error
        except RunStoppedError as stopped:
            error = stopped.__cause__

    assert isinstance(error, ConnectionLostError | RequestRefusedError)
    assert route.call_count == 1


# The caller's client


async def test_a_client_that_is_handed_in_is_used_and_left_open(router: respx.MockRouter, route: respx.Route) -> None:
    """Its headers go along, ours win; aclose() leaves it to its owner."""
    async with httpx.AsyncClient(
        transport=httpx.MockTransport(router.async_handler), headers={"x-mine": "1", "accept": "text/html"}
    ) as client:
        async with Embedder("test-model", base_url="https://api.test/v1", http_client=client) as embedder:
            await embedder.embed("a")

        assert not client.is_closed

    headers = sent(route).headers
    assert (headers["x-mine"], headers["accept"]) == ("1", "application/json")


@pytest.mark.parametrize("status", [301, 307])
async def test_a_client_that_follows_redirects_does_not_follow_ours(
    status: int, router: respx.MockRouter, route: respx.Route
) -> None:
    """follow_redirects=True is the caller's wish for other requests: the key stays here."""
    elsewhere = router.post("https://evil.test/").respond(json=reply())
    route.respond(status, headers={"location": "https://evil.test/"})
    transport = httpx.MockTransport(router.async_handler)

    async with httpx.AsyncClient(transport=transport, follow_redirects=True) as client:
        embedder = Embedder("test-model", base_url="https://api.test/v1", api_key="sk-123", http_client=client)
        error = await stop_one(embedder)

    assert isinstance(error, RequestRefusedError)
    assert (route.call_count, elsewhere.call_count) == (1, 0)


class Closable(httpx.MockTransport):
    """Notes that it was closed."""

    is_closed = False

    async def aclose(self) -> None:
        self.is_closed = True


async def test_a_client_of_our_own_is_closed(router: respx.MockRouter, route: respx.Route) -> None:
    """aclose() closes the connections; after it, embed() is refused."""
    transport = Closable(router.async_handler)
    embedder = Embedder("test-model", base_url="https://api.test/v1", transport=transport)

    await embedder.embed("a")
    await embedder.aclose()

    assert transport.is_closed
    with pytest.raises(ConfigurationError, match="closed"):
        await embedder.embed("a")


async def test_an_embedder_that_never_sent_anything_can_be_closed(
    route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """Twice, even."""
    embedder = make_embedder()

    await embedder.aclose()
    await embedder.aclose()

    assert not route.called
