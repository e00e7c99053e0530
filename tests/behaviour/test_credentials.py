"""Keys: given, or asked for; asked for again when they are refused; and never shown."""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from embedbatch import (
    AttemptFailed,
    AuthenticationError,
    ConfigurationError,
    Embedder,
    Endpoint,
    Event,
    Limits,
    Retries,
    RunStoppedError,
    jobs,
)
from embedbatch.testing import Received, Scripted, ScriptedServer

from .conftest import MakeEmbedder, assert_aligned, warm_up

pytestmark = pytest.mark.anyio

TEXTS = [f"text {n}" for n in range(200)]
ONE_EACH = Limits(max_batch_inputs=5)


class Keys:
    """A callable that gives "key-00000001" and so on, and counts how often it was asked."""

    def __init__(self, after: float = 0.0) -> None:
        self.asked = 0
        self._after = after

    async def __call__(self) -> str:
        self.asked += 1
        number = self.asked
        await anyio.sleep(self._after)
        return f"key-{number:08}"


def valid(key: str) -> Callable[[Received], Scripted | None]:
    """Refuses every other key than this, and echoes it."""

    def rule(request: Received) -> Scripted | None:
        given = request.headers.get("authorization", "")
        if given == f"Bearer {key}":
            return None
        return Scripted(
            status=401, body={"error": {"message": f"expired or wrong: {given}", "code": "invalid_api_key"}}
        )

    return rule


def keys_of(server: ScriptedServer) -> list[str]:
    """The key of each request."""
    return [request.headers["authorization"].removeprefix("Bearer ") for request in server.received]


# asking -------------------------------------------------------------------------------------------------------


