"""The embedded model as an endpoint: what OpenAI's contract allows is answered, what it forbids is refused as there."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import httpx
import numpy as np
import numpy.typing as npt
import pytest

from embedbatch.errors import ConfigurationError
from embedbatch.local import LocalApp, load


@pytest.fixture
def anyio_backend() -> str:
    """Asyncio in real time: the model works in threads."""
    return "asyncio"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with connect(LocalApp()) as client:
        yield client


def connect(app: LocalApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://embedbatch.local")


async def post(client: httpx.AsyncClient, **body: object) -> httpx.Response:
    return await client.post("/v1/embeddings", json={"model": "local", **body})


def vectors_in(response: httpx.Response) -> npt.NDArray[np.float32]:
    assert response.status_code == 200, response.text
    return np.array([item["embedding"] for item in response.json()["data"]], np.float32)


def assert_refused(
    response: httpx.Response, status: int, message: str, *, param: str | None = None, code: str | None = None
) -> None:
    error = response.json()["error"]
    assert response.status_code == status
    assert message in error.pop("message")
    assert error == {"type": "invalid_request_error", "param": param, "code": code}


# What is answered


@pytest.mark.anyio
async def test_a_reply_has_the_shape_of_openais(client: httpx.AsyncClient) -> None:
    """The reply has OpenAI's fields and no other; items carry their index, in order."""
    response = await post(client, input=["one", "two"], user="someone")

    reply = response.json()
    data = reply.pop("data")
    assert response.headers["content-type"] == "application/json"
    assert reply == {"object": "list", "model": "local", "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    assert [set(item) for item in data] == [{"object", "index", "embedding"}] * 2
    assert [(item["object"], item["index"]) for item in data] == [("embedding", 0), ("embedding", 1)]


@pytest.mark.anyio
async def test_every_form_of_input_gives_the_models_vectors(client: httpx.AsyncClient) -> None:
    """A text, an array of texts, a token array and an array of token arrays: the model's vectors, bit for bit."""
    texts = ["first text", "and the second 🌊"]
    expected, _ = load().embed(texts)
    tokens = [ids.tolist() for ids in load().tokenizer.encode(texts)]

    for given, rows in [(texts[0], 1), (texts, 2), (tokens[0], 1), (tokens, 2)]:
        vectors = vectors_in(await post(client, input=given))
        np.testing.assert_array_equal(vectors, expected[:rows])


@pytest.mark.anyio
async def test_base64_and_float_are_the_same_numbers(client: httpx.AsyncClient) -> None:
    """base64 holds little-endian float32, bit for bit the numbers that "float" writes out."""
    as_floats = vectors_in(await post(client, input=["a", "b"], encoding_format="float"))

    response = await post(client, input=["a", "b"], encoding_format="base64")

    rows = [np.frombuffer(base64.b64decode(item["embedding"]), "<f4") for item in response.json()["data"]]
    np.testing.assert_array_equal(rows, as_floats)


@pytest.mark.anyio
@pytest.mark.parametrize("dimensions", [1, 64, 255, 256])
@pytest.mark.parametrize("encoding_format", ["float", "base64"])
async def test_fewer_dimensions_are_the_first_ones_at_length_one(
    client: httpx.AsyncClient, dimensions: int, encoding_format: str
) -> None:
    """dimensions=n gives the first n numbers of the whole vector, scaled to norm 1."""
    whole = vectors_in(await post(client, input="some text"))[0]

    response = await post(client, input="some text", dimensions=dimensions, encoding_format=encoding_format)

    embedding = response.json()["data"][0]["embedding"]
    vector = np.array(embedding if encoding_format == "float" else np.frombuffer(base64.b64decode(embedding), "<f4"))
    start = whole[:dimensions]
    assert vector.shape == (dimensions,)
    np.testing.assert_allclose(vector, start / np.linalg.norm(start), rtol=1e-5)


@pytest.mark.anyio
async def test_usage_is_the_sum_of_the_counts(client: httpx.AsyncClient) -> None:
    """Usage counts the tokens of all texts, as the tokenizer does."""
    texts = ["short", "a longer text of several words", "😀"]

    usage = (await post(client, input=texts)).json()["usage"]

    tokens = sum(map(load().tokenizer.count, texts))
    assert usage == {"prompt_tokens": tokens, "total_tokens": tokens}


@pytest.mark.anyio
async def test_the_limits_themselves_are_legal(client: httpx.AsyncClient) -> None:
    """2,048 inputs are answered, and so is one of 8,192 tokens."""
    assert len(vectors_in(await post(client, input=["x"] * 2_048))) == 2_048
    assert len(vectors_in(await post(client, input=[5] * 8_192))) == 1


@pytest.mark.anyio
async def test_a_blank_text_is_answered(client: httpx.AsyncClient) -> None:
    """White space has tokens, so it has a vector; only the empty text has none."""
    assert vectors_in(await post(client, input=[" ", "\n"])).shape == (2, 256)


# What is refused


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("fields", "message", "param"),
    [
        ({"input": ""}, "length >= 1", "input"),
        ({"input": ["a", ""]}, "length >= 1 - at `$[1]`", "input"),
        ({"input": []}, "at least 1 input", "input"),
        ({"input": [[1], []]}, "length >= 1 - at `$[1]`", "input"),
        ({"input": ["a"] * 2_049}, "length <= 2048", "input"),
        ({"input": [[1]] * 2_049}, "length <= 2048", "input"),
        ({"input": 3}, "got `int` - at `$.input`", "input"),
        ({"input": None}, "got `null` - at `$.input`", "input"),
        ({"input": ["a", 3]}, "Expected `str`, got `int` - at `$[1]`", "input"),
        ({"input": [3, "a"]}, "Expected `int`, got `str` - at `$[1]`", "input"),
        ({"input": [[3], "a"]}, "Expected `array`, got `str` - at `$[1]`", "input"),
        ({"input": [["a"]]}, "Expected `int`, got `str`", "input"),
        ({"input": [True]}, "got `bool`", "input"),
        ({"input": [1.5]}, "got `float`", "input"),
        ({"input": [-1]}, "`int` >= 0", "input"),
        ({"input": [[7, 32_000]]}, "`int` <= 31999 - at `$[0][1]`", "input"),
        ({"input": [10**30]}, "Expected `int", "input"),
        ({"input": "a", "dimensions": 0}, "`int` >= 1", "dimensions"),
        ({"input": "a", "dimensions": 257}, "`int` <= 256", "dimensions"),
        ({"input": "a", "dimensions": "64"}, "got `str`", "dimensions"),
        ({"input": "a", "encoding_format": "int8"}, "Invalid enum value 'int8'", "encoding_format"),
        ({"input": "a", "model": None}, "got `null`", "model"),
        ({}, "missing required field `input`", "input"),
    ],
)
async def test_a_bad_field_is_refused_by_name(
    client: httpx.AsyncClient, fields: dict[str, object], message: str, param: str
) -> None:
    """A field of the wrong type or out of range is a 400 that says what was expected, where, and of which field."""
    assert_refused(await post(client, **fields), 400, message, param=param)


