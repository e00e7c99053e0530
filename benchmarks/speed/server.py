"""
A server that is fast enough not to be what is measured: `python -m benchmarks.speed.server [--dimensions 1536]`.

It speaks the wire contract over HTTP/1.1 on the loopback interface, prints its port, and ends when its standard input
closes. A reply is put together from rows that were encoded before, without copying them.

    POST …/embeddings   the vector of each input, as base64 or numbers
    GET /stats          what came since the last reset
    POST /reset         forget that; {"delays": [seconds, …]} delays the k-th request from now on by the k-th of them
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pybase64

if __package__ in (None, ""):  # started by its path
    sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.speed.vectors import choice, decimals

OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
NOT_FOUND = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Texts(msgspec.Struct):
    """What nearly every request is."""

    input: list[str]
    encoding_format: str | None = None


class Anything(msgspec.Struct):
    """One text, one token array, or a list of token arrays."""

    input: str | list[str | int | list[int]]
    encoding_format: str | None = None


class Reset(msgspec.Struct):
    delays: list[float] = []


class Stats(msgspec.Struct):
    """What came since the last reset."""

    requests: int = 0
    inputs: int = 0
    request_bytes: int = 0
    reply_bytes: int = 0
    largest_reply: int = 0
    in_flight: int = 0
    most_in_flight: int = 0
    cpu_seconds: float = 0.0


class Replies:
    """Puts replies together from rows that were encoded before."""

    def __init__(self, dimensions: int, *, most_inputs: int = 2_048) -> None:
        self._texts = msgspec.json.Decoder(Texts).decode
        self._anything = msgspec.json.Decoder(Anything).decode
        made = decimals(dimensions)
        single = made.astype("<f4")
        self._base64 = [b'"' + pybase64.b64encode(vector.tobytes()) + b'"}' for vector in single]
        self._floats = [msgspec.json.encode(vector.tolist()) + b"}" for vector in made]
        self._heads = [b',{"object":"embedding","index":%d,"embedding":' % index for index in range(most_inputs)]
        self._heads[0] = self._heads[0][1:]

    def reply(self, body: bytes) -> tuple[list[bytes], int, int]:
        """The parts of the whole reply, the number of inputs, and the size of the reply's body."""
        inputs, form = self._read(body)
        rows = self._base64 if form == "base64" else self._floats
        # A place at the front for the head; index, vector, index, vector, …; and the tail.
        parts = [b""] * (2 * len(inputs) + 2)
        parts[1:-1:2] = self._heads[: len(inputs)]
        parts[2:-1:2] = [rows[choice(each)] for each in inputs]
        tokens = sum(map(len, inputs)) // 4
        parts[-1] = b'],"model":"bench","usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (tokens, tokens)
        start = b'{"object":"list","data":['
        size = len(start) + sum(map(len, parts))
        parts[0] = OK % size + start
        return parts, len(inputs), size

    def _read(self, body: bytes) -> tuple[list[bytes], str | None]:
        try:
            request = self._texts(body)
            return [each.encode() for each in request.input], request.encoding_format
        except msgspec.ValidationError:
            other = self._anything(body)
            alone = isinstance(other.input, str) or all(isinstance(each, int) for each in other.input)
            inputs: Sequence[Any] = [other.input] if alone else other.input
            return [(each if isinstance(each, str) else repr(each)).encode() for each in inputs], other.encoding_format


