"""A request that is refused for good: its parts, its poison, the endpoint's caps, and settings that cannot work."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from random import Random

import anyio
import numpy as np
import pytest

from embedbatch import (
    BatchSplit,
    CapLearned,
    Embedder,
    Event,
    FailedDocumentsError,
    Limits,
    NotAttemptedError,
    RequestRefusedError,
    RunStoppedError,
)
from embedbatch.testing import ProviderSimulator, Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

REFUSED = Scripted(status=400, body={"error": {"message": "the input is not valid"}})
POISON = "poison"


_FORMS = ("base64", "float", None)


def texts_of(count: int, *, poison: tuple[int, ...] = ()) -> list[str]:
    """So many different texts, the ones at *poison* poisonous."""
    return [f"{POISON if n in poison else 'text'} {n}" for n in range(count)]


def refuses(bad: Callable[[Received], bool], reply: Scripted = REFUSED) -> ScriptedServer:
    """A server that gives *reply* to every request that is *bad*."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(lambda request: reply if bad(request) else None)
    return server


def is_poisoned(request: Received) -> bool:
    """True if one of the texts is poisonous."""
    return any(str(text).startswith(POISON) for text in request.inputs)


def sizes(server: ScriptedServer) -> list[int]:
    """How many inputs each request had."""
    return [len(request.inputs) for request in server.received]


# poison -------------------------------------------------------------------------------------------------------


async def test_the_poison_alone_fails(make_embedder: MakeEmbedder) -> None:
    """Of 256 texts in one batch exactly the refused one fails, with the server's words; 255 have their vectors."""
    server = refuses(is_poisoned)
    texts = texts_of(256, poison=(100,))

    async with make_embedder(transport=server) as embedder:
        await embedder.embed(["warm"])
        with pytest.raises(FailedDocumentsError, match="the input is not valid") as caught:
            await embedder.embed(texts)

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert [failure.position for failure in embeddings.failures] == [100]
    assert isinstance(embeddings.failures[0].error, RequestRefusedError)
    assert embeddings.failures[0].attempts == sum("poison 100" in request.inputs for request in server.received) == 9
    expected = np.stack([server.vector_of(text) for text in texts[:100] + texts[101:]])
    np.testing.assert_array_equal(np.delete(embeddings.vectors, 100, axis=0), expected)


