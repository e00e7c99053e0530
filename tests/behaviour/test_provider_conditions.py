"""How the simulated provider fares: outages, crowds, other clients, and what can be looked up afterwards."""

from __future__ import annotations

import math
from typing import Any

import anyio
import httpx
import numpy as np
import pytest

from embedbatch import ConfigurationError
from embedbatch.testing import Capacity, Hosts, Latency, OtherClient, Outage, ProviderSimulator, Quota

from .providing import ask, ask_together, seconds_taken

pytestmark = pytest.mark.anyio


async def test_an_outage_begins_and_ends() -> None:
    """From 10 to before 20 s there is no service in four ways, before and after there is; silence never ends."""
    seen = []
    for kind in ("503", "500", "refused", "silence"):
        provider = ProviderSimulator(outages=[Outage(start=10, end=20, kind=kind)], latency=0.0)  # type: ignore[arg-type]
        await ask(provider, "a")
        await anyio.sleep(10)
        try:
            with anyio.fail_after(3_600):
                seen.append((await ask(provider, "a")).status_code)
        except (httpx.ConnectError, TimeoutError) as error:
            seen.append(type(error))
        await anyio.sleep(10)
        await ask(provider, "a")
        assert [record.status for record in (provider.requests[0], provider.requests[2])] == [200, 200]
        assert provider.in_flight == 0
        seen.append(provider.requests[1].status)

    assert seen == [503, 503, 500, 500, httpx.ConnectError, 0, TimeoutError, None]


async def test_what_was_accepted_before_an_outage_is_answered() -> None:
    """A request that takes 5 s is answered, though the provider is silent from the first second on."""
    provider = ProviderSimulator(outages=[Outage(start=1, end=100, kind="silence")], latency=5.0)

    assert (await ask(provider, "a")).status_code == 200


@pytest.mark.parametrize(("status", "body"), [(503, "Service busy"), (429, "Model is overloaded")])
async def test_a_full_server_sheds(status: Any, body: str) -> None:
    """With 3 accepted, the fourth is refused at once, without a time to wait; later it is let in."""
    provider = ProviderSimulator(capacity=Capacity(sheds_above=3, status=status))

    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(ask, provider, "a")
        await anyio.sleep(0.1)
        response = await ask(provider, "a")

    assert response.status_code == status
    assert body in response.text
    assert "retry-after" not in response.headers
    assert seconds_taken(provider.requests[3]) == pytest.approx(0.03)
    assert (await ask(provider, "a")).status_code == 200
    assert provider.max_in_flight == 4


async def test_workers_answer_first_come_first_served() -> None:
    """Two workers and 1 s each: of six requests the pairs are answered after 1, 2 and 3 s, in order of arrival."""
    provider = ProviderSimulator(capacity=Capacity(workers=2), latency=1.0)

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(ask, provider, "a")
            await anyio.sleep(0.01)

    taken = [record.answered_at for record in provider.requests]
    assert taken == pytest.approx([1.0, 1.01, 2.0, 2.01, 3.0, 3.01])


async def test_a_client_that_gives_up_frees_its_place() -> None:
    """Who stops waiting, at work or in the queue, leaves the worker to the next."""
    provider = ProviderSimulator(capacity=Capacity(workers=1, sheds_above=2), latency=10.0)
    with anyio.move_on_after(1):
        await ask_together(provider, 2)

    await ask(provider, "a")

    assert [record.status for record in provider.requests] == [None, None, 200]
    assert seconds_taken(provider.requests[2]) == pytest.approx(10)


async def test_too_many_at_once_get_less_done() -> None:
    """With a peak at 8, 8 at once get more done in a minute than 2 and than 40."""
    done = {}
    for at_once in (2, 8, 40):
        provider = ProviderSimulator(capacity=Capacity(contention_peak=8), latency=Latency(median=0.2))
        with anyio.move_on_after(60):
            async with anyio.create_task_group() as group:

                async def keep_asking(provider: ProviderSimulator = provider) -> None:
                    while True:
                        await ask(provider, "a")

                for _ in range(at_once):
                    group.start_soon(keep_asking)
        done[at_once] = sum(record.status == 200 for record in provider.requests)

    assert done[8] > 1.5 * done[2]
    assert done[8] > 1.3 * done[40]