@pytest.mark.anyio
async def test_a_request_without_a_model_is_refused(client: httpx.AsyncClient) -> None:
    """The model has no default: leaving it out is a 400."""
    response = await client.post("/v1/embeddings", json={"input": "a"})

    assert_refused(response, 400, "missing required field `model`", param="model")


@pytest.mark.anyio
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"model": "local", "input": "\xff"}',
        b'{"model": "local", "input": "\\ud800"}',
        b'{"user": ' + b"[" * 100_000,
    ],
    ids=["empty", "cut off", "not UTF-8", "not UTF-8 inside", "lone surrogate", "too deep"],
)
async def test_what_is_not_json_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    """A body that is not JSON in UTF-8 is a 400."""
    assert_refused(await client.post("/v1/embeddings", content=body), 400, "could not parse the JSON body")


@pytest.mark.anyio
async def test_json_that_is_no_object_is_refused(client: httpx.AsyncClient) -> None:
    """A body that is JSON, but not an object, is a 400 of no field."""
    assert_refused(await client.post("/v1/embeddings", json=["a"]), 400, "Expected `object`, got `array`")


@pytest.mark.anyio
@pytest.mark.parametrize("given", ["\n" * 8_192, ["fits", "\n" * 8_192], [5] * 8_193, [[5], [5] * 8_193]])
async def test_an_input_that_is_too_long_is_refused_with_its_count(client: httpx.AsyncClient, given: object) -> None:
    """One token above 8,192, in a text or a token array, is OpenAI's 400 with the number of tokens."""
    message = (
        "This model's maximum context length is 8192 tokens, however you requested 8193 tokens "
        "(8193 in your prompt; 0 for the completion)."
    )

    assert_refused(await post(client, input=given), 400, message, param="input")


