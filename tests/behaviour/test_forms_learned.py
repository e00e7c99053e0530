"""What a server refuses of a request's form is learned once: encodings and the size of vectors."""

from __future__ import annotations

from typing import Any

import pytest

from embedbatch import (
    BatchSplit,
    DimensionsError,
    Event,
    FormLearned,
    Limits,
    RunStoppedError,
)
from embedbatch.testing import Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned
from .refusing import NO_BASE64, UNNAMED, asks_for, asks_for_size, forms, refuses, says

pytestmark = pytest.mark.anyio

TEXTS = [f"text {n}" for n in range(300)]


# encodings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        NO_BASE64,
        says("Invalid value", param="encoding_format"),
        says("'base64' is not one of ['float'] - 'encoding_format'", code=None),
        Scripted(status=422, body={"detail": [{"loc": ["body", "encoding_format"], "msg": "Input should be 'float'"}]}),
        Scripted(status=422, body={"detail": "Value 'base64' is not supported"}),
        says("litellm.BadRequestError: base64 is not supported", status=500),
        Scripted(status=200, body={"error": {"message": "encoding_format base64 not supported", "type": "upstream"}}),
    ],
)
async def test_a_named_encoding_costs_one_request(refusal: Scripted, make_embedder: MakeEmbedder) -> None:
    """Whatever the shape that names it: one refusal, then float for good, and every vector is right."""
    server = refuses((asks_for("base64"), refusal))
    events: list[Event] = []

    async with make_embedder(transport=server, observe=events.append) as embedder:
        embeddings = await embedder.embed(TEXTS)
        await embedder.embed(["one more"])
        stats = embedder.stats()

    assert_aligned(embeddings, TEXTS, server)
    assert forms(server) == ["base64", "float", "float", "float"]
    assert [event for event in events if isinstance(event, FormLearned)] == [
        FormLearned("openai-compatible", "encoding_format", "float")
    ]
    assert stats.forms == {"openai-compatible encoding_format": "float"}
    assert (stats.splits, stats.caps) == (0, {})


async def test_an_encoding_that_nobody_names_is_found_with_one_text(make_embedder: MakeEmbedder) -> None:
    """A bare 400: the batch, one text, and that text as float. What was refused says nothing about sizes."""
    server = refuses((asks_for("base64"), UNNAMED))
    events: list[Event] = []

    async with make_embedder(transport=server, observe=events.append) as embedder:
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    assert_aligned(embeddings, TEXTS, server)
    assert forms(server)[:3] == ["base64", "base64", "float"]
    assert [len(request.inputs) for request in server.received[:3]] == [256, 1, 1]
    assert set(forms(server)[3:]) == {"float"}
    assert stats.caps == {}
    assert sum(isinstance(event, BatchSplit) for event in events) == 1


async def test_both_encodings_may_be_refused(make_embedder: MakeEmbedder) -> None:
    """base64, then float, then the field is left out: two refusals, and never again."""
    server = refuses((asks_for("base64", "float"), says("unknown field encoding_format")))

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    assert_aligned(embeddings, TEXTS, server)
    assert forms(server) == ["base64", "float", None, None]
    assert stats.forms == {"openai-compatible encoding_format": "omitted"}


@pytest.mark.parametrize("data", [[], None])
async def test_a_200_without_vectors_may_be_about_the_encoding(data: Any, make_embedder: MakeEmbedder) -> None:
    """OpenRouter's empty data for base64 is asked for once more, then as float."""
    server = refuses((asks_for("base64"), Scripted(body={"object": "list", "data": data})))

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(TEXTS)

    assert_aligned(embeddings, TEXTS, server)
    assert forms(server) == ["base64", "base64", "float", "float"]


async def test_vectors_that_nobody_can_read_may_be_about_the_encoding(make_embedder: MakeEmbedder) -> None:
    """Something else than base64 of float32 in every row: asked for once more, then as float."""
    server = ScriptedServer()
    hexed = {"embedding": "not base64!"}
    server.edit(
        lambda request, body: (
            {**body, "data": [{**item, **hexed} for item in body["data"]]} if asks_for("base64")(request) else body
        )
    )

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(TEXTS[:20])

    assert_aligned(embeddings, TEXTS[:20], server)
    assert forms(server) == ["base64", "base64", "float"]