async def test_another_client_is_felt() -> None:
    """A client that gets all it sends alone is refused a part while somebody else takes half."""
    provider = ProviderSimulator(
        quota=Quota(tokens_per_minute=60_000, window=2.0),
        others=[OtherClient(start=20, end=40, tokens_per_minute=30_000, request_tokens=50)],
        latency=0.0,
    )
    for _ in range(600):
        await ask(provider, "x" * 320)
        await anyio.sleep(0.1)

    assert provider.share(200, 0, 20) == 1
    assert 0.1 < provider.share(429, 20, 40) < 1
    assert provider.share(200, 41) == 1


async def trace(seed: int) -> list[tuple[float, int | None, float, float | None]]:
    """What a busy client sees of a provider with this seed."""
    provider = ProviderSimulator(
        seed=seed,
        quota=Quota(tokens_per_minute=60_000, window=5.0, noise=0.2),
        latency=Latency(tail_share=0.1, uplink=0.05),
    )
    async with anyio.create_task_group() as group:
        for n in range(200):
            group.start_soon(ask, provider, "x" * (4_000 + n))
            await anyio.sleep(0.777)
    return [(record.at, record.status, record.tokens, record.answered_at) for record in provider.requests]


async def test_the_same_seed_is_the_same_day() -> None:
    """Two runs with one seed agree in every time and number, and another seed does not."""
    first, again, other = await trace(1), await trace(1), await trace(2)

    assert [row[1:3] for row in first] == [row[1:3] for row in again]
    np.testing.assert_allclose([row[3] for row in first], [row[3] for row in again], atol=1e-6)  # type: ignore[arg-type]
    assert first != other
    assert {status for _, status, _, _ in first} == {200, 429}


async def test_what_happened_can_be_looked_up() -> None:
    """Records count from 1 and from the start; shares and tokens are those of the time asked for."""
    provider = ProviderSimulator(latency=1.0, remember=True)
    await anyio.sleep(100)
    provider.start()
    await anyio.sleep(5)
    await ask_together(provider, 3, ["a", "b"])

    await ask(provider, ["a", [1, 2]])

    assert provider.origin == pytest.approx(100)
    assert [record.number for record in provider.requests] == [1, 2, 3, 4]
    assert [record.at for record in provider.requests] == pytest.approx([5, 5, 5, 6])
    assert sorted(record.in_flight for record in provider.requests) == [1, 1, 2, 3]
    assert provider.max_in_flight == 3 and provider.in_flight == 0
    assert all(record.granted and record.size > 20 and record.inputs == 2 for record in provider.requests)
    assert provider.share(200) == 1 and provider.share(200, 7, math.inf) == 0
    assert provider.granted_tokens(0, 6) == pytest.approx(1.5)
    assert provider.embedded == {"a": 4, "b": 3, (1, 2): 1}


async def test_others_need_a_quota() -> None:
    """Somebody who takes from no quota is a mistake."""
    with pytest.raises(ConfigurationError, match="others"):
        ProviderSimulator(others=[OtherClient(start=0, end=1, tokens_per_minute=1)])


async def test_hosts_tells_servers_apart() -> None:
    """Each request goes to the server of its host; an unknown host is no connection; closing closes all."""
    a, b = ProviderSimulator(), ProviderSimulator(max_inputs=1)
    hosts = Hosts({"a.test": a, "b.test": b})
    async with httpx.AsyncClient(transport=hosts) as client:
        for host, status in (("a.test", 200), ("b.test", 400)):
            response = await client.post(f"http://{host}/v1/embeddings", json={"input": ["x", "y"]})
            assert response.status_code == status
        with pytest.raises(httpx.ConnectError, match="no such host"):
            await client.post("http://c.test/v1/embeddings", json={"input": ["x"]})

    assert (len(a.requests), len(b.requests)) == (1, 1)
    assert a.is_closed and b.is_closed


async def test_it_runs_in_real_time_too(both_backends: str) -> None:
    """Nothing of it needs the virtual clock: on asyncio and on trio a queue of requests is answered."""
    provider = ProviderSimulator(latency=0.001, capacity=Capacity(workers=2), quota=Quota(requests_per_minute=5))

    await ask_together(provider, 6)

    assert sorted(record.status or 0 for record in provider.requests) == [200] * 5 + [429]
