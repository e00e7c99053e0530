"""The openai package's own client at `embedbatch serve`: it must not be able to tell."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, TypeAlias

import anyio.to_thread
import numpy as np
import openai
import pytest

from embedbatch.local import load

from .starting import KEY, RealServer

pytestmark = pytest.mark.anyio

TEXTS = ["first text", "and the second 🌊"]
Create: TypeAlias = Callable[..., Awaitable[Any]]


@pytest.fixture
def anyio_backend() -> str:
    """What the client runs on."""
    return "asyncio"


@pytest.fixture
def sync_client(served: RealServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=served.base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(served: RealServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture(params=["sync", "async"])
def create(request: pytest.FixtureRequest, sync_client: openai.OpenAI, async_client: openai.AsyncOpenAI) -> Create:
    """`embeddings.create` of both clients, for the embedded model where no other is named."""

    async def call(**given: Any) -> Any:
        given = {"model": "local", **given}
        if request.param == "async":
            return await async_client.embeddings.create(**given)
        return await anyio.to_thread.run_sync(lambda: sync_client.embeddings.create(**given))

    return call


async def test_every_form_of_input_gives_the_models_vectors(create: Create) -> None:
    """A text, a list, a token array and a list of them, bit for bit; and a response of OpenAI's shape."""
    expected, _ = load().embed(TEXTS)
    arrays = [ids.tolist() for ids in load().tokenizer.encode(TEXTS)]

    for given, rows in [(TEXTS[0], 1), (TEXTS, 2), (arrays[0], 1), (arrays, 2)]:
        response = await create(input=given)

        assert (response.object, response.model) == ("list", "local")
        assert [(item.object, item.index) for item in response.data] == [("embedding", n) for n in range(rows)]
        vectors = np.array([item.embedding for item in response.data], np.float32)
        np.testing.assert_array_equal(vectors, expected[:rows])
    assert response.usage.prompt_tokens == response.usage.total_tokens == sum(map(len, arrays))


async def test_both_encodings_carry_the_same_numbers(create: Create) -> None:
    """The client asks for base64 when it is told nothing; asked for, that stays as it is, and floats are floats."""
    silent = (await create(input=TEXTS[0])).data[0].embedding
    floats = (await create(input=TEXTS[0], encoding_format="float")).data[0].embedding
    packed = (await create(input=TEXTS[0], encoding_format="base64")).data[0].embedding

    assert isinstance(packed, str)
    np.testing.assert_array_equal(np.array(silent, np.float32), np.array(floats, np.float32))


async def test_dimensions_are_honoured(create: Create) -> None:
    """64 numbers of length 1."""
    vector = (await create(input=TEXTS[0], dimensions=64, user="someone")).data[0].embedding

    assert len(vector) == 64
    assert math.isclose(np.linalg.norm(vector), 1.0, rel_tol=1e-6)


@pytest.mark.parametrize(
    ("given", "kind", "code", "param"),
    [
        ({"model": "text-embedding-3-small"}, openai.NotFoundError, "model_not_found", "model"),
        ({"input": ""}, openai.BadRequestError, None, "input"),
        ({"input": []}, openai.BadRequestError, None, "input"),
        ({"input": ["a"] * 2_049}, openai.BadRequestError, None, "input"),
        ({"input": "word " * 9_000}, openai.BadRequestError, None, "input"),
        ({"dimensions": 257}, openai.BadRequestError, None, "dimensions"),
        ({"encoding_format": "int8"}, openai.BadRequestError, None, "encoding_format"),
    ],
    ids=["model", "empty text", "no input", "too many", "too long", "dimensions", "encoding"],
)
async def test_a_bad_request_raises_the_clients_own_error(
    create: Create, given: dict[str, Any], kind: type[openai.APIStatusError], code: str | None, param: str
) -> None:
    """The class that the client has for the status, with OpenAI's body, whose fields it has read."""
    with pytest.raises(kind) as caught:
        await create(**{"input": "a", **given})

    error = caught.value
    assert (error.code, error.param, error.type) == (code, param, "invalid_request_error")
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}


async def test_a_wrong_key_is_an_authentication_error(served: RealServer) -> None:
    """401, and OpenAI's code for it."""
    async with openai.AsyncOpenAI(base_url=served.base_url, api_key="another", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as caught:
            await client.embeddings.create(model="local", input="a")

    assert caught.value.code == "invalid_api_key"


async def test_models_are_listed(sync_client: openai.OpenAI, async_client: openai.AsyncOpenAI) -> None:
    """The list has the one model; asked for another, the client raises what it raises at OpenAI."""
    listed = [model.id async for model in async_client.models.list()]

    assert listed == ["local"]
    assert sync_client.models.retrieve("local").id == "local"
    with pytest.raises(openai.NotFoundError):
        sync_client.models.retrieve("other")
