"""Documents above the model's limit: split, truncated, or returned in chunks; every cut is reported."""

from __future__ import annotations

import numpy as np
import pytest
import tiktoken

from embedbatch import Document, DocumentFailed, Embedding, Event, FailedDocumentsError, InvalidReplyError
from embedbatch.plan import vocabulary
from embedbatch.testing import Received, ScriptedServer

from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio

ENCODING = tiktoken.Encoding(
    "cl100k_base",
    pat_str=vocabulary.PATTERN,
    mergeable_ranks=vocabulary.load_ranks(),
    special_tokens=vocabulary.SPECIAL_TOKENS,
)
PARAGRAPH = "A sentence of a few words stands here. Another one follows it, and is longer than the first!\n\n"
LONG = PARAGRAPH * 900  # some 19,000 tokens


def count(text: str) -> int:
    return len(ENCODING.encode_ordinary(text))


async def test_split_is_the_token_weighted_mean_of_the_parts(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """The parts fit, join to the text, and their vectors' weighted mean, scaled to length 1, is the document's."""
    async with make_embedder("text-embedding-3-small", dimensions=8) as embedder:
        embeddings = await embedder.embed(["short", Document(LONG, id="long")])

    cut = embeddings.cut[0]
    parts = [LONG[start:end] for start, end in cut.spans]
    weights = [count(part) for part in parts]
    mean = sum(weight * server.vector_of(part).astype(float) for part, weight in zip(parts, weights, strict=True))
    assert (cut.id, cut.position, cut.policy, cut.tokens) == ("long", 1, "split", count(LONG))
    assert "".join(parts) == LONG
    assert max(weights) <= 8_192
    assert all(part.endswith("\n\n") for part in parts)
    np.testing.assert_allclose(embeddings.vectors[1], mean / np.linalg.norm(mean), atol=1e-6)
    np.testing.assert_array_equal(embeddings.vectors[0], server.vector_of("short"))


async def test_truncate_embeds_the_beginning(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """One part is sent, as near to the limit as a paragraph's end allows; its vector is taken as it is."""
    async with make_embedder("text-embedding-3-small", dimensions=8, long_input="truncate") as embedder:
        embeddings = await embedder.embed([LONG])

    ((start, end),) = embeddings.cut[0].spans
    assert start == 0
    assert 7_000 < count(LONG[:end]) <= 8_192
    np.testing.assert_array_equal(embeddings.vectors[0], server.vector_of(LONG[:end]))


async def test_chunks_are_one_row_each_with_offsets(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Every row says which characters of which document it stands for, also for documents that fit."""
    texts = ["short", LONG, "", "last"]

    async with make_embedder("text-embedding-3-small", dimensions=8, long_input="chunks", empty="skip") as embedder:
        embeddings = await embedder.embed(texts)

    assert embeddings.ids == [0, 1, 1, 1, 2, 3]
    for row, (start, end) in embeddings.spans.items():
        part = texts[int(embeddings.ids[row])][start:end]
        np.testing.assert_array_equal(embeddings.vectors[row], server.vector_of(part))
    assert sorted(embeddings.spans) == [0, 1, 2, 3, 5]
    assert np.isnan(embeddings.vectors[4]).all()


async def test_chunks_stream_with_their_spans(make_embedder: MakeEmbedder) -> None:
    """In a stream each chunk is a result of its own, in order."""
    async with (
        make_embedder("text-embedding-3-small", dimensions=8, long_input="chunks") as embedder,
        embedder.stream(["short", LONG]) as results,
    ):
        seen = [result async for result in results if isinstance(result, Embedding)]

    assert [result.position for result in seen] == [0, 1, 1, 1]
    assert seen[0].span == (0, 5)
    assert [result.span[0] for result in seen[1:] if result.span] == [0, *[r.span[1] for r in seen[1:-1] if r.span]]


async def test_text_like_a_special_token_is_ordinary_text(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A long text full of <|endoftext|> is split like any other."""
    text = "<|endoftext|> and <|fim_prefix|> " * 1_500

    async with make_embedder("text-embedding-3-small", dimensions=8) as embedder:
        embeddings = await embedder.embed([text])

    assert "".join(str(part) for request in server.received for part in request.inputs) == text
    assert embeddings.cut[0].tokens == count(text)


async def test_long_token_arrays_are_split_too(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """20,000 token ids become arrays of 8,191, 8,191 and 3,618."""
    tokens = [1_000 + n % 50 for n in range(20_000)]

    async with make_embedder(
        "text-embedding-3-small", dimensions=8, base_url="https://api.openai.com/v1", api_key="k"
    ) as embedder:
        embeddings = await embedder.embed([tokens])

    sent = [part for request in server.received for part in request.inputs]
    assert [len(part) for part in sent] == [8_191, 8_191, 3_618]
    assert [token for part in sent for token in part] == tokens
    assert embeddings.cut[0].spans == ((0, 8_191), (8_191, 16_382), (16_382, 20_000))


async def test_a_document_with_a_failed_part_fails_whole(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """The mean of the remaining parts would be a wrong vector."""

    def spoil_last_part(request: Received, body: dict[str, object]) -> dict[str, object]:
        for item, text in zip(body["data"], request.inputs, strict=True):  # type: ignore[call-overload]
            if LONG.endswith(str(text)):
                item["embedding"] = [0.0] * 8
        return body

    server.edit(spoil_last_part)
    async with make_embedder("text-embedding-3-small", dimensions=8) as embedder:
        with pytest.raises(FailedDocumentsError) as caught:
            await embedder.embed([LONG, "short"])

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert np.isnan(embeddings.vectors[0]).all()
    assert isinstance(embeddings.failures[0].error, InvalidReplyError)
    np.testing.assert_array_equal(embeddings.vectors[1], server.vector_of("short"))


async def test_exact_counts_are_told_when_asked_for(make_embedder: MakeEmbedder) -> None:
    """count_tokens=True: every row has its exact count; otherwise only those that had to be counted."""
    texts = ["hello world", LONG, "<|endoftext|>"]

    async with (
        make_embedder("text-embedding-3-small", dimensions=8) as lazy,
        make_embedder("text-embedding-3-small", dimensions=8, count_tokens=True) as exact,
    ):
        assert list((await lazy.embed(texts)).tokens) == [None, count(LONG), None]
        assert list((await exact.embed(texts)).tokens) == [count(text) for text in texts]


async def test_a_request_never_exceeds_any_limit_of_the_endpoint(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """OpenAI's caps, with long documents in several scripts: ≤ 2,048 inputs, ≤ 300,000 tokens, ≤ 1.2 MB a request."""
    texts = [PARAGRAPH * 300, "日本語の文章です。" * 1_000, "😀" * 3_000, "x = [1, 2, 3]\n" * 700] * 30

    async with make_embedder(
        "text-embedding-3-small", dimensions=8, base_url="https://api.openai.com/v1", api_key="k"
    ) as embedder:
        embeddings = await embedder.embed(texts)

    assert not embeddings.failures
    for request in server.received:
        assert len(request.inputs) <= 2_048
        assert sum(count(str(text)) for text in request.inputs) <= 300_000
        assert request.size <= 1_200_000


async def test_a_stretch_of_white_space_is_not_sent(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """A part that is nothing but blanks would be refused as empty: it is left out, and the rest is embedded."""
    text = "begin" + " " * 40_000 + "end"

    async with make_embedder() as embedder:
        with pytest.warns(UserWarning, match="tokenizer="):
            embeddings = await embedder.embed([text])

    assert not embeddings.failures
    inputs = [str(part) for request in server.received for part in request.inputs]
    assert all(part.strip() for part in inputs)
    assert inputs[0].startswith("begin")
    assert inputs[-1].endswith("end")


async def test_chunks_that_cancel_each_other_out_are_a_failure_that_is_told(
    server: ScriptedServer, make_embedder: MakeEmbedder
) -> None:
    """Two parts with opposite vectors have no mean direction: a failure, an event, a count."""
    events: list[Event] = []
    half = np.array([0.5] * 4, np.float32)

    def opposite(request: Received, body: dict[str, object]) -> dict[str, object]:
        for number, item in enumerate(body["data"]):  # type: ignore[arg-type, var-annotated]
            item["embedding"] = (half if number else -half).tolist()
        return body

    server.edit(opposite)
    async with make_embedder(max_input_tokens=17, observe=events.append) as embedder:
        with pytest.warns(UserWarning, match="tokenizer="):
            embeddings = await embedder.embed(["x" * 32], on_failure="collect")

    assert isinstance(embeddings.failures[0].error, InvalidReplyError)
    assert embedder.stats().failures == 1
    assert sum(isinstance(event, DocumentFailed) for event in events) == 1
