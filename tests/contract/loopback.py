"""
A real HTTP/1.1 server on loopback: whatever an `httpx.AsyncBaseTransport` answers, over sockets.

    with serve_in_a_thread(ScriptedServer()) as base_url:      # scripted by the test that uses it
        ...
    with serve_in_a_process(seed=1) as base_url:               # does not share the interpreter's lock with the client
        ...

Run as a program it is the second one: it shuffles the items of every reply, answers after a random time, sends every
other reply in chunks, refuses a request now and then, and ends when its standard input does. Everything random comes
from its seed and the request.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import anyio
import anyio.abc
import anyio.from_thread
import anyio.to_thread
import httpx
from anyio.streams.buffered import BufferedByteReceiveStream

from embedbatch.testing import Received, Scripted, ScriptedServer

MAX_HEAD = 65_536
MAX_DELAY = 0.03  # seconds
ROOT = Path(__file__).parents[2]


class Loopback:
    """
    Serves *app* on a port of 127.0.0.1, keeping connections alive.

    Where *app* raises what httpx raises, the connection is closed: before the status line, or in the body.
    """

    def __init__(self, app: httpx.AsyncBaseTransport) -> None:
        self._app = app
        self._replies = 0

    async def serve(self, *, task_status: anyio.abc.TaskStatus[str] = anyio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled; the started value is the base URL."""
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1", backlog=256)
        async with listener:
            port = listener.extra(anyio.abc.SocketAttribute.local_port)
            task_status.started(f"http://127.0.0.1:{port}/v1")
            await listener.serve(self._converse)

    async def _converse(self, stream: anyio.abc.SocketStream) -> None:
        """Answer the requests of one connection, one after the other."""
        received = BufferedByteReceiveStream(stream)
        async with stream:
            try:
                while True:
                    await self._reply(await _read_request(received), stream)
            except (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError, httpx.TransportError):
                pass  # it ended, or it was to end here

    async def _reply(self, request: httpx.Request, stream: anyio.abc.SocketStream) -> None:
        response = await self._app.handle_async_request(request)
        self._replies += 1
        parts = response.aiter_raw()
        if self._replies % 2:
            await _send_whole(response, parts, stream)
        else:
            await _send_in_chunks(response, parts, stream)


async def _read_request(received: BufferedByteReceiveStream) -> httpx.Request:
    head = await received.receive_until(b"\r\n\r\n", MAX_HEAD)
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = httpx.Headers([(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)])
    body = await received.receive_exactly(int(headers["content-length"]))
    return httpx.Request(method, f"http://{headers['host']}{path}", headers=headers, content=body)


async def _send_whole(response: httpx.Response, parts: Any, stream: anyio.abc.SocketStream) -> None:
    """The reply with its length: a body that breaks off has been promised whole."""
    body = bytearray()
    try:
        async for part in parts:
            body += part
    except httpx.TransportError:
        await stream.send(_head(response, f"content-length: {2 * len(body)}") + body)
        raise
    await stream.send(_head(response, f"content-length: {len(body)}") + body)


async def _send_in_chunks(response: httpx.Response, parts: Any, stream: anyio.abc.SocketStream) -> None:
    await stream.send(_head(response, "transfer-encoding: chunked"))
    async for part in parts:
        await stream.send(b"%x\r\n%b\r\n" % (len(part), part))
    await stream.send(b"0\r\n\r\n")


def _head(response: httpx.Response, *lines: str) -> bytes:
    headers = [f"{name}: {value}" for name, value in response.headers.items()]
    return "\r\n".join([f"HTTP/1.1 {response.status_code} -", *headers, *lines, "", ""]).encode()


@contextmanager
def serve_in_a_thread(app: httpx.AsyncBaseTransport) -> Iterator[str]:
    """Serve *app* from an event loop of its own; the block's value is the base URL."""
    with anyio.from_thread.start_blocking_portal() as portal:
        future, base_url = portal.start_task(Loopback(app).serve)
        try:
            yield base_url
        finally:
            future.cancel()


@contextmanager
def serve_in_a_process(*, seed: int, refuse: float = 0.0) -> Iterator[str]:
    """Serve from a process of its own, as this module does when it is run; *refuse* is the share of refusals."""
    command = [sys.executable, "-W", "error", __file__, "--seed", str(seed), "--refuse", str(refuse)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        with closing(server.stdin):
            yield server.stdout.readline().strip()
    assert server.returncode == 0


class Wayward(ScriptedServer):
    """Right vectors, in shuffled items, after random delays, and a refusal for some of the requests."""

    def __init__(self, *, seed: int, refuse: float) -> None:
        super().__init__(latency=self._delay)
        self._seed = seed
        self._refuse = refuse
        self._seen: set[int] = set()
        self.reply_when(self._refusal)
        self.edit(self._shuffle)

    def _dice(self, request: Received) -> Random:
        """Dice for one request, wherever in the order it comes."""
        return Random(f"{self._seed} {len(request.inputs)} {request.inputs[0]}")

    def _delay(self, request: Received) -> float:
        return self._dice(request).uniform(0, MAX_DELAY)

    def _refusal(self, request: Received) -> Scripted | None:
        self.received.clear()  # a long job is not remembered
        dice = self._dice(request)
        fate, mark = dice.random(), dice.getrandbits(64)
        if fate >= self._refuse:
            return None
        if mark in self._seen:  # asked again, it answers
            self._seen.remove(mark)
            return None
        self._seen.add(mark)
        if fate < self._refuse / 2:
            return Scripted(status=429, headers={"retry-after-ms": "5"}, body={"error": {"message": "slow down"}})
        return Scripted(status=500, body={"error": {"message": "try again"}})

    def _shuffle(self, request: Received, body: dict[str, Any]) -> dict[str, Any]:
        self._dice(request).shuffle(body["data"])
        return body


async def _serve_until_stdin_ends(app: httpx.AsyncBaseTransport) -> None:
    async with anyio.create_task_group() as tasks:
        base_url = await tasks.start(Loopback(app).serve)
        sys.stdout.write(f"{base_url}\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)
        tasks.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--refuse", type=float, default=0.0)
    arguments = parser.parse_args()
    anyio.run(_serve_until_stdin_ends, Wayward(seed=arguments.seed, refuse=arguments.refuse))
