"""Every shape in which servers put their errors, at every status: what a run makes of them."""

from __future__ import annotations

import contextlib
import gzip
import json
import zlib
from typing import Any

import pytest

from embedbatch import (
    AttemptTimeoutError,
    AuthenticationError,
    DocumentFailed,
    Endpoint,
    Event,
    InvalidReplyError,
    MalformedReplyError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestError,
    RequestRefusedError,
    Retries,
    RunStoppedError,
    ServerError,
)
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

WORDS = "These are its words"
PLAIN = Endpoint(name="plain", base_url="http://test/v1", encoding_format=None)  # nothing that could be put otherwise

# The nine shapes, and the bodies without any. What a server is known for is in the reference at its side.
SHAPES: dict[str, Any] = {
    "nested": {"error": {"message": WORDS, "type": "t", "param": None, "code": None}},  # OpenAI
    "nested, code a number": {"error": {"code": 4001, "message": WORDS, "type": "t"}},  # llama.cpp, infinity
    "error a text": {"error": WORDS},
    "flat": {"message": WORDS, "code": 4001, "type": "Validation"},  # text-embeddings-inference
    "flat, an object": {"object": "error", "message": WORDS, "type": "t", "param": None, "code": 4001},  # Mistral, vLLM
    "detail a text": {"detail": WORDS},  # Voyage
    "detail a list": {"detail": [{"loc": ["body"], "msg": WORDS, "type": "missing"}]},  # infinity: FastAPI
    "code and message": {"code": 20015, "message": WORDS, "data": None},  # SiliconFlow
    "errors": {
        "result": None,
        "success": False,
        "errors": [{"code": 5, "message": WORDS}],
        "messages": [],
    },  # Cloudflare
    "message alone": {"message": WORDS},  # Cohere
    "with an id beside it": {"error": {"message": WORDS, "type": "t"}, "id": "x", "request_id": "y"},  # DashScope
    "two objects": json.dumps({"error": {"message": WORDS}}).encode() * 2,  # an older new-api
    "a text": WORDS.encode(),
    "a page": f"<!DOCTYPE html><html><head><title>{WORDS}</title></head></html>".encode(),
    "nothing": b"",
    "half of it": json.dumps({"error": {"message": WORDS, "type": "t"}}).encode()[:-12],
    "UTF-16": json.dumps({"error": {"message": WORDS}}).encode("utf-16"),
}
WORDLESS = {"nothing", "UTF-16"}


def dressed(body: Any, dress: str) -> tuple[dict[str, str], bytes]:
    """The headers and the bytes of *body*, compressed or under a wrong name."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    match dress:
        case "gzip":
            return {"content-encoding": "gzip"}, gzip.compress(data)
        case "deflate":
            return {"content-encoding": "deflate"}, zlib.compress(data)
        case "as html":
            return {"content-type": "text/html; charset=utf-8"}, data
        case _:
            return {}, data


OTHERS = ("gzip", "deflate", "as html")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("status", "dress"),
    [*((status, "plain") for status in (400, 413, 415, 422, 451)), *((400, each) for each in OTHERS)],
)
async def test_a_refusal_is_the_failure_of_one_text(
    status: int, shape: str, dress: str, make_embedder: MakeEmbedder
) -> None:
    """4xx for one of 8 texts: in any shape it alone fails, with the server's words."""
    headers, body = dressed(SHAPES[shape], dress)
    server = ScriptedServer()
    server.reply_when(
        lambda request: Scripted(status=status, headers=headers, body=body) if "bad" in request.inputs else None
    )

    async with make_embedder(transport=server, endpoint=PLAIN) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(["a", "b", "bad", *"cdefg"], on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [2]
    error = embeddings.failures[0].error
    assert isinstance(error, RequestRefusedError)
    assert error.status == status
    assert shape in WORDLESS or WORDS in str(error)


FINAL: list[tuple[int, type[RequestError]]] = [
    (401, AuthenticationError),
    (402, QuotaExhaustedError),
    (403, AuthenticationError),
    (404, ModelNotFoundError),
    (302, RequestRefusedError),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("status", "expected", "dress"), [*((*case, "plain") for case in FINAL), *((*FINAL[0], each) for each in OTHERS)]
)
async def test_what_concerns_everything_stops_the_run(
    status: int, expected: type[RequestError], shape: str, dress: str, make_embedder: MakeEmbedder
) -> None:
    """Key, credit, model, another address: one request in any shape, and the reason with the server's words."""
    headers, body = dressed(SHAPES[shape], dress)
    server = ScriptedServer()
    server.reply_when(lambda request: Scripted(status=status, headers=headers, body=body))

    async with make_embedder(transport=server) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(["a", "b"])

    assert type(caught.value.__cause__) is expected
    assert shape in WORDLESS or WORDS in str(caught.value.__cause__)
    assert len(server.received) == 1


PASSING: list[tuple[int, type[RequestError]]] = [
    (408, AttemptTimeoutError),
    (409, ServerError),
    (424, ServerError),
    (429, RateLimitedError),
    (500, ServerError),
    (502, ServerError),
    (503, ServerError),
    (504, ServerError),
    (524, ServerError),
    (529, ServerError),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("status", "expected", "dress"),
    [*((*case, "plain") for case in PASSING), *((*PASSING[4], each) for each in OTHERS)],
)
async def test_what_passes_is_waited_for(
    status: int, expected: type[RequestError], shape: str, dress: str, make_embedder: MakeEmbedder
) -> None:
    """Once such a reply, in any shape: the request is sent again, and counted under its kind."""
    headers, body = dressed(SHAPES[shape], dress)
    server = ScriptedServer()
    server.reply_next(Scripted(status=status, headers=headers, body=body))

    async with make_embedder(transport=server) as embedder:
        assert_aligned(await embedder.embed(["a", "b"]), ["a", "b"], server)
        faults = embedder.stats().faults

    assert faults == {expected.__name__.removesuffix("Error"): 1}
    assert len(server.received) == 2


@pytest.mark.parametrize("dress", ["plain", *OTHERS])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape != "code and message"])
async def test_an_error_with_status_200_is_no_success(shape: str, dress: str, make_embedder: MakeEmbedder) -> None:
    """In any shape, and as half a body, a page or nothing at all: it is malformed, sent again, and never a vector."""
    headers, body = dressed(SHAPES[shape], dress)
    server = ScriptedServer()
    server.reply_next(Scripted(headers=headers, body=body))

    async with make_embedder(transport=server) as embedder:
        assert_aligned(await embedder.embed(["a", "b"]), ["a", "b"], server)
        faults = embedder.stats().faults

    assert faults == {"MalformedReply": 1}


