"""A server that shortens inputs without a word is found out by what it counts, and said so once."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from embedbatch import Event, InputsShortened
from embedbatch.plan.tokens import cl100k_base
from embedbatch.testing import Received, ScriptedServer

from .conftest import MakeEmbedder

pytestmark = pytest.mark.anyio

SHORT, LONG = "word " * 20, "word " * 2_000
count = cl100k_base().count


def counts(server: ScriptedServer, *, limit: int = 10**9, of: Any = count) -> None:
    """Let *server* tell as its usage what *of* says of each text, up to *limit*."""

    def edit(request: Received, body: dict[str, Any]) -> dict[str, Any]:
        tokens = sum(min(of(text), limit) for text in request.inputs)
        return {**body, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    server.edit(edit)


async def heard(make_embedder: MakeEmbedder, texts: list[list[str]], **options: Any) -> tuple[list[Event], list[str]]:
    """The events that tell of shortened inputs, and the warnings, of these calls."""
    events: list[Event] = []
    options = {"tokenizer": "cl100k_base", "count_tokens": True, **options}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        async with make_embedder(observe=events.append, **options) as embedder:
            for each in texts:
                await embedder.embed(each)
            caps = embedder.stats().caps
    told = [event for event in events if isinstance(event, InputsShortened)]
    assert caps == {f"{event.endpoint} tokens of an input": event.limit for event in told}
    return told, [str(warning.message) for warning in caught]


async def test_it_is_told_once_for_an_endpoint(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """By an event, by stats() and by a warning that names the limit and what to do; the vectors are handed out."""
    counts(server, limit=512)

    events, told = await heard(make_embedder, [[SHORT], [LONG], [LONG, SHORT], [LONG]])

    assert events == [InputsShortened("openai-compatible", 512, count(LONG))]
    (warning,) = told
    assert warning.startswith("openai-compatible shortens inputs without a word: of 2,001 tokens in a request it")
    assert "counted 512, as if each input ended after 512" in warning
    assert "max_input_tokens=512" in warning


async def test_the_parts_of_a_document_count_as_well(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """They are counted in any case, so `count_tokens` is not needed where documents are cut."""
    counts(server, limit=512)

    events, _ = await heard(make_embedder, [[LONG * 3]], count_tokens=False, max_input_tokens=4_000)

    assert [event.limit for event in events if isinstance(event, InputsShortened)] == [512]


async def test_with_the_right_limit_nothing_is_shortened(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """What the warning says helps."""
    counts(server, limit=512)

    assert await heard(make_embedder, [[LONG]], max_input_tokens=512) == ([], [])


@pytest.mark.parametrize(
    "of",
    [len, lambda text: 0, count, lambda text: len(text) // 4, lambda text: count(text) + 2],
    ids=["characters", "nothing", "tokens", "a quarter of the characters", "special tokens too"],
)
async def test_other_ways_to_count_are_no_sign(server: ScriptedServer, make_embedder: MakeEmbedder, of: Any) -> None:
    """Nobody is accused who counts something else."""
    counts(server, of=of)

    assert await heard(make_embedder, [[SHORT], [LONG], [LONG, SHORT], [LONG * 2]]) == ([], [])


async def test_without_an_exact_count_nothing_can_be_told(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Texts that are proven to fit by their bytes are not counted."""
    counts(server, limit=512)

    assert await heard(make_embedder, [["word " * 1_000], ["word " * 1_600]], count_tokens=False) == ([], [])
