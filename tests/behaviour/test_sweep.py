"""The sweep behind `embedbatch bench`: what it sends, what it measures, and when it ends."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

import anyio
import httpx
import pytest

from embedbatch import Embedder, RunStoppedError
from embedbatch.sweep import Budget, Grid, Point, Reason, Sweep, Texts, bound_for, generate
from embedbatch.testing import Capacity, Latency, ProviderSimulator, Quota, Scripted, ScriptedServer

pytestmark = pytest.mark.anyio

PLENTY = Budget(max_requests=10_000, max_tokens=10_000_000)
SMALL = Grid((1, 4), (1, 2, 4))


def make_sweep(server: httpx.AsyncBaseTransport, *, text_bytes: int = 40, **options: Any) -> Sweep:
    """A sweep of *server*, with the same texts every time."""
    connect = partial(Embedder, "test-model", base_url="http://test/v1", transport=server, rng=Random(1))
    texts = Texts(generate(text_bytes, Random(1)), bound_for("test-model"))
    return Sweep(**{"connect": connect, "texts": texts, "budget": PLENTY, "grid": SMALL, **options})


def assert_nothing_was_sent_twice(server: ScriptedServer) -> None:
    """Assert that no text was in two requests: nothing was tried again, and no cache could answer."""
    sent = [text for request in server.received for text in request.inputs]
    assert len(sent) == len(set(sent)) > 0


async def test_the_knee_is_where_the_servers_workers_are_busy() -> None:
    """
    4 workers that take 0.1 s a request: 10, 20, 40 and then no more requests a second. The knee is at 4 in flight.
    """
    server = ProviderSimulator(latency=0.1, capacity=Capacity(workers=4))
    sweep = make_sweep(server, grid=Grid((8,), (1, 2, 4, 8, 16, 32)))

    await sweep.run()

    rates = {point.in_flight: each.requests_per_second for point, each in sweep.measured.items()}
    assert rates == pytest.approx({1: 10, 2: 20, 4: 40, 8: 40, 16: 40})
    assert sweep.not_measured == {Point(8, 32): Reason.FLAT}
    verdict = sweep.verdict()
    assert verdict is not None
    assert verdict.knee.point == Point(8, 4)
    assert verdict.knee.inputs_per_second == pytest.approx(320)
    assert (verdict.knee.p50, verdict.knee.p99) == pytest.approx((0.1, 0.1))


async def test_every_point_runs_with_as_many_in_flight_as_it_says() -> None:
    """The server sees 1, 2, … 32 requests at once from the beginning, where an embedder would feel its way up."""
    server = ProviderSimulator(latency=0.1)
    seen = []

    def note(_: object) -> None:
        seen.append(server.max_in_flight)
        server.max_in_flight = 0

    sweep = make_sweep(server, grid=Grid((1,), (1, 2, 4, 8, 16, 32)), on_measured=note)
    await sweep.run()

    assert seen == [1, 2, 4, 8, 16, 32]
    assert [each.in_flight for each in sweep.measured.values()] == pytest.approx(seen)


async def test_connections_and_sizes_are_warmed_up_and_not_measured(server: ScriptedServer) -> None:
    """One small request for each place, one for each size; the rest is measured. The first may be slow."""
    server.reply_next(*[Scripted(after=5.0)])

    sweep = make_sweep(server)
    await sweep.run()

    measured = sum(each.requests for each in sweep.measured.values())
    assert len(server.received) == sweep.ledger.requests == measured + 4 + 2
    assert all(each.p99 < 1 for each in sweep.measured.values())
    assert_nothing_was_sent_twice(server)


PROVIDERS = {
    "good": lambda credit: ProviderSimulator(credit_tokens=credit),
    "sheds": lambda credit: ProviderSimulator(credit_tokens=credit, capacity=Capacity(sheds_above=3)),
    "quota": lambda credit: ProviderSimulator(credit_tokens=credit, quota=Quota(tokens_per_minute=2_000)),
    "caps": lambda credit: ProviderSimulator(credit_tokens=credit, max_inputs=2),
    "silent": lambda credit: ProviderSimulator(credit_tokens=credit, announce_caps=False, max_request_bytes=300),
    "poison": lambda credit: ProviderSimulator(credit_tokens=credit, poison=lambda text: "3:" in text),
    "dense": lambda credit: ProviderSimulator(credit_tokens=credit, usage_tokens_per_byte=0.99),
    "slow": lambda credit: ProviderSimulator(credit_tokens=credit, latency=Latency(median=40, sigma=0.5)),
}


@pytest.mark.parametrize("budget", [(1, 50), (3, 10_000), (20, 1_000), (25, 10_000), (60, 2_000), (500, 5_000)])
@pytest.mark.parametrize("kind", PROVIDERS)
async def test_the_budget_is_never_passed(kind: str, budget: tuple[int, int]) -> None:
    """
    Whatever the endpoint does: no more requests than stated, and it never runs out of a credit of that many tokens.
    """
    max_requests, max_tokens = budget
    provider = PROVIDERS[kind](max_tokens)

    sweep = make_sweep(provider, budget=Budget(max_requests=max_requests, max_tokens=max_tokens))
    await sweep.run()

    assert 0 < len(provider.requests) == sweep.ledger.requests <= sweep.at_most.max_requests <= max_requests
    assert sweep.ledger.tokens <= sweep.at_most.max_tokens <= max_tokens


async def test_the_budget_holds_on_every_loop(both_backends: str) -> None:
    """On asyncio and trio, with failures of every kind: one request for every call, and no text is sent twice."""
    server = ScriptedServer(latency=0.001)
    kinds = {
        9: Scripted(status=500),
        17: Scripted(breaks="read"),
        25: Scripted(body=b"{}"),
        33: Scripted(breaks="body"),
    }
    server.reply_when(lambda request: kinds.get(request.number))

    sweep = make_sweep(server, budget=Budget(max_requests=60, max_tokens=100_000))
    await sweep.run()

    assert 33 < len(server.received) == sweep.ledger.requests <= 60
    assert sum(each.errors for each in sweep.measured.values()) == len(kinds)
    assert_nothing_was_sent_twice(server)


async def test_a_few_errors_are_counted_and_many_end_a_point(server: ScriptedServer) -> None:
    """A server error now and then is in the numbers. Where three requests of a point fail, nothing larger is tried."""
    errors = {12: 500, 40: 500, 41: 500, 42: 500}
    server.reply_when(lambda it: Scripted(status=errors[it.number]) if it.number in errors else None)

    sweep = make_sweep(server, grid=Grid((1,), (1, 2, 4)))
    await sweep.run()

    assert [(each.errors, each.is_good) for each in sweep.measured.values()] == [(1, True), (3, False)]
    assert sweep.not_measured == {Point(1, 4): Reason.LIMITED}
    assert_nothing_was_sent_twice(server)


async def test_bad_vectors_are_an_error_and_not_asked_for_again(server: ScriptedServer) -> None:
    """A vector of zeros is noted; the request that would ask for it again is not sent."""

    def spoil(request: Any, body: dict[str, Any]) -> dict[str, Any]:
        if request.number == 9:
            body["data"][0]["embedding"] = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
        return body

    server.edit(spoil)
    sweep = make_sweep(server, grid=Grid((4,), (1,)))
    await sweep.run()

    assert sweep.measured[Point(4, 1)].errors == 1
    assert "1 of 4 vectors cannot be used" in (sweep.measured[Point(4, 1)].reason or "")
    assert_nothing_was_sent_twice(server)


async def test_after_a_429_nothing_larger_is_tried_and_the_pause_is_kept() -> None:
    """The first request at 2 × 2 is refused for 30 s: then the others go on, and the larger ones do not."""
    server = ScriptedServer(latency=0.1)  # or else hardly two are in flight at once
    refused_at: list[float] = []

    def refuse(request: Any) -> Scripted | None:
        if len(request.inputs) == 2 and server.in_flight == 2 and not refused_at:
            refused_at.append(request.at)
            return Scripted(status=429, headers={"retry-after": "30"})
        return None

    server.reply_when(refuse)
    sweep = make_sweep(server, grid=Grid((1, 2, 3), (1, 2, 3)))
    await sweep.run()

    assert sweep.measured[Point(2, 2)].refusals == 1
    assert set(sweep.not_measured) == {Point(2, 3), Point(3, 2), Point(3, 3)}
    answered_at = refused_at[0] + 0.1  # when the other one may have been answered too, and the next have left
    after = [request.at - answered_at for request in server.received if request.at > answered_at + 0.01]
    assert min(after) >= 30
    assert sweep.ended is None
    assert sweep.ledger.requests == len(server.received)
    assert sweep.ledger.tokens <= sum(len(text) // 4 for request in server.received for text in request.inputs)


async def test_an_endpoint_that_wants_to_be_left_alone_is() -> None:
    """It asks for more than a minute: the sweep ends, says so, and what was measured is kept."""
    server = ScriptedServer(latency=0.1)  # or else hardly two are in flight at once
    server.reply_when(lambda it: Scripted(status=429, headers={"retry-after": "90"}) if server.in_flight > 1 else None)

    sweep = make_sweep(server, grid=Grid((1,), (1, 2, 4)))
    await sweep.run()

    assert sweep.ended == "the endpoint asked for a pause of 90 s"
    assert sweep.measured[Point(1, 1)].is_good
    assert sweep.not_measured == {Point(1, 4): Reason.LIMITED}


async def test_a_sweep_that_meets_a_limit_everywhere_ends() -> None:
    """Three points that were too much are enough: it is not the point that matters."""
    server = ScriptedServer(latency=0.1)  # or else hardly two are in flight at once
    server.reply_when(lambda it: Scripted(status=503) if server.in_flight * len(it.inputs) > 16 else None)

    sweep = make_sweep(server, grid=Grid((1, 2, 4, 8, 16, 32), (1, 2, 4, 8, 16, 32)))
    await sweep.run()

    assert sweep.ended is not None
    assert sweep.ended.startswith("3 points were too much for the endpoint: ")
    assert Reason.ENDED in sweep.not_measured.values()
    verdict = sweep.verdict()
    assert verdict is None or verdict.knee.is_good


async def test_a_request_that_is_too_large_ends_the_sizes() -> None:
    """A server that takes 8 inputs: 16 are refused once, and not tried with more in flight."""
    server = ProviderSimulator(max_inputs=8)

    sweep = make_sweep(server, grid=Grid((4, 8, 16, 32), (1, 2)))
    await sweep.run()

    assert sweep.measured[Point(16, 1)].is_size_refused
    assert sweep.not_measured == dict.fromkeys([Point(16, 2), Point(32, 1), Point(32, 2)], Reason.SIZE)
    assert max(record.inputs for record in server.requests) == 16


async def test_a_size_that_no_request_holds_is_not_tried(server: ScriptedServer) -> None:
    """2,048 texts of 200 bytes may be more than 300,000 tokens: an embedder would send two requests."""
    sweep = make_sweep(server, text_bytes=200, grid=Grid((1, 2_048), (1,)))
    await sweep.run()

    assert sweep.not_measured == {Point(2_048, 1): Reason.SIZE}


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Scripted(status=401, body={"error": {"message": "bad key"}}), "bad key"),
        (Scripted(status=429, body={"error": {"message": "pay", "code": "insufficient_quota"}}), "pay"),
    ],
)
async def test_what_no_request_would_survive_ends_the_sweep(server: ScriptedServer, reply: Scripted, said: str) -> None:
    """A key or a credit that is gone in the middle: the error is raised, and what was measured before is kept."""
    server.reply_when(lambda request: reply if request.number > 30 else None)
    sweep = make_sweep(server)

    with pytest.raises(RunStoppedError, match=f"the sweep ended: .*{said}"):
        await sweep.run()

    assert list(sweep.measured) == [Point(1, 1)]
    assert server.is_closed


@pytest.mark.parametrize("reply", [Scripted(status=401), Scripted(status=500), Scripted(breaks="connect")])
async def test_a_first_request_that_fails_is_the_only_one(server: ScriptedServer, reply: Scripted) -> None:
    """A wrong key, a wrong address, a server that is down: one request is sent, and the error says why."""
    server.reply_when(lambda request: reply)

    with pytest.raises(RunStoppedError, match="the first request failed, and nothing was measured"):
        await make_sweep(server).run()

    assert len(server.received) == 1


async def test_a_quota_in_the_headers_is_told_and_not_kept_to() -> None:
    """
    Tokens for 25 a second would have an embedder send 4 inputs at once, and wait. The sweep sends 16, and says so.
    """
    server = ProviderSimulator(quota=Quota(tokens_per_minute=12_000, requests_per_minute=60_000))
    sweep = make_sweep(server, grid=Grid((1, 16), (1,)))

    await sweep.run()

    assert {record.inputs for record in server.requests} == {1, 16}
    assert sweep.quota.tokens_per_second == 200
    assert sweep.quota.tokens_per_request == pytest.approx(40)
    verdict = sweep.verdict()
    assert verdict is not None
    assert verdict.knee.point == Point(1, 1)


async def test_what_was_measured_before_it_was_cancelled_is_kept(server: ScriptedServer) -> None:
    """In the middle of the second point: the first is there, and as much as came back of the second."""
    server.reply_when(lambda request: Scripted(after=1.0))
    sweep = make_sweep(server, grid=Grid((1,), (1, 2)))

    with anyio.move_on_after(36.5):
        await sweep.run()

    assert [each.requests for each in sweep.measured.values()] == [24, 18]
    assert server.is_closed


async def test_what_is_left_out_has_a_price(server: ScriptedServer) -> None:
    """The budget that would have been enough is enough for all points."""
    budget = Budget(max_requests=40, max_tokens=2_000)
    sweep = make_sweep(server, budget=budget)
    await sweep.run()
    assert sweep.over_budget

    again = make_sweep(ScriptedServer(), budget=sweep.enough())
    await again.run()

    assert len(again.measured) > len(sweep.measured)