@pytest.mark.parametrize("count", [2, 3, 7, 64, 100, 256])
@pytest.mark.parametrize("poisoned", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
async def test_finding_poison_costs_a_bounded_number_of_requests(
    count: int, poisoned: int, seed: int, make_embedder: MakeEmbedder
) -> None:
    """k poisonous texts among n cost at most 2·k·⌈log2 n⌉ + k requests more, and nothing else fails."""
    poison = tuple(sorted(Random(seed).sample(range(count), min(poisoned, count - 1))))
    server = refuses(is_poisoned)

    async with make_embedder(transport=server) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(texts_of(count, poison=poison), on_failure="collect")

    assert tuple(failure.position for failure in embeddings.failures) == poison
    extra = len(server.received) - 2
    assert extra <= 2 * len(poison) * math.ceil(math.log2(count)) + len(poison)


@pytest.mark.parametrize("position", [0, 1, 127, 255])
async def test_poison_in_the_very_first_batch_is_found_too(position: int, make_embedder: MakeEmbedder) -> None:
    """Before anything has succeeded one poisonous text does not pass for a wrong configuration."""
    server = refuses(is_poisoned)

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(texts_of(256, poison=(position,)), on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [position]
    assert len(server.received) - 1 <= 2 * 8 + 1 + 2  # and at most the two probes


async def test_poison_teaches_no_cap(make_embedder: MakeEmbedder) -> None:
    """After a batch of 256 with poison in it, the next 256 go in one request."""
    server = refuses(is_poisoned)

    async with make_embedder(transport=server) as embedder:
        await embedder.embed(texts_of(256, poison=(0, 130)), on_failure="collect")
        before = len(server.received)
        await embedder.embed(texts_of(256))
        caps = embedder.stats().caps

    assert sizes(server)[before:] == [256]
    assert caps == {}


async def test_poison_in_one_run_does_not_cost_another(make_embedder: MakeEmbedder) -> None:
    """Two runs at once, one with poison: exactly its document fails, the other run is whole."""
    server = refuses(is_poisoned)
    failures: dict[str, list[int]] = {}

    async with make_embedder(transport=server) as embedder:
        await embedder.embed(["warm"])

        async def run(name: str, texts: list[str]) -> None:
            embeddings = await embedder.embed(texts, on_failure="collect")
            failures[name] = [failure.position for failure in embeddings.failures]

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "poisoned", texts_of(256, poison=(7,)))
            tasks.start_soon(run, "clean", texts_of(256))

    assert failures == {"poisoned": [7], "clean": []}


async def test_a_500_about_the_size_of_an_input_is_a_refusal(make_embedder: MakeEmbedder) -> None:
    """llama.cpp's 500 is not tried again: the batch is split, and the one text that is too long fails at once."""
    message = "input is too large to process. increase the physical batch size"
    too_large = Scripted(status=500, body={"error": {"code": 500, "message": message, "type": "server_error"}})
    server = refuses(is_poisoned, too_large)

    async with make_embedder(transport=server) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(texts_of(8, poison=(3,)), on_failure="collect")
        stats = embedder.stats()

    assert [failure.position for failure in embeddings.failures] == [3]
    assert embeddings.failures[0].attempts == 4  # in the batch, in its half, in its quarter, and alone
    assert len(server.received) == 1 + 1 + 2 * 3
    assert stats.paused_seconds == stats.outages == 0


# configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "per_batch"), [(3, 256), (256, 256), (1_000, 256), (10, 2)])
async def test_settings_that_cannot_work_cost_seven_requests(
    count: int, per_batch: int, make_embedder: MakeEmbedder
) -> None:
    """Everything is refused: the batch, one text in three forms, one more text likewise; then the run stops."""
    server = refuses(lambda request: True)

    async with make_embedder(transport=server, limits=Limits(max_batch_inputs=per_batch)) as embedder:
        with pytest.raises(RunStoppedError, match="the input is not valid") as caught:
            await embedder.embed(texts_of(count))

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert isinstance(caught.value.__cause__, RequestRefusedError)
    assert sizes(server) == [min(count, per_batch), 1, 1, 1, 1, 1, 1]
    assert [request.body.get("encoding_format") for request in server.received] == ["base64", *_FORMS, *_FORMS]
    errors = Counter(type(failure.error) for failure in embeddings.failures)
    assert errors == {RequestRefusedError: 2, NotAttemptedError: count - 2}


@pytest.mark.parametrize("count", [1, 2])
async def test_two_texts_prove_nothing_about_the_settings(count: int, make_embedder: MakeEmbedder) -> None:
    """Where nothing is left to send, refused texts are failures, and the run does not stop."""
    server = refuses(lambda request: True)

    async with make_embedder(transport=server) as embedder:
        embeddings = await embedder.embed(texts_of(count), on_failure="collect")

    assert [type(failure.error) for failure in embeddings.failures] == [RequestRefusedError] * count


async def test_one_success_ends_the_doubts_about_the_settings(make_embedder: MakeEmbedder) -> None:
    """After a good reply any number of refused texts fail by themselves: the run does not stop."""
    server = refuses(is_poisoned)

    async with make_embedder(transport=server) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(texts_of(20, poison=tuple(range(19))), on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == list(range(19))


# caps by name -------------------------------------------------------------------------------------------------


async def test_a_named_cap_is_learned_from_one_refusal(make_embedder: MakeEmbedder) -> None:
    """A cap of 32 that the 400 names costs one request, and is kept from then on; nothing counts as split."""
    provider = ProviderSimulator(latency=0.1, max_inputs=32)
    events: list[Event] = []

    async with make_embedder(transport=provider, observe=events.append) as embedder:
        await embedder.embed(texts_of(256))
        await embedder.embed(texts_of(64))
        stats = embedder.stats()

    assert [request.inputs for request in provider.requests] == [256] + [32] * 10
    assert [event for event in events if isinstance(event, CapLearned)] == [
        CapLearned("openai-compatible", "inputs", 32)
    ]
    assert stats.caps == {"openai-compatible inputs": 32}
    assert stats.splits == 0


@pytest.mark.parametrize(
    ("options", "unit"),
    [({"max_request_tokens": 2_000}, "tokens"), ({"max_request_bytes": 6_000}, "bytes")],
    ids=["tokens", "bytes"],
)
async def test_a_named_cap_of_tokens_or_bytes_is_learned(
    options: dict[str, int], unit: str, make_embedder: MakeEmbedder
) -> None:
    """100 texts of 200 bytes: one request is refused, and no later one is above what it named."""
    provider = ProviderSimulator(latency=0.1, **options)  # type: ignore[arg-type]

    async with make_embedder(transport=provider) as embedder:
        embeddings = await embedder.embed([f"{n:0200}" for n in range(100)])
        stats = embedder.stats()

    assert not embeddings.failures
    refused = [request for request in provider.requests if request.status != 200]
    assert len(refused) == 1
    assert stats.caps == {f"openai-compatible {unit}": next(iter(options.values()))}


async def test_one_input_above_a_named_cap_of_bytes_fails_alone(make_embedder: MakeEmbedder) -> None:
    """A text that is larger than a whole request may be is the only one to fail."""
    provider = ProviderSimulator(latency=0.1, max_request_bytes=4_000)
    texts = ["x" * 100] * 20 + ["y" * 6_000] + ["z" * 100] * 20

    async with make_embedder(transport=provider) as embedder:
        embeddings = await embedder.embed(texts, on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [20]
    assert len(provider.requests) <= 8


# caps by proof ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cap", [1, 7, 10, 32, 37, 100, 200])
async def test_a_cap_that_nobody_names_is_found_exactly(cap: int, make_embedder: MakeEmbedder) -> None:
    """However odd, it is known after 300 to 600 full requests, costs 20 refusals at most, and nothing goes in vain."""
    provider = ProviderSimulator(latency=0.1, max_inputs=cap, announce_caps=False, remember=True)
    count = (300 if cap <= 100 else 600) * cap

    async with make_embedder(transport=provider) as embedder:
        embeddings = await embedder.embed(texts_of(count))
        stats = embedder.stats()

    assert not embeddings.failures
    assert stats.caps == {"openai-compatible inputs": cap}
    assert sum(request.status == 400 for request in provider.requests) <= 20
    assert len(provider.requests) <= 1.5 * math.ceil(count / cap) + 40
    assert set(provider.embedded.values()) == {1}


@pytest.mark.parametrize("cap", [10, 32, 37, 100])
async def test_a_cap_is_found_in_small_calls_too(cap: int, make_embedder: MakeEmbedder) -> None:
    """Call after call with one batch each: the cap is found all the same."""
    provider = ProviderSimulator(latency=0.1, max_inputs=cap, announce_caps=False)

    async with make_embedder(transport=provider) as embedder:
        for _ in range(20):
            await embedder.embed(texts_of(256))
        stats = embedder.stats()

    assert stats.caps == {"openai-compatible inputs": cap}
    assert sum(request.status == 400 for request in provider.requests) <= 20


async def test_runs_at_once_learn_a_cap_once(make_embedder: MakeEmbedder) -> None:
    """20 calls together against an unnamed cap of 32: no more refusals than one call alone would cost, and 3."""
    alone = ProviderSimulator(latency=0.1, max_inputs=32, announce_caps=False)
    together = ProviderSimulator(latency=0.1, max_inputs=32, announce_caps=False)

    async with make_embedder(transport=alone) as embedder:
        await embedder.embed(["warm"])
        await embedder.embed(texts_of(5_000))
    async with make_embedder(transport=together) as embedder:
        await embedder.embed(["warm"])
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(embedder.embed, texts_of(250))

    refusals = [sum(request.status == 400 for request in server.requests) for server in (alone, together)]
    assert refusals[1] <= refusals[0] + 3


async def test_small_requests_go_on_while_a_refusal_is_looked_into(make_embedder: MakeEmbedder) -> None:
    """While one call finds out why 256 were refused, a query of one text is answered as quickly as ever."""
    provider = ProviderSimulator(latency=1.0, max_inputs=7, announce_caps=False)
    waits: list[float] = []

    async with make_embedder(transport=provider) as embedder:
        await embedder.embed(["warm"])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(embedder.embed, texts_of(256))
            for n in range(5):
                await anyio.sleep(1.3)
                began = anyio.current_time()
                await embedder.embed_one(f"query {n}")
                waits.append(anyio.current_time() - began)

    assert max(waits) <= 2.0


async def test_an_investigation_that_is_cancelled_lets_the_others_go_on(make_embedder: MakeEmbedder) -> None:
    """The call that was finding out is cancelled; the one that waited for it finds out itself."""
    provider = ProviderSimulator(latency=1.0, max_inputs=32, announce_caps=False)

    async with make_embedder(transport=provider) as embedder:
        await embedder.embed(["warm"])
        lengths = []

        async def wait() -> None:
            await anyio.sleep(0.5)
            lengths.append(len(await embedder.embed(texts_of(256))))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait)
            with anyio.move_on_after(2.5):
                await embedder.embed(texts_of(256))

    assert lengths == [256]


@pytest.mark.parametrize("announced", [True, False])
async def test_a_cap_holds_on_every_loop(both_backends: object, announced: bool) -> None:
    """In real time too: 2,000 texts against a cap of 25, on asyncio and on trio."""
    provider = ProviderSimulator(latency=0.002, max_inputs=25, announce_caps=announced)

    async with Embedder("test-model", base_url="http://test/v1", transport=provider, rng=Random(7)) as embedder:
        with anyio.fail_after(20):
            embeddings = await embedder.embed(texts_of(2_000))
        stats = embedder.stats()

    assert not embeddings.failures
    assert stats.caps == {"openai-compatible inputs": 25}
    assert (stats.in_flight, stats.waiting) == (0, 0)


# what 413 says ------------------------------------------------------------------------------------------------


async def test_a_413_without_words_is_about_bytes(make_embedder: MakeEmbedder) -> None:
    """20 texts of 1,000 bytes against 5,500 bytes a request: sizes are halved, and the same is not refused twice."""
    provider = ProviderSimulator(latency=0.1, max_request_bytes=5_500, announce_caps=False)

    async with make_embedder(transport=provider) as embedder:
        await embedder.embed([f"{n:01000}" for n in range(40)])
        before = len(provider.requests)
        await embedder.embed([f"{n:01000}" for n in range(40)])
        short = await embedder.embed(texts_of(100))

    assert [request.status for request in provider.requests[before:]].count(413) == 0
    assert provider.requests[-1].inputs == len(short) == 100


async def test_a_split_is_told_to_the_observer(make_embedder: MakeEmbedder) -> None:
    """Each request that was refused and sent in parts is one BatchSplit, with the server's words."""
    server = refuses(lambda request: len(request.inputs) > 2)
    events: list[Event] = []

    async with make_embedder(transport=server, observe=events.append) as embedder:
        await embedder.embed(["warm"])
        embeddings = await embedder.embed(texts_of(8))
        stats = embedder.stats()

    splits = [event for event in events if isinstance(event, BatchSplit)]
    assert [split.inputs for split in splits][:2] == [8, 4]
    assert len(splits) == stats.splits == sum(size > 2 for size in sizes(server))
    assert all("the input is not valid" in str(split.error) for split in splits)
    assert_aligned(embeddings, texts_of(8), server)
