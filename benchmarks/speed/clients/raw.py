"""
The limit: blocking sockets and a warm buffer, nothing planned and nothing checked.

"raw-discard" reads replies and throws them away; "raw-decode" decodes them as fast as msgspec's ``Raw`` fields and
pybase64 can, into the rows of one array; "raw-many" keeps several requests out, which shows what the server can do.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
import numpy as np
import pybase64

from ..case import Case
from . import Client

SOCKETS = 8  # of "raw-many"
LARGEST = 64 * 2**20


class Item(msgspec.Struct):
    embedding: msgspec.Raw
    index: int


class Body(msgspec.Struct):
    data: list[Item]


class Raw(Client):
    """One connection with one request out at a time, or as many of these as *connections*."""

    def __init__(self, case: Case, base_url: str, *, decodes: bool, connections: int = 1) -> None:
        url = urlsplit(base_url)
        self._head = f"POST {url.path}/embeddings HTTP/1.1\r\nhost: {url.netloc}\r\ncontent-length: %d\r\n\r\n".encode()
        self._batch, self._dimensions, self._decodes = case.batch, case.dimensions, decodes
        self._sockets = [socket.create_connection((url.hostname, url.port)) for _ in range(connections)]
        for each in self._sockets:
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = memoryview(bytearray(LARGEST))
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(Body).decode

    def prepare(self, count: int) -> None:
        """Make the array and touch it, so that no page of it is new when the time runs."""
        self._vectors = np.ones((count if self._decodes else 0, self._dimensions), np.float32)

    async def embed(self, texts: Sequence[str]) -> Any:
        vectors = self._vectors
        starts = iter(range(0, len(texts), self._batch))
        waiting: deque[tuple[socket.socket, int]] = deque()
        for each in self._sockets:
            self._send_next(each, texts, starts, waiting)
        while waiting:
            connection, start = waiting.popleft()
            reply = self._receive(connection)
            self._send_next(connection, texts, starts, waiting)
            if self._decodes:
                for item in self._decode(reply).data:
                    text = memoryview(item.embedding)[1:-1]
                    vectors[start + item.index] = np.frombuffer(pybase64.b64decode(text, validate=True), "<f4")
        return vectors if self._decodes else None

    def _send_next(
        self,
        connection: socket.socket,
        texts: Sequence[str],
        starts: Iterator[int],
        waiting: deque[tuple[socket.socket, int]],
    ) -> None:
        start = next(starts, None)
        if start is None:
            return
        inputs = texts[start : start + self._batch]
        body = self._encode({"model": "bench", "input": inputs, "encoding_format": "base64"})
        connection.sendall(self._head % len(body) + body)
        waiting.append((connection, start))

    def _receive(self, connection: socket.socket) -> memoryview:
        """The body of one reply, in the buffer that the next one overwrites."""
        buffer = self._buffer
        size = connection.recv_into(buffer)
        while (body_at := bytes(buffer[: min(size, 512)]).find(b"\r\n\r\n") + 4) < 4:
            size += _more(connection, buffer[size:])
        head = bytes(buffer[:body_at])
        length_at = head.index(b"content-length: ") + len(b"content-length: ")
        end = body_at + int(head[length_at : head.index(b"\r\n", length_at)])
        while size < end:
            size += _more(connection, buffer[size:])
        return buffer[body_at:end]

    async def aclose(self) -> None:
        for each in self._sockets:
            each.close()


def _more(connection: socket.socket, buffer: memoryview) -> int:
    received = connection.recv_into(buffer)
    if not received:
        raise ConnectionError("the load server ended the connection")
    return received


def make(case: Case, base_url: str) -> Raw:
    return Raw(
        case,
        base_url,
        decodes=case.client == "raw-decode",
        connections=SOCKETS if case.client == "raw-many" else 1,
    )