class Load:
    """What all connections share: the prepared replies, the counts, and the delays still to come."""

    def __init__(self, dimensions: int) -> None:
        self.replies = Replies(dimensions)
        self.reset([])

    def reset(self, delays: list[float]) -> None:
        self.stats = Stats()
        self._delays = iter(delays)
        self._cpu_at = time.process_time()

    def report(self) -> bytes:
        self.stats.cpu_seconds = time.process_time() - self._cpu_at
        return msgspec.json.encode(self.stats)

    def next_delay(self) -> float:
        return next(self._delays, 0.0)


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, each answered before the next is looked at."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._received = bytearray()
        self._waits = False  # a delayed reply comes first
        self._continued = False

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        self._transport: asyncio.Transport = transport
        transport.set_write_buffer_limits(2**30)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._answer_all()

    def _answer_all(self) -> None:
        while not self._waits and not self._transport.is_closing():
            head_end = self._received.find(b"\r\n\r\n")
            if head_end < 0:
                return
            head = bytes(self._received[:head_end])
            body, end = self._read_body(head, head_end + 4)
            if body is None:
                return
            del self._received[:end]
            self._continued = False
            try:
                self._answer(head, body)
            except (msgspec.DecodeError, ValueError):
                self._transport.write(BAD_REQUEST)
                self._transport.close()

    def _read_body(self, head: bytes, start: int) -> tuple[bytes | None, int]:
        """The request's body, ``None`` while it is not complete, and where the next request begins."""
        lowered = head.lower()
        length = _header(lowered, b"content-length")
        if _header(lowered, b"transfer-encoding") == b"chunked":
            body, end = _read_chunks(self._received, start)
        else:
            end = start + int(length or 0)
            body = bytes(self._received[start:end]) if len(self._received) >= end else None
        if body is None and not self._continued and _header(lowered, b"expect") == b"100-continue":
            self._continued = True
            self._transport.write(CONTINUE)
        return body, end

    def _answer(self, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b" ", 2)
        load = self._load
        if method == b"POST" and path.endswith(b"/embeddings"):
            self._embed(body)
        elif path == b"/stats":
            report = load.report()
            self._transport.writelines([OK % len(report), report])
        elif path == b"/reset":
            load.reset(msgspec.json.decode(body or b"{}", type=Reset).delays)
            self._transport.writelines([OK % 2, b"{}"])
        else:
            self._transport.write(NOT_FOUND)

    def _embed(self, body: bytes) -> None:
        load, stats = self._load, self._load.stats
        delay = load.next_delay()
        parts, inputs, size = load.replies.reply(body)
        stats.requests += 1
        stats.inputs += inputs
        stats.request_bytes += len(body)
        stats.reply_bytes += size
        stats.largest_reply = max(stats.largest_reply, size)
        if not delay:
            self._transport.writelines(parts)
            return
        self._waits = True
        stats.in_flight += 1
        stats.most_in_flight = max(stats.most_in_flight, stats.in_flight)
        asyncio.get_running_loop().call_later(delay, self._embed_later, parts, stats)

    def _embed_later(self, parts: list[bytes], stats: Stats) -> None:
        self._waits = False
        stats.in_flight -= 1
        if not self._transport.is_closing():
            self._transport.writelines(parts)
            self._answer_all()


def _header(head: bytes, name: bytes) -> bytes:
    """The value of a header, given a head in lower case; empty where there is none."""
    _, _, rest = head.partition(b"\r\n" + name + b":")
    return rest.partition(b"\r\n")[0].strip()


def _read_chunks(received: bytearray, at: int) -> tuple[bytes | None, int]:
    """A chunked body from *at*, ``None`` while it is not complete, and where the next request begins."""
    parts: list[bytes] = []
    while (line_end := received.find(b"\r\n", at)) >= 0:
        size = int(received[at:line_end].partition(b";")[0], 16)
        end = line_end + 2 + size + 2
        if len(received) < end:
            break
        if not size:
            return b"".join(parts), end
        parts.append(bytes(received[line_end + 2 : line_end + 2 + size]))
        at = end
    return None, at


async def serve(dimensions: int) -> None:
    load = Load(dimensions)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(load), "127.0.0.1", 0, backlog=4_096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dimensions", type=int, default=1_536)
    given = options.parse_args()
    run: Any = asyncio.run
    with contextlib.suppress(ImportError):  # slower then: the ceiling that is printed tells
        from uvloop import run
    run(serve(given.dimensions))


if __name__ == "__main__":
    main()
