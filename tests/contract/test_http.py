"""respx holds the HTTP side to the contract: what is sent, how long it may take, what goes wrong on the way."""

from __future__ import annotations

import json
import os
from typing import Any

import anyio
import anyio.lowlevel
import httpx
import pytest
import respx

from embedbatch import (
    AttemptTimeoutError,
    ConfigurationError,
    ConnectionFailedError,
    ConnectionLostError,
    Endpoint,
    MalformedReplyError,
)
from embedbatch.version import VERSION

from .asking import Body, give_up_one, reply, sent
from .conftest import URL, MakeEmbedder

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]


# The request


async def test_a_request_is_exactly_the_contracts(route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """The body is these bytes and no others: model, encoding_format and the array of inputs, as UTF-8."""
    route.respond(json=reply(3))

    async with make_embedder() as embedder:
        await embedder.embed(["plain", 'quo"te\n', "日本 🌊"])

    request = sent(route)
    assert request.method == "POST"
    assert request.content == (
        '{"model":"test-model","encoding_format":"base64","input":["plain","quo\\"te\\n","日本 🌊"]}'.encode()
    )
    assert request.headers["content-length"] == str(len(request.content))


async def test_options_of_the_body_are_sent_under_their_names(route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """dimensions= and user= become fields, extra_body= adds to them and wins."""
    async with make_embedder(dimensions=3, user="someone", extra_body={"truncate": "END", "user": "other"}) as embedder:
        await embedder.embed("a")

    assert json.loads(sent(route).content) == {
        "model": "test-model",
        "encoding_format": "base64",
        "dimensions": 3,
        "user": "other",
        "truncate": "END",
        "input": ["a"],
    }


async def test_token_arrays_are_sent_nested(route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """Also a single one: the contract limits a flat array of tokens to 2,048 numbers."""
    endpoint = Endpoint(name="test", token_arrays=True)

    async with make_embedder(endpoint=endpoint) as embedder:
        await embedder.embed([1, 2, 3])

    assert json.loads(sent(route).content)["input"] == [[1, 2, 3]]


@pytest.mark.parametrize("encoding_format", ["float", None])
async def test_an_endpoint_says_what_is_asked_for(
    encoding_format: Any, route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """encoding_format is the endpoint's; with None the field is left out."""
    endpoint = Endpoint(name="test", encoding_format=encoding_format)

    async with make_embedder(endpoint=endpoint) as embedder:
        await embedder.embed("a")

    assert json.loads(sent(route).content).get("encoding_format") == encoding_format


@pytest.mark.parametrize(
    ("base_url", "path", "url"),
    [
        ("https://api.test/v1", "/embeddings", "https://api.test/v1/embeddings"),
        ("https://api.test/v1/", "/embeddings", "https://api.test/v1/embeddings"),
        ("https://api.test", "/embeddings", "https://api.test/embeddings"),
        ("http://api.test:8080/a/b//", "/embeddings", "http://api.test:8080/a/b/embeddings"),
        (
            "https://api.test/v1?api-version=2024-02-01",
            "/embeddings",
            "https://api.test/v1/embeddings?api-version=2024-02-01",
        ),
        ("https://api.test/d", "/embeddings?api-version=1", "https://api.test/d/embeddings?api-version=1"),
        (" https://api.test/v1\n", "/embeddings", "https://api.test/v1/embeddings"),
        ("http://[::1]:8000/v1", "/embeddings", "http://[::1]:8000/v1/embeddings"),
    ],
)
async def test_the_path_is_joined_to_the_base_url(
    base_url: str, path: str, url: str, router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """With or without slashes at its end, with a path or a query of its own: exactly one slash between the two."""
    route = router.post().respond(json=reply())

    async with make_embedder(base_url=base_url, endpoint=Endpoint(name="test", path=path)) as embedder:
        await embedder.embed("a")

    assert str(sent(route).url) == url


@pytest.mark.parametrize(
    "base_url",
    [
        "api.test/v1",
        "ftp://api.test",
        "https://",
        "https:///v1",
        "http://[::1",
        "http://api.test:port/v1",
        "http://api.test:99999/v1",
        "http://256.256.256.256/v1",
        "http://api..test/v1",
        f"http://{'a' * 64}.test/v1",
        "http://xn--/v1",
        "http://\u200b/v1",
    ],
)
async def test_an_address_that_is_none_is_refused(
    base_url: str, router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """A ConfigurationError that shows it, before anything is sent; nothing of what httpx or a socket would say."""
    with pytest.raises(ConfigurationError, match="base_url: expected an http or https address, got"):
        async with make_embedder(base_url=base_url) as embedder:
            await embedder.embed("a")

    assert not router.calls


async def test_headers_are_those_of_the_contract(route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """A bearer token, JSON both ways, and a user agent that names this package and its version."""
    async with make_embedder(api_key="sk-123") as embedder:
        await embedder.embed("a")

    headers = sent(route).headers
    assert headers["authorization"] == "Bearer sk-123"
    assert headers["content-type"] == "application/json"
    assert headers["accept"] == "application/json"
    assert headers["user-agent"] == f"embedbatch/{VERSION}"
    assert {"gzip", "deflate"} <= set(headers["accept-encoding"].split(", "))


async def test_without_a_key_nothing_is_said_about_it(route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """Servers on one's own machine need none: no Authorization header, not an empty one."""
    async with make_embedder() as embedder:
        await embedder.embed("a")

    assert "authorization" not in sent(route).headers


async def test_default_headers_replace_and_add(route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """Whatever their case: each header is sent once, with the caller's value."""
    given = {"AUTHORIZATION": "Token t", "content-TYPE": "application/x", "api-key": "azure", "user-agent": "mine"}

    async with make_embedder(api_key="sk-123", default_headers=given) as embedder:
        await embedder.embed("a")

    headers = sent(route).headers
    assert {name: headers.get_list(name) for name in given} == {name: [value] for name, value in given.items()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"api_key": "sk-secret\n"}, "api_key: expected ASCII characters, without white space"),
        ({"api_key": " sk-secret"}, "api_key: expected ASCII characters, without white space"),
        ({"api_key": "sk–secret"}, "api_key: expected ASCII characters"),
        ({"api_key": "sk-\x00secret"}, "api_key: expected ASCII characters, without white space"),
        ({"default_headers": {"x-name": "sk-secret\r\nx-other: 1"}}, "default_headers: 'x-name'"),
        ({"default_headers": {"x name": "sk-secret"}}, "default_headers: 'x name'"),
        ({"default_headers": {"x-name": 5}}, "default_headers: 'x-name'"),
        ({"default_headers": {"x-name": None}}, "default_headers: 'x-name'"),
        ({"default_headers": {"Transfer-Encoding": "chunked"}}, "default_headers: 'Transfer-Encoding'"),
        ({"default_headers": {"content-length": "5"}}, "default_headers: 'content-length'"),
    ],
)
async def test_what_no_header_can_carry_is_refused(
    options: dict[str, Any], message: str, router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """A key with a newline, say, from a file: a ConfigurationError that does not show it, before anything is sent."""
    with pytest.raises(ConfigurationError, match=message) as caught:
        async with make_embedder(**options) as embedder:
            await embedder.embed("a")

    assert "secret" not in str(caught.value)
    assert not router.calls


async def test_address_and_key_are_taken_from_the_environment(
    router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """OPENAI_BASE_URL and OPENAI_API_KEY are used where nothing is passed."""
    os.environ["OPENAI_BASE_URL"] = "https://other.test/v1"
    os.environ["OPENAI_API_KEY"] = "sk-env"
    route = router.post("https://other.test/v1/embeddings").respond(json=reply())

    async with make_embedder(base_url=None) as embedder:
        await embedder.embed("a")

    assert sent(route).headers["authorization"] == "Bearer sk-env"


async def test_what_is_passed_wins_over_the_environment(route: respx.Route, make_embedder: MakeEmbedder) -> None:
    """base_url= and api_key= are used although both variables are set."""
    os.environ["OPENAI_BASE_URL"] = "https://other.test/v1"
    os.environ["OPENAI_API_KEY"] = "sk-env"

    async with make_embedder(api_key="sk-passed") as embedder:
        await embedder.embed("a")

    assert sent(route).headers["authorization"] == "Bearer sk-passed"


async def test_without_an_address_it_is_openai(router: respx.MockRouter, make_embedder: MakeEmbedder) -> None:
    """The official address, with the key."""
    route = router.post("https://api.openai.com/v1/embeddings").respond(json=reply())

    async with make_embedder(base_url=None, api_key="sk-123") as embedder:
        await embedder.embed("a")

    assert sent(route).headers["authorization"] == "Bearer sk-123"


# Time


@pytest.mark.parametrize(
    ("given", "phases"),
    [
        (5.0, {"connect": 5.0, "read": None, "write": None, "pool": None}),
        (None, {"connect": 5.0, "read": None, "write": None, "pool": None}),
        (
            httpx.Timeout(1.0, connect=2.0, read=3.0),
            {"connect": 2.0, "read": 3.0, "write": 1.0, "pool": 1.0},
        ),
    ],
)
async def test_a_timeout_covers_the_attempt_or_its_phases(
    given: Any, phases: dict[str, float | None], route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """A number covers the whole attempt, so that httpx only watches the connecting; an httpx.Timeout is passed on."""
    async with make_embedder(timeout=given) as embedder:
        await embedder.embed("a")

    assert sent(route).extensions["timeout"] == phases


@pytest.mark.parametrize(
    "given",
    [0, -1.0, float("nan"), "5", (1, 2), httpx.Timeout(0), httpx.Timeout(None, read=0.0), httpx.Timeout(5, connect=-1)],
)
async def test_a_timeout_that_is_none_is_refused(given: Any, make_embedder: MakeEmbedder) -> None:
    """A ConfigurationError that says what is expected, before anything is sent."""
    with pytest.raises(ConfigurationError, match="timeout: expected seconds above 0"):
        async with make_embedder(timeout=given) as embedder:
            await embedder.embed("a")


async def test_an_attempt_ends_after_its_time(router: respx.MockRouter, make_embedder: MakeEmbedder) -> None:
    """A server that says nothing costs timeout= seconds, and the error says so."""

    async def never(request: httpx.Request) -> httpx.Response:
        await anyio.sleep_forever()
        raise AssertionError

    router.post(URL).side_effect = never

    failure = await give_up_one(make_embedder(timeout=0.05))

    assert isinstance(failure.error, AttemptTimeoutError)
    assert "no complete reply after" in str(failure.error)


# What goes wrong on the way


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (httpx.ConnectError, ConnectionFailedError),
        (httpx.ConnectTimeout, ConnectionFailedError),
        (httpx.PoolTimeout, ConnectionFailedError),
        (httpx.ProxyError, ConnectionFailedError),
        (httpx.ReadTimeout, AttemptTimeoutError),
        (httpx.WriteTimeout, AttemptTimeoutError),
        (httpx.ReadError, ConnectionLostError),
        (httpx.WriteError, ConnectionLostError),
        (httpx.CloseError, ConnectionLostError),
        (httpx.RemoteProtocolError, ConnectionLostError),
        (httpx.LocalProtocolError, ConnectionLostError),
        (httpx.UnsupportedProtocol, ConnectionLostError),
        (httpx.DecodingError, MalformedReplyError),
    ],
)
async def test_each_error_of_httpx_has_its_type(
    raised: type[httpx.TransportError], expected: type[Exception], route: respx.Route, make_embedder: MakeEmbedder
) -> None:
    """Four types that say what a caller may conclude; the cause is kept, with its words."""
    route.side_effect = raised("its words")

    error = (await give_up_one(make_embedder())).error

    assert type(error) is expected
    assert "its words" in str(error)
    assert isinstance(error.__cause__, raised)


async def test_an_error_in_the_middle_of_a_body_is_typed_too(
    router: respx.MockRouter, make_embedder: MakeEmbedder
) -> None:
    """The status line has come, the rest has not: the connection is lost, and the response is closed."""
    body = Body([b'{"data":['], then=httpx.ReadError("reset"))
    router.post(URL).side_effect = lambda request: httpx.Response(200, stream=body)

    failure = await give_up_one(make_embedder())

    assert isinstance(failure.error, ConnectionLostError)
    assert body.is_closed
