"""Several endpoints behind one embedder, and one limiter behind several embedders."""

from __future__ import annotations

from random import Random
from typing import Any

import anyio
import httpx
import pytest

from embedbatch import (
    AuthenticationError,
    ConfigurationError,
    ConnectionFailedError,
    Embedder,
    Endpoint,
    EndpointAway,
    Event,
    Limiter,
    Limits,
    QuotaExhaustedError,
    RunStoppedError,
)
from embedbatch.testing import Hosts, Outage, ProviderSimulator, Quota, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned

pytestmark = pytest.mark.anyio

ONE_EACH = Limits(max_batch_inputs=1)


def texts_of(count: int) -> list[str]:
    """So many different texts."""
    return [f"text {n}" for n in range(count)]


def at(name: str, **options: Any) -> Endpoint:
    """An endpoint at the host of that name."""
    return Endpoint(name=name, base_url=f"http://{name}/v1", **options)


def embedder_at(servers: dict[str, httpx.AsyncBaseTransport], *endpoints: Endpoint, **options: Any) -> Embedder:
    """An embedder that uses all of these together."""
    chosen = endpoints or tuple(at(name) for name in servers)
    defaults = {"transport": Hosts(servers), "rng": Random(7), "limits": ONE_EACH}
    return Embedder("test-model", endpoints=chosen, **{**defaults, **options})


def slow(seconds: float = 0.2) -> ScriptedServer:
    """A server that takes so long."""
    return ScriptedServer(latency=seconds)


def always(reply: Scripted) -> ScriptedServer:
    """A server that says nothing else."""
    server = slow(0.1)
    server.reply_when(lambda request: reply)
    return server


# together -----------------------------------------------------------------------------------------------------


async def test_the_work_is_spread_over_all_endpoints() -> None:
    """Three equally quick servers: each does between a quarter and half of 900 requests, no text twice."""
    servers = {name: slow() for name in ("a", "b", "c")}

    async with embedder_at(dict(servers)) as embedder:
        embeddings = await embedder.embed(texts_of(900))
        stats = embedder.stats()

    assert_aligned(embeddings, texts_of(900), servers["a"])
    counts = [len(server.received) for server in servers.values()]
    assert sum(counts) == 900
    assert all(225 <= count <= 450 for count in counts)
    assert [capacity.endpoint for capacity in stats.capacity] == ["a", "b", "c"]


async def test_each_endpoint_has_its_own_quota() -> None:
    """600 and 1,200 requests a minute, set for each: together 30 a second, each within its own, none refused."""
    quotas = {"a": 600, "b": 1_200}
    providers = {
        name: ProviderSimulator(latency=0.2, quota=Quota(requests_per_minute=rate, window=3.0))
        for name, rate in quotas.items()
    }
    endpoints = [at(name, max_requests_per_minute=rate) for name, rate in quotas.items()]

    async with embedder_at(dict(providers), *endpoints) as embedder:
        await embedder.embed(texts_of(900))
        rates = {capacity.endpoint: capacity.requests_per_second for capacity in embedder.stats().capacity}

    assert rates == {"a": 10, "b": 20}
    assert all(provider.share(429) == 0 for provider in providers.values())
    assert len(providers["a"].requests) == pytest.approx(300, rel=0.1)
    assert max(provider.requests[-1].at for provider in providers.values()) == pytest.approx(30, rel=0.1)


async def test_each_endpoint_is_asked_with_its_own_key_and_model() -> None:
    """What is not set for one is that of the embedder."""
    servers = {name: slow() for name in ("a", "b")}
    endpoints = at("a", api_key="key-a", model="model-a"), at("b")

    async with embedder_at(dict(servers), *endpoints, api_key="key") as embedder:
        await embedder.embed(texts_of(40))

    said = {
        name: {(request.headers["authorization"], request.body["model"]) for request in server.received}
        for name, server in servers.items()
    }
    assert said == {"a": {("Bearer key-a", "model-a")}, "b": {("Bearer key", "test-model")}}


@pytest.mark.parametrize("announce", [True, False])
async def test_different_caps_are_kept_at_each_endpoint(announce: bool) -> None:
    """One takes 10 inputs, the other any number: all is embedded, and the refusals are few."""
    small = ProviderSimulator(latency=0.1, max_inputs=10, announce_caps=announce)
    large = ProviderSimulator(latency=0.1)

    async with embedder_at({"small": small, "large": large}, limits=Limits()) as embedder:
        for _ in range(10):
            embeddings = await embedder.embed(texts_of(512))
            assert not embeddings.failures

    assert sum(request.status == 400 for request in small.requests) <= 12
    assert all(request.inputs <= 10 for request in small.requests if request.status == 200)


