"""
A server that is fast enough not to be what is measured: `python benchmarks/load_server.py [--dimensions 1536]`.

It speaks the wire contract over HTTP/1.1 on the loopback interface and prints its port. Each vector is one of
4,096 prepared ones, chosen by the checksum of its text, so whoever measures can also tell whether every vector is
at its text: see `expected`. It ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import zlib
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt
import pybase64

CHOICES = 4_096


class Request(msgspec.Struct):
    input: list[str]
    encoding_format: str = "float"


def vectors(dimensions: int) -> npt.NDArray[np.float32]:
    """The prepared vectors: float32, shape (4096, dimensions), each of length 1."""
    made = np.random.default_rng(20).standard_normal((CHOICES, dimensions), dtype=np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def expected(texts: Sequence[str], dimensions: int) -> npt.NDArray[np.float32]:
    """What the server gives for *texts*: float32, shape (len(texts), dimensions)."""
    return vectors(dimensions)[[zlib.crc32(text.encode()) % CHOICES for text in texts]]


class Prepared:
    """Every vector as it goes into a reply."""

    def __init__(self, dimensions: int) -> None:
        self._parse = msgspec.json.Decoder(Request).decode
        made = vectors(dimensions)
        self._base64 = [b'"' + pybase64.b64encode(vector.tobytes()) + b'"' for vector in made]
        self._floats: list[bytes] = [] if dimensions > 4_096 else [msgspec.json.encode(v.tolist()) for v in made]

    def reply(self, body: bytes) -> bytes:
        request = self._parse(body)
        choices = self._base64 if request.encoding_format == "base64" else self._floats
        parts = [
            b'{"object":"embedding","index":%d,"embedding":%b}' % (index, choices[zlib.crc32(text.encode()) % CHOICES])
            for index, text in enumerate(request.input)
        ]
        tokens = sum(map(len, request.input)) // 4
        usage = b'"usage":{"prompt_tokens":%d,"total_tokens":%d}' % (tokens, tokens)
        content = b'{"object":"list","data":[' + b",".join(parts) + b'],"model":"bench",' + usage + b"}"
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(content)
        return head + content


class Connection(asyncio.Protocol):
    """One connection: requests one after the other, answered as soon as they are complete."""

    def __init__(self, prepared: Prepared, delay: float) -> None:
        self._prepared = prepared
        self._delay = delay
        self._received = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        head = self._received[:head_end].lower()
        length_at = head.index(b"content-length:") + len(b"content-length:")
        length = int(head[length_at:].split(b"\r\n", 1)[0])
        end = head_end + 4 + length
        if len(self._received) < end:
            return
        reply = self._prepared.reply(bytes(self._received[head_end + 4 : end]))
        del self._received[:end]
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._transport.write, reply)
        else:
            self._transport.write(reply)


async def serve(dimensions: int, delay: float) -> None:
    prepared = Prepared(dimensions)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(prepared, delay), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--dimensions", type=int, default=1_536)
    options.add_argument("--delay", type=float, default=0.0, help="seconds before each reply")
    given = options.parse_args()
    asyncio.run(serve(given.dimensions, given.delay))
