"""Every known server, played by a scripted one: with its preset nothing is refused; without it, that is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from embedbatch import Embedder, Limits, RequestRefusedError, RunStoppedError
from embedbatch.endpoints import PRESETS
from embedbatch.plan.tokens import cl100k_base

from .conftest import MakeEmbedder, assert_aligned
from .known_servers import KNOWN, TOO_LONG, KnownServer

pytestmark = pytest.mark.anyio

TEXTS = [f"text {n} " + "word " * (n % 7) for n in range(300)]
WIDE = Limits(max_batch_inputs=2_048)
ARRAYS = [[15339, 1917], [9906, 11, 1917, 0], [83, 1609, 5963, 374, 2294]]
# What nobody finds out by himself: another path or other fields, which the words of the refusal ask for.
NEEDS_ITS_PRESET = {"nomic", "nim", "voyage"}
# base64, unnamed caps (Mistral, DeepInfra) and what is refused while they are found: docs/explanation/flow-control.md.
BOUND = 22


def connect(make_embedder: MakeEmbedder, name: str, server: KnownServer, **options: Any) -> Embedder:
    """An embedder that knows the server by its name, at the vendor's address or at one of its own."""
    preset = PRESETS[name]
    here = preset.base_url or ("https://r.openai.azure.com" if name.startswith("azure") else "http://test/v1")
    return make_embedder(
        options.pop("model", "a-model"),
        transport=server,
        endpoint=name,
        base_url=here,
        api_key="key-0123456789",
        limits=WIDE,
        **options,
    )


def test_every_preset_is_played() -> None:
    """None is left out, and nobody plays what is not there."""
    assert set(KNOWN) == set(PRESETS)


@pytest.mark.parametrize("name", KNOWN)
async def test_it_works_the_first_time(name: str, make_embedder: MakeEmbedder) -> None:
    """300 texts with endpoint=: every vector right, and not one request refused."""
    server = KnownServer(KNOWN[name])

    async with connect(make_embedder, name, server) as embedder:
        embeddings = await embedder.embed(TEXTS)
        stats = embedder.stats()

    assert_aligned(embeddings, TEXTS, server)
    assert server.refused == []
    assert (stats.faults, stats.forms, stats.caps) == ({}, {}, {})
    assert embeddings.usage.requests == len(server.received)


@pytest.mark.parametrize("name", sorted(KNOWN.keys() - NEEDS_ITS_PRESET))
async def test_what_is_not_known_is_learned(name: str, make_embedder: MakeEmbedder) -> None:
    """The same server at an address that tells nothing: every vector right, after a few refusals; then hardly any."""
    server = KnownServer(KNOWN[name])

    base_url = "http://test" + (KNOWN[name].path.removesuffix("/embeddings") or "/v1")

    async with make_embedder(transport=server, base_url=base_url, api_key="key", limits=WIDE) as embedder:
        embeddings = await embedder.embed(TEXTS)
        await embedder.embed(TEXTS)
        before = len(server.refused)
        await embedder.embed(TEXTS)

    assert_aligned(embeddings, TEXTS, server)
    assert before <= BOUND
    assert len(server.refused) <= before + 1  # Mistral names no number, which is still looked for


@pytest.mark.parametrize("name", sorted(NEEDS_ITS_PRESET - {"voyage"}))
async def test_what_cannot_be_learned_is_told(name: str, make_embedder: MakeEmbedder) -> None:
    """A path of its own, or a field that it needs: the run stops at once, and the reason has the server's words."""
    server = KnownServer(KNOWN[name])

    async with make_embedder(transport=server, api_key="key") as embedder:
        with pytest.raises(RunStoppedError, match=r"HTTP 40[04]: '?(?:texts|input_type|no such path)"):
            await embedder.embed(TEXTS)

    assert len(server.received) <= 7


@pytest.mark.parametrize("name", KNOWN)
async def test_a_text_that_is_too_long_is_its_own_failure(name: str, make_embedder: MakeEmbedder) -> None:
    """In its own words, at whatever status: one of 40 texts fails, unless the server cuts it in silence."""
    server = KnownServer(KNOWN[name])
    texts = [*TEXTS[:20], TOO_LONG + "x", *TEXTS[20:39]]
    refusal = KNOWN[name].too_long

    async with connect(make_embedder, name, server) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(texts, on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == ([] if refusal is None else [20])
    rows = [row for row in range(40) if row != 20]
    expected = np.stack([server.vector_of(texts[row]) for row in rows])
    np.testing.assert_array_equal(embeddings.vectors[rows], expected)
    if refusal is not None:
        error = embeddings.failures[0].error
        assert isinstance(error, RequestRefusedError)
        assert refusal[1] in str(error)
        assert len(server.refused) <= 2 * 6 + 1  # found by halving


@pytest.mark.parametrize("name", KNOWN)
async def test_when_it_is_busy_it_is_waited_for(name: str, make_embedder: MakeEmbedder) -> None:
    """Its own way of saying so, once at the start and once later: everything is embedded, nothing stops."""
    server = KnownServer(KNOWN[name])
    server.reply_next(KNOWN[name].busy)

    async with connect(make_embedder, name, server) as embedder:
        assert_aligned(await embedder.embed(TEXTS[:40]), TEXTS[:40], server)
        server.reply_next(KNOWN[name].busy)
        assert_aligned(await embedder.embed(TEXTS[40:80]), TEXTS[40:80], server)
        faults = embedder.stats().faults

    assert sum(faults.values()) == 2


@pytest.mark.parametrize("name", KNOWN)
async def test_token_arrays_find_a_way(name: str, make_embedder: MakeEmbedder) -> None:
    """As arrays where they are taken, as texts elsewhere: never refused, and never dropped without a word."""
    server = KnownServer(KNOWN[name])
    sent: Any = ARRAYS if PRESETS[name].token_arrays else [cl100k_base().decode(array) for array in ARRAYS]

    async with connect(make_embedder, name, server, tokenizer=cl100k_base()) as embedder:
        embeddings = await embedder.embed(ARRAYS)

    assert_aligned(embeddings, sent, server)
    assert server.refused == []


@pytest.mark.parametrize("name", KNOWN)
async def test_fewer_dimensions_are_asked_for_by_their_name(name: str, make_embedder: MakeEmbedder) -> None:
    """dimensions=4 is sent under the server's name for it, and 4 numbers come; where it has none, it is not sent."""
    server = KnownServer(KNOWN[name])
    field = KNOWN[name].dimensions_field

    async with connect(make_embedder, name, server, dimensions=4 if field else 8) as embedder:
        embeddings = await embedder.embed(TEXTS[:3])

    assert PRESETS[name].dimensions_field == field
    assert embeddings.vectors.shape == (3, 4 if field else 8)
    assert field is None or server.received[0].body[field] == 4
    assert field == "dimensions" or "dimensions" not in server.received[0].body