# when some do not work ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["503", "500", "refused"])
@pytest.mark.parametrize("start", [0.0, 3.0])
async def test_one_endpoint_dies_and_the_run_goes_on(kind: Any, start: float) -> None:
    """From the beginning or in the middle: nothing fails, little is sent to the dead one, the other does the rest."""
    dead = ProviderSimulator(latency=0.2, outages=[Outage(start=start, end=10**6, kind=kind)])
    alive = ProviderSimulator(latency=0.2)
    events: list[Event] = []

    async with embedder_at({"dead": dead, "alive": alive}, observe=events.append) as embedder:
        embeddings = await embedder.embed(texts_of(1_500))
        stats = embedder.stats()

    assert not embeddings.failures
    assert sum(request.at >= start and request.status != 200 for request in dead.requests) <= 32 + 15
    assert [event.endpoint for event in events if isinstance(event, EndpointAway)] == ["dead"]
    assert {each.endpoint for each in stats.capacity if each.away_seconds} == {"dead"}


async def test_an_endpoint_that_comes_back_is_used_again() -> None:
    """Away for 20 s of a long run: afterwards it does its share."""
    away = ProviderSimulator(latency=0.2, outages=[Outage(start=2, end=22, kind="503")])
    other = ProviderSimulator(latency=0.2, quota=Quota(requests_per_minute=600))
    endpoints = at("away"), at("other", max_requests_per_minute=600)

    async with embedder_at({"away": away, "other": other}, *endpoints) as embedder:
        await embedder.embed(texts_of(3_000))

    assert sum(request.at > 35 and request.status == 200 for request in away.requests) > 100


async def test_an_endpoint_that_is_silent_costs_time_and_no_document() -> None:
    """It accepts requests and never answers: they are sent to the other one after the timeout."""
    silent = ProviderSimulator(latency=0.2, outages=[Outage(start=1, end=10**6, kind="silence")])
    alive = ProviderSimulator(latency=0.2)

    async with embedder_at({"silent": silent, "alive": alive}, timeout=5.0) as embedder:
        embeddings = await embedder.embed(texts_of(3_000))

    assert not embeddings.failures
    assert silent.in_flight == 0


NO_USE = {
    "a wrong key": Scripted(status=401, body={"error": {"message": "Incorrect API key provided"}}),
    "no credit": Scripted(status=429, body={"error": {"code": "insufficient_quota"}}),
    "no such model": Scripted(status=404, body={"error": {"code": "model_not_found"}}),
}


@pytest.mark.parametrize("reply", NO_USE.values(), ids=NO_USE)
async def test_an_endpoint_that_refuses_the_key_is_set_aside(reply: Scripted) -> None:
    """After its one refusal nothing is sent there for a minute, and the other does everything."""
    refusing, willing = always(reply), slow()

    async with embedder_at({"refusing": refusing, "willing": willing}) as embedder:
        embeddings = await embedder.embed(texts_of(500))

    assert_aligned(embeddings, texts_of(500), willing)
    times = [request.at for request in refusing.received]
    assert len([when for when in times if when < times[0] + 60]) == 1


@pytest.mark.parametrize(
    ("reply", "reason"),
    [(NO_USE["a wrong key"], AuthenticationError), (NO_USE["no credit"], QuotaExhaustedError)],
    ids=["keys", "credit"],
)
async def test_the_run_stops_when_the_last_key_is_refused(reply: Scripted, reason: type) -> None:
    """Both keys are wrong, or both accounts empty: two requests, and the run stops with the reason."""
    servers = {"a": always(reply), "b": always(reply)}

    async with embedder_at(dict(servers)) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(texts_of(100))

    assert isinstance(caught.value.__cause__, reason)
    assert sum(len(server.received) for server in servers.values()) <= 3


async def test_the_run_stops_when_all_are_dead() -> None:
    """No endpoint has a connection: within a minute the run stops, after no more than the budget of 50."""
    async with embedder_at({}, at("a"), at("b"), at("c")) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(texts_of(1_000))
        stats = embedder.stats()

    assert isinstance(caught.value.__cause__, ConnectionFailedError)
    assert anyio.current_time() <= 60
    assert stats.requests <= 3 + 50


async def test_a_text_that_every_endpoint_refuses_fails_alone() -> None:
    """A 400 for one text, wherever it is sent: exactly it fails."""
    servers = {"a": slow(), "b": slow()}
    refusal = Scripted(status=400, body={"error": {"message": "not this one"}})
    for server in servers.values():
        server.reply_when(lambda request: refusal if "bad" in request.inputs else None)

    async with embedder_at(dict(servers), limits=Limits(max_batch_inputs=16)) as embedder:
        await embedder.embed(["warm"])
        texts = [*texts_of(100), "bad", *texts_of(60)]
        embeddings = await embedder.embed(texts, on_failure="collect")

    assert [failure.position for failure in embeddings.failures] == [100]


