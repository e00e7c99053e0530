"""What bad input gets: a typed answer for that document, never an exception from inside."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedbatch import (
    ConfigurationError,
    Document,
    Embedder,
    EmptyInputError,
    FailedDocumentsError,
    Failure,
    InputTooLongError,
    InvalidInputError,
    InvalidTextError,
    Tokenizer,
    embed,
)
from embedbatch.plan.tokens import LazyTokenizer
from embedbatch.testing import ScriptedServer

from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("wrong", "kind"), [(None, "None"), (3.5, "float"), ({}, "dict"), (b"bytes", "bytes"), (object(), "object")]
)
async def test_what_is_no_text_is_a_type_error_before_anything_is_sent(
    wrong: Any, kind: str, server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The error names the position and the type; not even the good texts before it are sent."""
    async with make_embedder() as embedder:
        with pytest.raises(TypeError, match=rf"got {kind} - at \[2\]"):
            await embedder.embed(["a", "b", wrong, "c"])

    assert not server.received


async def test_in_a_stream_what_is_no_text_is_a_failure_of_that_document(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The other documents of the stream are embedded."""
    documents: list[Any] = ["a", None, 5, {}, Document(None, id="x"), "b"]  # type: ignore[arg-type]

    async with make_embedder() as embedder, embedder.stream(documents) as results:
        seen = [result async for result in results]

    failed = [result for result in seen if isinstance(result, Failure)]
    assert [failure.id for failure in failed] == [1, 2, 3, "x"]
    assert all(isinstance(failure.error, InvalidInputError) for failure in failed)
    assert "got None" in str(failed[0].error)
    assert server.received[0].inputs == ["a", "b"]


@pytest.mark.parametrize("blank", ["", " ", "\n\n", "\t\u3000"])
async def test_an_empty_text_is_never_sent(blank: str, server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """By default it fails its document: EmptyInputError, with the rest done."""
    async with make_embedder() as embedder:
        with pytest.raises(FailedDocumentsError) as caught:
            await embedder.embed(["a", blank])

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert isinstance(embeddings.failures[0].error, EmptyInputError)
    assert np.isnan(embeddings.vectors[1]).all()
    np.testing.assert_array_equal(embeddings.vectors[0], server.vector_of("a"))
    assert server.received[0].inputs == ["a"]


async def test_empty_texts_can_be_skipped(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """empty="skip": a NaN row and an entry in failures that does not count as an error."""
    async with make_embedder(empty="skip") as embedder:
        embeddings = await embedder.embed(["a", "", [1][:0]])

    assert [failure.skipped for failure in embeddings.failures] == [True, True]
    assert np.isnan(embeddings.vectors[1:]).all()


async def test_only_empty_texts_need_no_request(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Nothing is sent; the shape is (2, 0) because no reply has told the size."""
    async with make_embedder(empty="skip") as embedder:
        embeddings = await embedder.embed(["", " "])

    assert embeddings.vectors.shape == (2, 0)
    assert not server.received


async def test_a_lone_surrogate_becomes_u_fffd_and_is_reported(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """One character for one: offsets stay true. The document's id is in .repaired."""
    async with make_embedder() as embedder:
        embeddings = await embedder.embed([Document("a\ud800b\udfffc", id="broken"), "fine"])

    assert server.received[0].inputs == ["a\ufffdb\ufffdc", "fine"]
    assert list(embeddings.repaired) == ["broken"]


async def test_a_lone_surrogate_can_be_an_error(make_embedder: MakeEmbedder) -> None:
    """surrogates="error": InvalidTextError names the character, and what to pass."""
    async with make_embedder(surrogates="error") as embedder:
        embeddings = await embedder.embed(["a\ud800"], on_failure="collect")

    error = embeddings.failures[0].error
    assert isinstance(error, InvalidTextError)
    assert "at character 1" in str(error)
    assert 'surrogates="replace"' in str(error)


async def test_nul_and_control_characters_are_kept(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """What JSON can carry is carried."""
    async with make_embedder() as embedder:
        await embedder.embed(["a\x00b\x1f\x7f\u2028"])

    assert server.received[0].inputs == ["a\x00b\x1f\x7f\u2028"]


async def test_a_text_above_the_limit_can_be_an_error(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """long_input="error": document, tokens, limit, and what to do. 8,192 tokens are accepted, 8,193 are not."""
    fits, too_long = " the" * 8_192, " the" * 8_193

    async with make_embedder("text-embedding-3-small", dimensions=8, long_input="error") as embedder:
        embeddings = await embedder.embed([fits, Document(too_long, id="faq-17")], on_failure="collect")

    error = embeddings.failures[0].error
    assert isinstance(error, InputTooLongError)
    assert (error.document, error.tokens, error.limit) == ("faq-17", 8_193, 8_192)
    assert "'faq-17' has 8,193 tokens; the model takes at most 8,192. Pass long_input=\"split\"" in str(error)
    assert server.received[0].inputs == [fits]


def test_no_key_and_no_address_names_the_ways_out() -> None:
    """The error names OPENAI_API_KEY, api_key= and model="local"."""
    with pytest.raises(ConfigurationError) as caught:
        Embedder("text-embedding-3-small")

    for way in ("OPENAI_API_KEY", "api_key=", 'model="local"'):
        assert way in str(caught.value)

    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        embed(["a"], "text-embedding-3-small")


async def test_without_a_tokenizer_long_texts_are_cut_by_their_bytes(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Texts of up to 8,192 bytes are sent whole; longer ones in parts of at most that, with one warning."""
    long = "word " * 5_000

    async with make_embedder("unheard-of") as embedder:
        with pytest.warns(UserWarning, match=re.escape("Pass tokenizer=")):
            embeddings = await embedder.embed(["x" * 8_192, long])

    inputs = [str(text) for request in server.received for text in request.inputs]
    assert inputs[0] == "x" * 8_192
    assert "".join(inputs[1:]) == long
    assert max(len(text.encode()) for text in inputs) <= 8_192
    assert embeddings.cut[0].position == 1


async def test_short_texts_need_no_tokenizer(make_embedder: MakeEmbedder) -> None:
    """Within the byte bound there is nothing to warn about."""
    async with make_embedder("unheard-of") as embedder:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await embedder.embed(["short"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_input": "cut"}, "long_input: expected one of 'split'"),
        ({"empty": "zero"}, "empty: expected one of"),
        ({"surrogates": "drop"}, "surrogates: expected one of"),
        ({"dimensions": 0}, "dimensions: expected an int of at least 1, got 0"),
        ({"extra_body": {"input": "x"}}, "extra_body: 'input'"),
        ({"tokenizer": 5}, "tokenizer: expected a tiktoken.Encoding"),
        ({"tokenizer": "nowhere.json"}, "tokenizer: cannot read nowhere.json: No such file"),
        ({"max_input_tokens": 0}, "max_input_tokens: expected an int of at least 1, got 0"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_once(
    options: dict[str, Any], message: str, make_embedder: MakeEmbedder
) -> None:
    """Expected X, got Y, at the name of the argument."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        make_embedder(**options)


def test_an_address_that_is_none_is_refused(make_embedder: MakeEmbedder) -> None:
    """base_url without a scheme: an error that names the argument, on construction."""
    with pytest.raises(ConfigurationError, match="base_url: expected an http or https address"):
        make_embedder(base_url="localhost:8000/v1")


async def test_a_tokenizer_that_cannot_be_loaded_ends_the_run(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """It is no document's fault: the run ends with the tokenizer's own error, and nothing is sent."""
    broken = LazyTokenizer("broken", load_nothing)

    async with make_embedder(tokenizer=broken, count_tokens=True) as embedder:
        with pytest.raises(ConfigurationError, match="pip install"):
            await embedder.embed(["a", "b"])

    assert not server.received


def load_nothing() -> Tokenizer:
    raise ConfigurationError("not installed: pip install something")


async def test_a_table_is_no_stream_of_texts(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """To iterate over one gives its columns, or their names, which would be embedded."""
    async with make_embedder() as embedder:
        with pytest.raises(InvalidInputError, match="expected texts, got a Table: pass the column"):
            async with embedder.stream(pa.table({"text": ["a"]})):
                raise AssertionError

    assert not server.received
