"""An endpoint that is away: how long a run goes on, what it costs, and how it comes back."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any, Literal

import anyio
import pytest

from embedbatch import (
    AttemptTimeoutError,
    ConnectionFailedError,
    Embeddings,
    EndpointAway,
    EndpointBack,
    Event,
    FailedDocumentsError,
    Limits,
    NotAttemptedError,
    Retries,
    RunStoppedError,
    ServerError,
    jobs,
)
from embedbatch.testing import Outage, ProviderSimulator, Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

Kind = Literal["503", "500", "refused", "silence"]
ONE_EACH = Limits(max_batch_inputs=1)
OUT: dict[str, Any] = {"503": ServerError, "500": ServerError, "refused": ConnectionFailedError}
NEVER_AGAIN = 10.0**6


def texts_of(count: int) -> list[str]:
    """So many different texts."""
    return [f"text {n}" for n in range(count)]


def provider_with(*outages: tuple[float, float, Kind]) -> ProviderSimulator:
    """Replies of 0.2 s, a little spread, and these outages."""
    return ProviderSimulator(latency=0.2, outages=[Outage(start=a, end=b, kind=kind) for a, b, kind in outages])


async def stop(embedder: Any, texts: list[str], **options: Any) -> tuple[RunStoppedError, Embeddings]:
    """Embed, and expect the run to stop."""
    with pytest.raises(RunStoppedError) as caught:
        await embedder.embed(texts, **options)
    assert caught.value.embeddings is not None
    return caught.value, caught.value.embeddings


# stop ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["503", "500", "refused"])
async def test_an_endpoint_that_is_dead_from_the_start_ends_the_run(kind: Kind, make_embedder: MakeEmbedder) -> None:
    """Six attempts of one batch, less than 25 s; its documents carry the error, and nothing else was sent."""
    provider = provider_with((0, NEVER_AGAIN, kind))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        error, embeddings = await stop(embedder, texts_of(100))

    assert isinstance(error.__cause__, OUT[kind])
    assert len(provider.requests) <= 6 + 5  # a place at a time: others may be the probe
    assert anyio.current_time() - (provider.origin or 0) <= 25
    kinds = [type(failure.error) for failure in embeddings.failures]
    assert len(kinds) == 100
    assert set(kinds) == {OUT[kind], NotAttemptedError}
    assert {str(f.error) for f in embeddings.failures if type(f.error) is OUT[kind]} == {str(error.__cause__)}


@pytest.mark.parametrize("kind", ["503", "500", "refused"])
async def test_one_document_is_enough_to_see_that_nothing_answers(kind: Kind, make_embedder: MakeEmbedder) -> None:
    """A call with one text stops after exactly six attempts, and embed_one with the same error."""
    provider = provider_with((0, NEVER_AGAIN, kind))

    async with make_embedder(transport=provider) as embedder:
        _, embeddings = await stop(embedder, ["a"])
        assert len(provider.requests) == 6
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed_one("b")

    assert embeddings.failures[0].attempts == 6
    assert isinstance(caught.value.__cause__, OUT[kind])


@pytest.mark.parametrize("kind", ["503", "500", "refused"])
@pytest.mark.parametrize("start", [0.1, 3.0, 8.0])
async def test_an_endpoint_that_dies_in_the_middle_ends_the_run(
    start: float, kind: Kind, make_embedder: MakeEmbedder
) -> None:
    """Whenever it dies: within 30 s the run stops, within the budget of retries, and what was done is kept."""
    provider = provider_with((start, NEVER_AGAIN, kind))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        _, embeddings = await stop(embedder, texts_of(1_500))

    good = sum(request.status == 200 for request in provider.requests)
    assert 1_500 - len(embeddings.failures) == good > 0
    assert len(provider.requests) - good <= 32 + 50
    assert anyio.current_time() - (provider.origin or 0) <= start + 30


async def test_silence_ends_the_run_after_six_timeouts(make_embedder: MakeEmbedder) -> None:
    """No answer at all: one batch has its six attempts of 60 s after at most eight, whatever is in flight."""
    provider = provider_with((1.0, NEVER_AGAIN, "silence"))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        error, _ = await stop(embedder, texts_of(1_000))

    assert isinstance(error.__cause__, AttemptTimeoutError)
    assert anyio.current_time() - (provider.origin or 0) <= 8 * 60 + 40
    assert provider.in_flight == 0


@pytest.mark.parametrize("budget", [1, 5, 20])
async def test_the_budget_bounds_what_a_dead_endpoint_is_sent(budget: int, make_embedder: MakeEmbedder) -> None:
    """With 32 in flight at the moment it dies: at most those, and one request for each retry in the budget."""
    server = ScriptedServer(latency=lambda request: 0.2 + 0.001 * (request.number % 7))
    dies_at = 8.0
    server.reply_when(lambda request: Scripted(status=500) if request.at >= dies_at else None)

    async with make_embedder(transport=server, limits=ONE_EACH, retries=Retries(budget=budget)) as embedder:
        await stop(embedder, texts_of(5_000))

    assert sum(request.at >= dies_at for request in server.received) <= 32 + budget


async def test_good_replies_earn_retries(make_embedder: MakeEmbedder) -> None:
    """Every third request fails, 1,000 times: at half a retry for each good reply the budget of 5 never ends."""
    server = ScriptedServer(latency=0.1)
    server.reply_when(lambda request: Scripted(status=500) if request.number % 3 == 0 else None)
    limits = Limits(max_batch_inputs=1, max_concurrent_requests=1)

    async with make_embedder(transport=server, limits=limits, retries=Retries(budget=5)) as embedder:
        embeddings = await embedder.embed(texts_of(1_000))

    assert_aligned(embeddings, texts_of(1_000), server)


# wait ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["503", "refused", "silence"])
@pytest.mark.parametrize("seconds", [30, 600, 3_000])
async def test_waiting_outlasts_any_outage_below_the_hour(
    seconds: int, kind: Kind, make_embedder: MakeEmbedder
) -> None:
    """Half a minute or fifty: no document is lost, and it is tried a few times a minute, not more."""
    provider = provider_with((5, 5 + seconds, kind))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        embeddings = await embedder.embed(texts_of(900), on_outage="wait", on_failure="collect")

    assert not embeddings.failures
    during = sum(5 <= request.at < 5 + seconds for request in provider.requests)
    assert during <= 32 + 12 + seconds / 5


@pytest.mark.parametrize(("seconds", "lost"), [(30, 0), (600, 4), (3_000, 20)])
async def test_an_outage_of_500s_costs_few_documents(seconds: int, lost: int, make_embedder: MakeEmbedder) -> None:
    """A text that crashes the server looks the same: sent alone 24 times in vain, a document is given up."""
    provider = provider_with((5, 5 + seconds, "500"))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        embeddings = await embedder.embed(texts_of(900), on_outage="wait", on_failure="collect")

    assert len(embeddings.failures) <= lost
    assert all(failure.attempts >= 24 for failure in embeddings.failures)


@pytest.mark.parametrize("inputs", [64, 256])
async def test_an_outage_of_500s_costs_no_batch(inputs: int, make_embedder: MakeEmbedder) -> None:
    """Fifty minutes of 500s while batches of many texts are sent: nothing is lost."""
    provider = provider_with((1, 3_001, "500"))

    async with make_embedder(transport=provider, limits=Limits(max_batch_inputs=inputs)) as embedder:
        embeddings = await embedder.embed(texts_of(40_000), on_outage="wait", on_failure="collect")

    assert any(request.status == 500 for request in provider.requests)
    assert not embeddings.failures


async def test_an_outage_that_changes_its_face_is_one_outage(make_embedder: MakeEmbedder) -> None:
    """503, then no connection, then silence: one EndpointAway, one EndpointBack, nothing lost."""
    provider = provider_with((5, 60, "503"), (60, 200, "refused"), (200, 400, "silence"))
    events: list[Event] = []

    async with make_embedder(transport=provider, limits=ONE_EACH, observe=events.append) as embedder:
        embeddings = await embedder.embed(texts_of(1_200), on_outage="wait")
        stats = embedder.stats()

    assert not embeddings.failures
    changes = [event for event in events if isinstance(event, EndpointAway | EndpointBack)]
    assert [type(event) for event in changes] == [EndpointAway, EndpointBack]
    assert isinstance(changes[1], EndpointBack)
    assert 394 <= changes[1].seconds <= 480
    assert stats.outages == 1
    assert stats.capacity[0].away_seconds == 0


@pytest.mark.parametrize("kind", ["503", "refused"])
async def test_the_endpoint_is_noticed_to_be_back_within_seconds(kind: Kind, make_embedder: MakeEmbedder) -> None:
    """After ten minutes a probe finds it at most 10 s later, and as many are in flight as before within 3 s more."""
    provider = provider_with((8, 608, kind))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(2_500), on_outage="wait")

    before = sum(6 <= request.at < 8 for request in provider.requests) / 2
    back = min(request.at for request in provider.requests if request.at >= 608)
    after = sum(back + 3 <= request.at < back + 5 for request in provider.requests) / 2
    assert back <= 618.5
    assert after >= 0.8 * before


async def test_probes_are_one_at_a_time_and_ten_seconds_apart(make_embedder: MakeEmbedder) -> None:
    """During an outage nothing overlaps, and the gaps grow to between 5 and 10 s."""
    provider = provider_with((5, 605, "503"))

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:
        await embedder.embed(texts_of(1_200), on_outage="wait")

    probes = [request for request in provider.requests if 60 <= request.at < 605]
    assert {request.in_flight for request in probes} == {1}
    gaps = [later.at - earlier.at for earlier, later in itertools.pairwise(probes)]
    assert min(gaps) >= 5
    assert max(gaps) <= 10.1


@pytest.mark.parametrize("kind", ["503", "500", "refused"])
async def test_max_outage_ends_the_waiting(kind: Kind, make_embedder: MakeEmbedder) -> None:
    """With max_outage=100 the run stops between 100 and 120 s after the endpoint went, and says why."""
    provider = provider_with((5, NEVER_AGAIN, kind))

    async with make_embedder(transport=provider, limits=ONE_EACH, retries=Retries(max_outage=100.0)) as embedder:
        error, embeddings = await stop(embedder, texts_of(1_000), on_outage="wait")

    assert isinstance(error.__cause__, OUT[kind])
    assert 100 <= anyio.current_time() - (provider.origin or 0) - 5 <= 120
    attempted = [failure for failure in embeddings.failures if not isinstance(failure.error, NotAttemptedError)]
    assert 1 <= len(attempted) <= 32 + 1  # those that were on their way


async def test_attempts_are_not_spent_on_an_endpoint_that_is_away(make_embedder: MakeEmbedder) -> None:
    """One text waits for ten minutes of 503 with max_attempts=6, and is embedded."""
    provider = provider_with((0, 600, "503"))

    async with make_embedder(transport=provider) as embedder:
        embeddings = await embedder.embed(["a"], on_outage="wait")

    assert not embeddings.failures
    assert len(provider.requests) > 6


async def test_an_outage_of_one_run_is_waited_for_by_another(make_embedder: MakeEmbedder) -> None:
    """Two runs at one endpoint that dies: the one that stops ends soon, the one that waits is whole in the end."""
    provider = provider_with((5, 300, "503"))
    ended: dict[str, float] = {}

    async with make_embedder(transport=provider, limits=ONE_EACH) as embedder:

        async def run(name: Literal["stop", "wait"]) -> None:
            try:
                await embedder.embed(texts_of(800), on_outage=name)
            except RunStoppedError:
                assert name == "stop"
            ended[name] = anyio.current_time() - (provider.origin or 0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, "stop")
            tasks.start_soon(run, "wait")

    assert ended["stop"] <= 90
    assert 300 <= ended["wait"] <= 400


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_job_waits_unless_it_is_told_not_to(make_embedder: MakeEmbedder, tmp_path: Path) -> None:
    """jobs.run against a server that fails for half a second is complete; with on_outage="stop" it may end."""
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts_of(40)))
    quick = Retries(initial_wait=0.001, max_wait=0.01, max_attempts=3)

    def dead_for(seconds: float) -> ScriptedServer:
        server = ScriptedServer()
        server.reply_when(
            lambda request: Scripted(status=503) if request.at < server.received[0].at + seconds else None
        )
        return server

    async with make_embedder(transport=dead_for(0.5), retries=quick) as embedder:
        summary = await jobs.run(tmp_path / "corpus.jsonl", tmp_path / "waited.npy", embedder)
    async with make_embedder(transport=dead_for(10), retries=quick) as embedder:
        with pytest.raises(RunStoppedError):
            await jobs.run(tmp_path / "corpus.jsonl", tmp_path / "no.npy", embedder, on_outage="stop")

    assert (summary.embedded, summary.failures) == (40, 0)
    assert not (tmp_path / "no.npy").exists()


# a text that kills the server ---------------------------------------------------------------------------------


@pytest.mark.parametrize("on_outage", ["stop", "wait"])
@pytest.mark.parametrize("poison", [(0,), (137,), (255,), (3, 200)])
async def test_a_text_that_makes_500s_amid_successes_fails_alone(
    poison: tuple[int, ...], on_outage: Literal["stop", "wait"], make_embedder: MakeEmbedder
) -> None:
    """A batch that only brings 500s while others succeed is halved until the culprits are alone; they fail."""
    texts = ["kills the server" if n in poison else f"text {n}" for n in range(256)] + texts_of(8_000)
    server = ScriptedServer(latency=lambda request: 0.2 + 0.01 * (request.number % 5))

    def crash(request: Received) -> Scripted | None:
        return Scripted(status=500, body=b"Segmentation fault") if "kills the server" in request.inputs else None

    server.reply_when(crash)
    limits = Limits(max_batch_inputs=64, max_concurrent_requests=4)
    async with make_embedder(transport=server, limits=limits) as embedder:
        await embedder.embed(["warm"])
        with pytest.raises(FailedDocumentsError) as caught:
            await embedder.embed(texts, on_outage=on_outage)

    embeddings = caught.value.embeddings
    assert embeddings is not None
    assert tuple(failure.position for failure in embeddings.failures) == poison
    assert all(isinstance(failure.error, ServerError) for failure in embeddings.failures)


@pytest.mark.parametrize("on_outage", ["stop", "wait"])
async def test_many_texts_that_make_500s_do_not_pass_for_an_outage(
    on_outage: Literal["stop", "wait"], make_embedder: MakeEmbedder
) -> None:
    """One text in a hundred, so that two batches in three bring nothing but 500s: halves of them show what works."""
    texts = texts_of(2_000)
    poison = set(texts[50::100])
    server = ScriptedServer(latency=0.05)
    server.reply_when(lambda request: Scripted(status=500) if poison & set(map(str, request.inputs)) else None)
    limits = Limits(max_batch_inputs=64, max_concurrent_requests=8)

    async with make_embedder(transport=server, limits=limits) as embedder:
        embeddings = await embedder.embed(texts, on_outage=on_outage, on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == list(range(50, 2_000, 100))
    assert len(server.received) <= 20 * 2 * 7 + 2_000 // 64 * 4


async def test_an_endpoint_that_is_away_is_tried_with_less_each_time(make_embedder: MakeEmbedder) -> None:
    """Each try that fails may have failed for one of its inputs, so the next has half as many at most."""
    server = ScriptedServer()
    server.reply_when(lambda request: Scripted(status=500) if request.number > 8 else None)
    limits = Limits(max_batch_inputs=64, max_concurrent_requests=4)

    async with make_embedder(transport=server, limits=limits) as embedder:
        with pytest.raises(RunStoppedError):
            await embedder.embed(texts_of(2_000))

    tries = [len(request.inputs) for request in server.received[-5:]]
    assert all(size <= 64 >> number for number, size in enumerate(tries))