INNER: list[tuple[dict[str, Any], type[RequestError], bool]] = [
    ({"code": 429}, RateLimitedError, True),
    ({"code": "rate_limit_exceeded"}, RateLimitedError, True),
    ({"code": 503}, ServerError, True),
    ({"code": "bad_response_status_code", "type": "upstream_error", "param": "524"}, MalformedReplyError, True),
    ({"code": 401}, AuthenticationError, False),
    ({"code": "insufficient_user_quota"}, QuotaExhaustedError, False),
    ({"code": "model_not_found"}, ModelNotFoundError, False),
]


@pytest.mark.parametrize(("inner", "expected", "passes"), INNER)
async def test_what_a_gateway_wraps_into_a_200_is_what_it_was(
    inner: dict[str, Any], expected: type[RequestError], passes: bool, make_embedder: MakeEmbedder
) -> None:
    """one-api and new-api answer 200 with an upstream's error: its code says what it is, and what to do."""
    wrapped = Scripted(body={"error": {"message": WORDS, **inner}})
    server = ScriptedServer()
    if passes:
        server.reply_next(wrapped)
        async with make_embedder(transport=server) as embedder:
            assert_aligned(await embedder.embed(["a", "b"]), ["a", "b"], server)
            assert embedder.stats().faults == {expected.__name__.removesuffix("Error"): 1}
        return
    server.reply_when(lambda request: wrapped)
    async with make_embedder(transport=server) as embedder:
        with pytest.raises(RunStoppedError, match=WORDS) as caught:
            await embedder.embed(["a", "b"])
    assert type(caught.value.__cause__) is expected


GOOD = json.dumps(
    {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}], "model": "m"}
).encode()


@pytest.mark.parametrize(
    ("body", "headers", "expected"),
    [
        (GOOD + GOOD, {}, MalformedReplyError),
        (GOOD + b'{"error": {"message": "and then it failed"}}', {}, MalformedReplyError),
        (GOOD[:-1], {}, MalformedReplyError),
        (GOOD[: len(GOOD) // 2], {}, MalformedReplyError),
        (b"", {}, MalformedReplyError),
        (b"   \n", {}, MalformedReplyError),
        (b"null", {}, MalformedReplyError),
        (b"<html>Sign in</html>", {"content-type": "text/html"}, MalformedReplyError),
        (gzip.compress(GOOD)[:-8], {"content-encoding": "gzip"}, None),  # all of it came, but for the checksum
        (gzip.compress(GOOD)[:30], {"content-encoding": "gzip"}, MalformedReplyError),
        (gzip.compress(GOOD), {}, MalformedReplyError),
        (b'{"object": "list", "data": [], "model": "m"}', {}, InvalidReplyError),
        (b'{"object": "", "data": null, "model": ""}', {}, InvalidReplyError),
        # and what is right in an unusual dress
        (GOOD, {"content-type": "text/plain"}, None),
        (GOOD, {"content-type": "text/html; charset=latin-1"}, None),
        (GOOD, {"content-type": ""}, None),
        (b"\n\n" + GOOD + b"\n", {}, None),
        (gzip.compress(GOOD), {"content-encoding": "gzip"}, None),
        (zlib.compress(GOOD), {"content-encoding": "deflate"}, None),
    ],
    ids=range(19),
)
async def test_a_200_is_what_its_body_is(
    body: bytes, headers: dict[str, str], expected: type[RequestError] | None, make_embedder: MakeEmbedder
) -> None:
    """Neither the status nor the content type counts: a whole reply is taken, and nothing else is."""
    server = ScriptedServer()
    server.reply_when(lambda request: Scripted(body=body, headers=headers))
    events: list[Event] = []

    async with make_embedder(
        transport=server, endpoint=PLAIN, retries=Retries(max_attempts=1), observe=events.append
    ) as embedder:
        if expected is None:
            assert (await embedder.embed(["a"])).vectors.tolist() == [[0.5, 0.5]]
            return
        with contextlib.suppress(RunStoppedError):
            await embedder.embed(["a"], on_failure="collect")
    failed = [event for event in events if isinstance(event, DocumentFailed)]
    assert [type(event.failure.error) for event in failed] == [expected]