@pytest.mark.anyio
async def test_a_text_that_cannot_fit_is_refused_without_counting(client: httpx.AsyncClient) -> None:
    """More than 16 characters for each of 8,192 tokens cannot fit: refused with the least it could have."""
    response = await post(client, input="a" * (16 * 8_192 + 1))

    assert_refused(response, 400, "however you requested at least 8193 tokens", param="input")


@pytest.mark.anyio
async def test_another_model_is_not_found(client: httpx.AsyncClient) -> None:
    """A model other than "local" is a 404 with OpenAI's code."""
    response = await post(client, input="a", model="text-embedding-3-small")

    assert_refused(response, 404, "`text-embedding-3-small` does not exist", param="model", code="model_not_found")


@pytest.mark.anyio
async def test_another_path_is_not_found(client: httpx.AsyncClient) -> None:
    """A path other than /v1/embeddings is a 404."""
    assert_refused(await client.post("/v1/chat/completions", json={}), 404, "Invalid URL (POST /v1/chat/completions)")


@pytest.mark.anyio
async def test_another_method_is_not_allowed(client: httpx.AsyncClient) -> None:
    """A method other than POST is a 405 that says which one is allowed."""
    response = await client.get("/v1/embeddings")

    assert_refused(response, 405, "Not allowed to GET")
    assert response.headers["allow"] == "POST"


@pytest.mark.anyio
async def test_the_models_are_listed(client: httpx.AsyncClient) -> None:
    """There is one: it is in the list, and can be asked for by its name; another cannot, and nothing is posted."""
    model = {"id": "local", "object": "model", "created": 0, "owned_by": "embedbatch"}

    assert (await client.get("/v1/models")).json() == {"object": "list", "data": [model]}
    assert (await client.get("/v1/models/local")).json() == model
    assert_refused(await client.get("/v1/models/no"), 404, "`no` does not exist", param="model", code="model_not_found")
    assert (await client.post("/v1/models", json={})).headers["allow"] == "GET"


@pytest.mark.anyio
async def test_a_key_opens_the_app_that_asks_for_it() -> None:
    """With an api_key, the request that carries it is answered."""
    async with connect(LocalApp(api_key="sesame")) as client:
        client.headers["authorization"] = "Bearer sesame"

        assert vectors_in(await post(client, input="a")).shape == (1, 256)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("headers", "message", "code"),
    [
        ({}, "didn't provide an API key", None),
        ({"authorization": "Bearer wrong"}, "Incorrect API key", "invalid_api_key"),
        ({"authorization": "sesame"}, "Incorrect API key", "invalid_api_key"),
        ({"authorization": "Bearer sesame2"}, "Incorrect API key", "invalid_api_key"),
    ],
)
async def test_without_its_key_the_app_stays_closed(headers: dict[str, str], message: str, code: str | None) -> None:
    """With an api_key, a missing or another key is a 401, before the body is looked at."""
    async with connect(LocalApp(api_key="sesame")) as client:
        response = await client.post("/v1/embeddings", content=b"{", headers=headers)

    assert_refused(response, 401, message, code=code)
    assert response.headers["www-authenticate"] == "Bearer"