async def test_an_endpoint_with_vectors_of_another_size_is_set_aside() -> None:
    """The first gives 8 numbers, the other 4: sizes are never mixed, and the other is not paid for again and again."""
    servers = {"a": ScriptedServer(dimensions=8, latency=0.1), "b": ScriptedServer(dimensions=4, latency=0.15)}

    async with embedder_at(dict(servers)) as embedder:
        embeddings = await embedder.embed(texts_of(200))

    assert_aligned(embeddings, texts_of(200), servers["a"])
    assert len(servers["b"].received) <= 2


async def test_cancelled_with_several_endpoints_nothing_is_left() -> None:
    """Whenever it is cancelled: no place taken, nobody in a queue, and the next call works."""
    servers = {name: slow(1.0) for name in ("a", "b", "c")}

    async with embedder_at(dict(servers)) as embedder:
        for moment in range(40):
            with anyio.move_on_after(moment / 4):
                await embedder.embed(texts_of(60))
            stats = embedder.stats()
            assert (stats.in_flight, stats.waiting) == (0, 0)
        assert len(await embedder.embed(texts_of(30))) == 30


async def test_several_endpoints_hold_on_every_loop(both_backends: object) -> None:
    """In real time: 1,000 texts over three servers, one of which fails every third time."""
    servers = {name: slow(0.002) for name in ("a", "b", "c")}
    servers["c"].reply_when(lambda request: Scripted(status=500) if request.number % 3 == 0 else None)

    async with embedder_at(dict(servers)) as embedder:
        with anyio.fail_after(30):
            embeddings = await embedder.embed(texts_of(1_000))
        stats = embedder.stats()

    assert_aligned(embeddings, texts_of(1_000), servers["a"])
    assert (stats.in_flight, stats.waiting) == (0, 0)


# one limiter --------------------------------------------------------------------------------------------------


async def test_two_embedders_share_one_limit(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """600 requests a minute for the key: both together keep it, in every window of 10 s."""
    limits = Limits(max_batch_inputs=1, max_requests_per_minute=600)

    async with (
        make_embedder(limits=limits) as first,
        make_embedder(limiter=first.limiter, limits=ONE_EACH) as second,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(first.embed, texts_of(150))
        tasks.start_soon(second.embed, texts_of(150))

    times = [request.at for request in server.received]
    assert len(times) == 300
    assert max(sum(start <= when < start + 10 for when in times) for start in times) <= 120
    assert times[-1] - times[0] == pytest.approx(30, rel=0.1)


async def test_two_embedders_share_pauses_and_places(make_embedder: MakeEmbedder) -> None:
    """A limiter made by hand, with 2 places: never more in flight, and one's Retry-After is kept by the other."""
    server = ScriptedServer(latency=0.5)
    server.reply_when(
        lambda request: Scripted(status=429, headers={"retry-after": "30"}) if request.number == 5 else None
    )
    limiter = Limiter(Limits(max_concurrent_requests=2))

    async with (
        make_embedder(transport=server, limiter=limiter, limits=ONE_EACH) as first,
        make_embedder(transport=server, limiter=limiter, limits=ONE_EACH) as second,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(first.embed, texts_of(10))
        tasks.start_soon(second.embed, texts_of(10))

    refused_at = server.received[4].at + 0.5
    assert server.max_in_flight == 2
    assert not [request for request in server.received if refused_at < request.at < refused_at + 30]


# misuse -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"endpoints": []}, "at least one"),
        ({"endpoints": [at("a")], "base_url": "http://b/v1"}, "expected them alone"),
        ({"endpoints": [at("a")], "endpoint": at("b")}, "expected them alone"),
        ({"endpoints": [at("a"), at("b")], "limiter": Limiter()}, "limiter: expected one endpoint"),
        (
            {"endpoints": [at("a", model="text-embedding-3-small"), at("b", model="text-embedding-3-large")]},
            "vectors of different sizes",
        ),
        ({"endpoints": [Endpoint(name="a", base_url="http://a/v1", needs_key=True)]}, "no key for a"),
    ],
    ids=["none", "and base_url", "and endpoint", "and limiter", "dimensions", "no key"],
)
def test_what_cannot_work_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    """Settings that contradict each other are a ConfigurationError, before anything is sent."""
    with pytest.raises(ConfigurationError, match=message):
        Embedder("test-model", **options)


@pytest.mark.parametrize("field", ["max_requests_per_minute", "max_tokens_per_minute"])
@pytest.mark.parametrize("rate", [0, -1, "many"])
def test_a_quota_of_nothing_is_refused(field: str, rate: object) -> None:
    """An endpoint's rates are numbers above 0."""
    with pytest.raises(ConfigurationError, match=f"{field}: expected a number above 0"):
        Endpoint(name="a", **{field: rate})  # type: ignore[arg-type]