async def test_what_was_answered_before_is_not_doubted_without_a_word(make_embedder: MakeEmbedder) -> None:
    """After a good reply a refused text is a bad text: it is tried in no other form."""
    server = refuses((lambda request: "poison" in request.inputs, UNNAMED))

    async with make_embedder(transport=server) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(["poison", "a", "b", "c"], on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [0]
    assert set(forms(server)) == {"base64"}


async def test_a_channel_of_a_gateway_may_refuse_later(make_embedder: MakeEmbedder) -> None:
    """After good replies in base64 another upstream names it: float is tried, and kept because it passes."""
    server = refuses((lambda request: request.number > 3 and asks_for("base64")(request), NO_BASE64))

    async with make_embedder(transport=server, limits=Limits(max_batch_inputs=10)) as embedder:
        embeddings = await embedder.embed(TEXTS[:100])

    assert_aligned(embeddings, TEXTS[:100], server)
    refused = [request for request in server.received[3:] if asks_for("base64")(request)]
    assert 1 <= len(refused) <= 4  # those that were in flight together


async def test_an_error_that_echoes_a_text_teaches_nothing(make_embedder: MakeEmbedder) -> None:
    """A refused text that mentions base64, which the error repeats, fails alone; the others stay in base64."""
    poison = "how to ask for encoding_format base64"
    server = refuses((lambda request: poison in request.inputs, says(f"cannot embed: {poison}")))

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed([poison, *TEXTS], on_failure="collect")
        stats = embedder.stats()

    assert [failure.position for failure in embeddings.failures] == [0]
    assert stats.forms == {}
    assert forms(server)[-1] == "base64"


async def test_a_poisonous_first_text_does_not_hide_the_form(make_embedder: MakeEmbedder) -> None:
    """The first text is refused in every form and the second in base64 only: one failure, and the form is found."""
    server = refuses((lambda request: "poison" in request.inputs, UNNAMED), (asks_for("base64"), UNNAMED))

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(["poison", *TEXTS[:20]], on_failure="collect")
        stats = embedder.stats()

    assert [failure.position for failure in embeddings.failures] == [0]
    assert stats.forms == {"openai-compatible encoding_format": "float"}


# the size of vectors ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refusal",
    [
        says("This model does not support specifying dimensions."),
        says(
            "Model x does not support matryoshka representation, changing output dimensions will lead to poor results"
        ),
        Scripted(
            status=422, body={"detail": [{"loc": ["body", "dimensions"], "msg": "Extra inputs are not permitted"}]}
        ),
        UNNAMED,
    ],
)
async def test_a_server_that_takes_no_size_may_give_the_right_one(
    refusal: Scripted, make_embedder: MakeEmbedder
) -> None:
    """dimensions=8 where the field is refused and the model has 8: it is left out, and demanded all the same."""
    server = refuses((asks_for_size, refusal))

    async with make_embedder(transport=server, dimensions=8) as embedder:
        embeddings = await embedder.embed(TEXTS[:20])
        stats = embedder.stats()

    assert_aligned(embeddings, TEXTS[:20], server)
    assert stats.forms == {"openai-compatible dimensions": "omitted"}
    assert sum(map(asks_for_size, server.received)) <= (1 if refusal is not UNNAMED else 4)


async def test_another_size_than_was_asked_for_stops_the_run_and_says_why(make_embedder: MakeEmbedder) -> None:
    """The field is refused, and the model has 16 numbers instead of 8: no vector of the wrong size is handed out."""
    server = refuses((asks_for_size, says("dimensions are not supported")))
    server.dimensions = 16

    async with make_embedder(transport=server, dimensions=8) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(TEXTS[:20])

    assert isinstance(caught.value.__cause__, DimensionsError)
    assert str(caught.value.__cause__).startswith("expected vectors of 8 numbers, got 16")
    assert str(caught.value.__cause__).endswith("It refuses to be asked for a size")


async def test_a_size_that_no_field_can_ask_for_is_still_demanded(make_embedder: MakeEmbedder) -> None:
    """endpoint="llama.cpp" has no such field: it is never sent, and vectors of another size stop the run."""
    server = ScriptedServer()

    async with make_embedder(transport=server, endpoint="llama.cpp", dimensions=8) as embedder:
        assert_aligned(await embedder.embed(["a"]), ["a"], server)
    async with make_embedder(transport=server, endpoint="llama.cpp", dimensions=4) as embedder:
        with pytest.raises(RunStoppedError):
            await embedder.embed(["a"])

    assert not any(map(asks_for_size, server.received))


async def test_what_one_part_learns_holds_for_the_others(make_embedder: MakeEmbedder) -> None:
    """base64 is refused by name, a size and a second input without a word: the parts of one batch learn together."""
    server = refuses(
        (asks_for("base64"), NO_BASE64), (asks_for_size, UNNAMED), (lambda request: len(request.inputs) > 1, UNNAMED)
    )

    async with make_embedder(transport=server, dimensions=8, limits=Limits(max_batch_inputs=5)) as embedder:
        embeddings = await embedder.embed(TEXTS[:20])
        stats = embedder.stats()

    assert_aligned(embeddings, TEXTS[:20], server)
    assert stats.forms == {
        "openai-compatible encoding_format": "float",
        "openai-compatible dimensions": "omitted",
    }
    assert sum(map(asks_for_size, server.received)) <= 5


@pytest.mark.parametrize("refusal", [UNNAMED, Scripted(body={"object": "list", "data": []})], ids=["400", "empty 200"])
async def test_an_upstream_that_changes_its_mind_costs_two_texts(
    refusal: Scripted, make_embedder: MakeEmbedder
) -> None:
    """After good replies base64 is refused without a word: two texts fail alone, with the third float is found."""
    server = refuses((lambda request: request.number > 5 and asks_for("base64")(request), refusal))

    async with make_embedder(
        transport=server, limits=Limits(max_batch_inputs=10, max_concurrent_requests=1)
    ) as embedder:
        embeddings = await embedder.embed(TEXTS[:200], on_failure="collect")
        stats = embedder.stats()

    assert len(embeddings.failures) == 2
    assert stats.forms == {"openai-compatible encoding_format": "float"}
    assert stats.caps == {}