def test_an_empty_key_is_a_mistake() -> None:
    """An api_key of no characters, such as an unset variable, is refused at construction."""
    with pytest.raises(ConfigurationError, match="api_key: expected at least 1 character"):
        LocalApp(api_key="")


@pytest.mark.anyio
async def test_a_body_that_is_too_large_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    """Above 8 MB the answer is a 413, and not one part more is read than shows it."""
    parts_read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal parts_read
        while True:
            parts_read += 1
            yield b" " * 1_000_000

    response = await client.post("/v1/embeddings", content=endless())

    assert_refused(response, 413, "at most 8,000,000 bytes")
    assert parts_read == 9


# Under an ASGI server


class Wire:
    """The server's side of one ASGI connection: gives *messages* to the app, keeps what it sends."""

    def __init__(self, *messages: MutableMapping[str, Any]) -> None:
        self._messages = iter(messages)
        self.sent: list[MutableMapping[str, Any]] = []

    async def receive(self) -> MutableMapping[str, Any]:
        return next(self._messages)

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)


@pytest.mark.anyio
async def test_a_client_that_leaves_gets_no_reply() -> None:
    """When the client goes away before its body is complete, the app ends and sends nothing."""
    wire = Wire({"type": "http.request", "body": b'{"mod', "more_body": True}, {"type": "http.disconnect"})
    scope = {"type": "http", "method": "POST", "path": "/v1/embeddings", "headers": []}

    await LocalApp()(scope, wire.receive, wire.send)

    assert wire.sent == []


@pytest.mark.anyio
async def test_lifespan_is_acknowledged() -> None:
    """Startup and shutdown are each answered with their completion, and then the app ends."""
    wire = Wire({"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})

    await LocalApp()({"type": "lifespan"}, wire.receive, wire.send)

    assert wire.sent == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


@pytest.mark.anyio
async def test_other_protocols_are_not_spoken() -> None:
    """A websocket is refused as ASGI wants it: by an error that names the scope."""
    wire = Wire()

    with pytest.raises(ValueError, match="got 'websocket'"):
        await LocalApp()({"type": "websocket"}, wire.receive, wire.send)


@pytest.mark.anyio
async def test_the_loop_goes_on_while_the_model_works(client: httpx.AsyncClient) -> None:
    """While requests of half a megabyte are embedded, other tasks of the loop get their turns."""
    turns = 0
    replies: list[httpx.Response] = []

    async def request() -> None:
        replies.append(await post(client, input=["many words " * 500] * 100, encoding_format="base64"))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(request)
        tasks.start_soon(request)
        while len(replies) < 2:
            await anyio.lowlevel.checkpoint()
            turns += 1

    assert [reply.status_code for reply in replies] == [200, 200]
    assert turns > 100


@pytest.mark.anyio
async def test_one_app_serves_loops_in_several_threads() -> None:
    """Requests from two event loops at the same time are all answered by one app."""
    app = LocalApp()

    async def session() -> list[int]:
        # The timeout turns a wake-up that never comes, from the other loop's thread, into a failure.
        async with asyncio.timeout(30), connect(app) as client:
            replies = await asyncio.gather(*(post(client, input=["some words " * 50] * 20) for _ in range(10)))
        return [reply.status_code for reply in replies]

    statuses: list[int] = []

    async def loop_of_its_own() -> None:
        statuses.extend(await anyio.to_thread.run_sync(lambda: asyncio.run(session())))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(loop_of_its_own)
        tasks.start_soon(loop_of_its_own)

    assert statuses == [200] * 20