async def test_a_callable_is_asked_once(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """Before the first request, and not for each."""
    keys = Keys()

    async with make_embedder(api_key=keys, limits=ONE_EACH) as embedder:
        assert keys.asked == 0
        assert_aligned(await embedder.embed(TEXTS), TEXTS, server)

    assert keys.asked == 1
    assert set(keys_of(server)) == {"key-00000001"}


@pytest.mark.parametrize("kind", ["sync", "sync that gives an awaitable", "async", "async method"])
async def test_a_callable_of_any_kind_gives_keys(both_backends: object, kind: str) -> None:
    """A function, also one that waits, does so in a thread; what is async is awaited."""
    threads: list[int] = []

    def sync() -> str:
        threads.append(threading.get_ident())
        return "a secret key"

    async def asynchronous() -> str:
        return sync()

    def awaitable() -> Awaitable[str]:
        return asynchronous()

    class Provider:
        async def __call__(self) -> str:
            return sync()

    source: Any = {"sync": sync, "async": asynchronous, "async method": Provider()}.get(kind, awaitable)
    server = ScriptedServer()
    async with Embedder("m", base_url="http://test/v1", transport=server, api_key=source) as embedder:
        await embedder.embed(["a"])

    assert keys_of(server) == ["a secret key"]
    assert (threads[0] == threading.get_ident()) == (kind != "sync")


@pytest.mark.parametrize("places", [1, 8])
async def test_a_key_that_expires_in_the_middle_costs_nobody_anything(places: int, make_embedder: MakeEmbedder) -> None:
    """
    The key is refused while requests are in flight: it is asked for once, each of them goes again at once, and not even
    an attempt is counted.
    """
    server = ScriptedServer(latency=0.1)
    keys = Keys(after=1.0)
    events: list[Event] = []

    async with make_embedder(
        transport=server,
        api_key=keys,
        limits=Limits(max_batch_inputs=5, max_concurrent_requests=places),
        retries=Retries(max_attempts=1, budget=1),
        observe=events.append,
    ) as embedder:
        await warm_up(embedder, server, places=places)
        server.reply_when(valid("key-00000002"))
        began = anyio.current_time()
        embeddings = await embedder.embed(TEXTS)
        seconds = anyio.current_time() - began
        faults = embedder.stats().faults

    assert_aligned(embeddings, TEXTS, server)
    assert keys.asked == 2
    assert 1 <= keys_of(server).count("key-00000001") <= places
    assert faults == {"Authentication": keys_of(server).count("key-00000001")}
    assert all(event.waits for event in events if isinstance(event, AttemptFailed))
    assert seconds < 1.0 + 0.1 * (40 / places + 4)  # no waits between attempts


async def test_a_key_may_expire_again_and_again(make_embedder: MakeEmbedder) -> None:
    """Every tenth request finds the key expired: each time one more is asked for."""
    server = ScriptedServer()
    keys = Keys()
    server.reply_when(lambda request: valid(f"key-{1 + request.number // 10:08}")(request))

    async with make_embedder(
        transport=server, api_key=keys, limits=Limits(max_batch_inputs=1, max_concurrent_requests=1)
    ) as embedder:
        assert_aligned(await embedder.embed(TEXTS), TEXTS, server)

    assert keys.asked == 1 + len(server.received) // 10


async def test_the_same_key_again_is_no_other_key(make_embedder: MakeEmbedder) -> None:
    """A callable that gives what was refused: the run stops after one request and one question."""
    asked = []

    async def key() -> str:
        asked.append(1)
        return "a wrong key"

    server = ScriptedServer()
    server.reply_when(valid("another"))
    async with make_embedder(transport=server, api_key=key) as embedder:
        with pytest.raises(RunStoppedError) as caught:
            await embedder.embed(TEXTS)

    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert (len(server.received), len(asked)) == (1, 2)


async def test_ever_new_wrong_keys_end(make_embedder: MakeEmbedder) -> None:
    """Before any success two keys are tried; after one, two for each attempt of a request: never without end."""
    server = ScriptedServer()
    server.reply_when(valid("none of these"))
    keys = Keys()
    async with make_embedder(transport=server, api_key=keys) as embedder:
        with pytest.raises(RunStoppedError):
            await embedder.embed(TEXTS)
    assert (len(server.received), keys.asked) == (2, 2)

    server = ScriptedServer()
    keys = Keys()
    async with make_embedder(transport=server, api_key=keys, retries=Retries(max_attempts=3)) as embedder:
        await embedder.embed(["warm"])
        server.reply_when(valid("none of these"))
        with pytest.raises(RunStoppedError):
            await embedder.embed(["a"])
    assert len(server.received) <= 1 + 2 * 3


async def test_many_who_were_refused_ask_once_although_it_is_in_vain(make_embedder: MakeEmbedder) -> None:
    """Eight requests find the key revoked at the same time: one question, not eight."""
    asked = []

    async def key() -> str:
        asked.append(anyio.current_time())
        await anyio.sleep(1.0)
        return "the only key"

    server = ScriptedServer(latency=0.1)
    async with make_embedder(
        transport=server,
        api_key=key,
        limits=Limits(max_batch_inputs=5, max_concurrent_requests=8),
        retries=Retries(max_attempts=1),
    ) as embedder:
        await warm_up(embedder, server, places=8)
        before = len(asked)
        server.reply_when(valid("another"))
        with pytest.raises(RunStoppedError):
            await embedder.embed(TEXTS[:40])

    assert 1 <= len(asked) - before <= 1 + len(server.received) // 8


async def test_a_question_that_is_cancelled_is_asked_by_the_next(make_embedder: MakeEmbedder) -> None:
    """The call that was asking for the first key is cancelled; the one that waits for it asks itself."""
    keys = Keys(after=1.0)
    server = ScriptedServer()

    async with make_embedder(transport=server, api_key=keys) as embedder:
        with anyio.move_on_after(0.5):
            await embedder.embed(["a"])
        assert_aligned(await embedder.embed(["b"]), ["b"], server)

    assert keys.asked == 2


# what a callable can do wrong ---------------------------------------------------------------------------------


@pytest.mark.parametrize("given", [None, 5, b"bytes-that-are-secret", "", " padded-secret ", "two\r\nlines-secret"])
async def test_what_is_no_key_is_refused_without_being_shown(given: Any, make_embedder: MakeEmbedder) -> None:
    """The run stops before anything is sent; the error says what is expected, and nothing of what came."""

    async def key() -> Any:
        return given

    server = ScriptedServer()
    async with make_embedder(transport=server, api_key=key) as embedder:
        with pytest.raises(RunStoppedError, match="expected the callable to give a key") as caught:
            await embedder.embed(["a"])

    assert server.received == []
    assert "secret" not in "".join(traceback.format_exception(caught.value))


async def test_a_callable_that_fails_stops_the_run_with_its_error(make_embedder: MakeEmbedder) -> None:
    """What it raised is the cause of the cause."""

    async def key() -> str:
        raise OSError("no token service")

    async with make_embedder(api_key=key) as embedder:
        with pytest.raises(RunStoppedError, match="the callable raised OSError") as caught:
            await embedder.embed(["a"])

    assert isinstance(caught.value.__cause__, AuthenticationError)
    assert isinstance(caught.value.__cause__.__cause__, OSError)


async def test_a_callable_that_never_answers_stops_the_run(make_embedder: MakeEmbedder) -> None:
    """An async one is waited for as long as for a reply."""
    async with make_embedder(api_key=lambda: anyio.sleep(10_000)) as embedder:
        with pytest.raises(RunStoppedError, match="the callable raised TimeoutError"):
            await embedder.embed(["a"])


async def test_a_callable_that_fails_later_is_asked_again(make_embedder: MakeEmbedder) -> None:
    """In the middle of a run the token service is away once: the request waits like after any fault, and goes on."""
    asked = []

    async def key() -> str:
        asked.append(1)
        if len(asked) == 2:
            raise OSError("no token service")
        return f"key-{len(asked):08}"

    server = ScriptedServer()
    async with make_embedder(transport=server, api_key=key) as embedder:
        await embedder.embed(["warm"])
        server.reply_when(valid("key-00000003"))
        assert_aligned(await embedder.embed(["a"]), ["a"], server)

    assert len(asked) == 3


# headers ------------------------------------------------------------------------------------------------------


async def test_the_callers_own_header_wins(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """default_headers= with the header of the key is what is sent."""
    async with make_embedder(api_key=Keys(), default_headers={"authorization": "Custom x"}) as embedder:
        await embedder.embed(["a"])

    assert server.received[0].headers["authorization"] == "Custom x"


async def test_a_custom_header_carries_the_key(server: ScriptedServer, make_embedder: MakeEmbedder) -> None:
    """auth="X-Key: Token {key}" is sent instead of the usual one."""
    endpoint = Endpoint(name="x", base_url="http://test/v1", auth="X-Key: Token {key}")
    async with make_embedder(endpoint=endpoint, api_key="my-secret-key") as embedder:
        await embedder.embed(["a"])

    assert server.received[0].headers["x-key"] == "Token my-secret-key"
    assert "authorization" not in server.received[0].headers


async def test_a_redirect_takes_no_key_along(make_embedder: MakeEmbedder) -> None:
    """A 307 to another host ends the run; nobody else is asked, and no other key."""
    server = ScriptedServer()
    keys = Keys()
    server.reply_when(lambda request: Scripted(status=307, headers={"location": "https://evil.test/v1/embeddings"}))

    async with make_embedder(transport=server, api_key=keys) as embedder:
        with pytest.raises(RunStoppedError, match="HTTP 307"):
            await embedder.embed(["a"])

    assert [request.url for request in server.received] == ["http://test/v1/embeddings"]
    assert keys.asked == 1


# never shown --------------------------------------------------------------------------------------------------


async def test_no_key_is_ever_shown(
    make_embedder: MakeEmbedder, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in reprs, events, logs at their loudest, errors, tracebacks, or what a job keeps; old keys neither."""
    caplog.set_level(logging.DEBUG)
    server = ScriptedServer()
    keys = Keys()
    events: list[Event] = []
    source, destination = tmp_path / "c.jsonl", tmp_path / "out"
    source.write_text("".join(f'{{"text": "{text}"}}\n' for text in TEXTS), encoding="utf-8")

    async with make_embedder(transport=server, api_key=keys, observe=events.append) as embedder:
        await embedder.embed(["warm"])
        server.reply_when(valid("key-00000002"))
        await embedder.embed(["expired"])
        server.reply_when(lambda request: Scripted(status=402, body=b"key-00000001 and key-00000002: no credit"))
        with pytest.raises(RunStoppedError) as caught:
            await jobs.run(source, destination, embedder)
        shown = [
            *(repr(embedder), repr(embedder.stats()), str(embedder.lessons), str(embedder.recipe)),
            *map(repr, events),
            repr(embedder._router.routes[0].transport.credentials),
            *traceback.format_exception(caught.value),
            caplog.text,
        ]

    assert "no credit" in str(caught.value.__cause__)
    assert not [text for text in (*shown, *kept_in(tmp_path)) if "key-0000" in text]


def kept_in(folder: Path) -> list[str]:
    """The content of every file."""
    return [path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file()]


def test_a_fixed_key_that_no_header_can_carry_is_refused_unseen() -> None:
    """At once, and without being shown."""
    with pytest.raises(ConfigurationError, match=r"^api_key: expected ASCII characters, without white space") as caught:
        Embedder("m", base_url="http://test/v1", api_key="secret\r\nX: 1")
    assert "secret" not in str(caught.value)
