"""The contract as OpenAI's reference has it, field by field: three models, four forms of input, one form of reply."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import httpx
import numpy as np
import pytest

from embedbatch import Embedder
from embedbatch.plan.tokens import cl100k_base

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

KEY = "sk-test-0123456789abcdef"
SIZES = {"text-embedding-ada-002": 1_536, "text-embedding-3-small": 1_536, "text-embedding-3-large": 3_072}
TOKENS = [[15339, 1917], [9906, 11, 1917, 0]]
INPUTS: dict[str, tuple[Any, list[Any]]] = {
    "a string": ("The food was delicious and the waiter...", ["The food was delicious and the waiter..."]),
    "a token array": (TOKENS[0], [TOKENS[0]]),
    "an array of strings": (["first", "second", "third"], ["first", "second", "third"]),
    "an array of token arrays": (TOKENS, TOKENS),
}


def vector(position: int, size: int) -> list[float]:
    """Numbers that are float32 exactly, and tell their position."""
    numbers = np.linspace(-1.0, 1.0, size, dtype=np.float32)
    numbers[0] = np.float32(position + 0.25)
    return [float(number) for number in numbers]


def answer(request: httpx.Request, encoded: bool) -> httpx.Response:
    """The reply of the reference: object, data, model and usage; nothing is missing and nothing is new."""
    asked = json.loads(request.content)
    size = asked.get("dimensions", SIZES[asked["model"]])
    vectors = [vector(index, size) for index in range(len(asked["input"]))]
    if encoded:
        embeddings: list[Any] = [base64.b64encode(struct.pack(f"<{size}f", *row)).decode() for row in vectors]
    else:
        embeddings = vectors
    tokens = 8 * len(vectors)
    reply = {
        "object": "list",
        "data": [
            {"object": "embedding", "embedding": embedding, "index": index}
            for index, embedding in enumerate(embeddings)
        ],
        "model": asked["model"],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    return httpx.Response(200, json=reply)


@pytest.mark.parametrize("encoded", [True, False], ids=["base64", "float"])
@pytest.mark.parametrize("form", INPUTS)
@pytest.mark.parametrize("model", SIZES)
async def test_every_model_takes_every_form_of_input(model: str, form: str, encoded: bool) -> None:
    """
    POST /v1/embeddings with Authorization: Bearer, model and input and nothing that was not asked for; what comes
    back is one float32 vector for each input, bit by bit, and the usage as it was told.
    """
    given, inputs = INPUTS[form]
    requests: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return answer(request, encoded)

    async with Embedder(model, api_key=KEY, transport=httpx.MockTransport(handle)) as embedder:
        embeddings = await embedder.embed(given)

    (request,) = requests
    assert (request.method, str(request.url)) == ("POST", "https://api.openai.com/v1/embeddings")
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.content) == {"model": model, "encoding_format": "base64", "input": inputs}
    expected = np.array([vector(index, SIZES[model]) for index in range(len(inputs))], np.float32)
    np.testing.assert_array_equal(embeddings.vectors, expected)
    assert embeddings.vectors.dtype == np.float32
    assert (embeddings.usage.prompt_tokens, embeddings.usage.total_tokens) == (8 * len(inputs), 8 * len(inputs))
    assert (embeddings.usage.requests, embeddings.usage.replies_without_usage) == (1, 0)


@pytest.mark.parametrize("model", ["text-embedding-3-small", "text-embedding-3-large"])
async def test_the_third_generation_takes_dimensions(model: str) -> None:
    """dimensions and user are sent under these names."""
    bodies: list[Any] = []

    def handle(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return answer(request, encoded=True)

    transport = httpx.MockTransport(handle)
    async with Embedder(model, api_key=KEY, dimensions=256, user="user-1234", transport=transport) as embedder:
        embeddings = await embedder.embed(["a text"])

    assert embeddings.vectors.shape == (1, 256)
    assert bodies == [
        {"model": model, "encoding_format": "base64", "dimensions": 256, "user": "user-1234", "input": ["a text"]}
    ]


def test_the_token_arrays_of_these_tests_are_texts() -> None:
    """They are what cl100k_base makes of two greetings."""
    assert [cl100k_base().decode(tokens) for tokens in TOKENS] == ["hello world", "Hello, world!"]
