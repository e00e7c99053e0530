"""
A reply's body as it comes in. Base64 is unpacked at once, while it is in the processor's cache.

What remains is the skeleton: JSON in which a short mark stands for each vector. The JSON parser need not walk through
every character of the vectors, and they are never kept as text.
"""

from __future__ import annotations

import binascii
import functools
import re

import numpy as np
import numpy.typing as npt
import pybase64

from ..values import Vectors

FLOAT32 = np.dtype("<f4")  # as numbers come in base64

_OPENING = re.compile(rb'"embedding"\s*:\s*"')
_NEAR = 1_024  # bytes within which a vector begins, after the one before; where none does, the rest is left as it is
_MAX_ROW = 262_144  # bytes of a vector for which a row is set aside before its size is confirmed


class Body:
    """
    The body of a reply to a request with *inputs* inputs, taken in part by part.

    Vectors that came as base64 are put into *rows*, float32 of shape (inputs, dimensions), if that is their size, and
    else into memory of their own. What is in *rows* holds once the reply was found to be right.

    Once it is closed, *text* is its JSON, where *marks* stand for the vectors that came as base64, in the order they
    came; *size* is that of the whole in bytes. A mark is a string that begins with an escaped newline. Only a body
    without any backslash has marks: there every quote begins or ends a string, and no string of its own is a mark.
    """

    def __init__(self, inputs: int, rows: Vectors | None = None) -> None:
        self.size = 0
        self.text = b""
        self.marks: list[bytes] = []
        self.inputs = inputs
        self._taken = 0  # vectors that were taken out
        self._offered = rows
        self._rows = np.empty((0, 0), np.uint8)
        self._flat = memoryview(b"")  # all bytes of the rows
        self._row_bytes = 0
        self._odd: dict[int, bytes | str] = {}  # vectors that fit in no row, and what is wrong with the broken ones
        self._broken: dict[int, bytes] = {}  # the texts of these
        self._parts: list[bytes] = []  # of the skeleton; as long as vectors are taken out, every other is a mark
        self._opening = b""  # what stands before each vector: it is the same in all of one reply
        self._between = b""  # what has come since the last vector
        self._coming: list[bytes] | None = None  # of a vector, as far as it has come
        self._is_plain = False  # the rest is left as it is

    def feed(self, part: bytes) -> None:
        """Take in the next *part*."""
        self.size += len(part)
        view = memoryview(part)
        at = 0
        while not self._is_plain:
            if self._coming is None:
                at = self._take_whole(part, view, at) if self._row_bytes else at
                at = self._find_vector(part, at)
                if at < 0:
                    return
                self._coming = []
            end = part.find(b'"', at)
            if end < 0:
                self._coming.append(part[at:])
                return
            coming, self._coming = self._coming, None
            self._unpack(b"".join((*coming, view[at:end])) if coming else view[at:end])
            at = end + 1
        self._parts.append(part)

    def close(self) -> bytes:
        """The body has ended; return its *text*."""
        self._parts.append(self._between)
        if self._coming is not None:
            self._parts += (b'"', *self._coming)
        self.marks = self._parts[1 : 2 * self._taken : 2]
        self.text = b"".join(self._parts)
        if self.text.count(b"\\") > self._taken or any(b"\\" in text for text in self._broken.values()):
            self._put_back()  # a JSON writer may escape the slashes of base64
        self._parts.clear()
        return self.text

    def vectors(self) -> Vectors | None:
        """All vectors, float32 of shape (inputs, dimensions) in the order they came, if nothing is wrong with any."""
        if self._odd or len(self.marks) != self.inputs:
            return None
        return self._rows.view(FLOAT32)

    def vector(self, number: int) -> bytes | str:
        """The vector of mark *number*, as the bytes of its float32 numbers; or what is wrong with it."""
        return self._odd[number] if number in self._odd else self._rows[number].tobytes()

    def _take_whole(self, part: bytes, view: memoryview, at: int) -> int:
        """
        Take in vectors as long as they are whole, right and of one size; return where that ends.

        It does what the rest of this class does, for the many vectors that need nothing else, in a third of the time.
        """
        opening, row_bytes, rows, parts = self._opening, self._row_bytes, self._flat, self._parts
        ahead, length = len(opening), 4 * -(-row_bytes // 3)
        if self._between:
            return at
        for number in range(self._taken, self.inputs):
            start = part.find(opening, at, at + _NEAR) + ahead
            if start < ahead:
                break
            end = start + length
            if part[end : end + 1] != b'"':
                break
            try:
                packed = pybase64.b64decode(view[start:end], validate=True)
            except (binascii.Error, ValueError):
                break
            if len(packed) != row_bytes:
                break
            rows[number * row_bytes : (number + 1) * row_bytes] = packed
            parts.append(part[at : start - 1])
            parts.append(_mark(number))
            self._taken = number + 1
            at = end + 1
        return at

    def _find_vector(self, part: bytes, at: int) -> int:
        """Where in *part*, from *at* on, the next vector begins; -1 if it does not."""
        before = len(self._between)
        seen = self._between + part[at : at + _NEAR]
        if not self._opening and (found := _OPENING.search(seen)):
            self._opening = found[0]
        start = seen.find(self._opening) if self._opening else -1
        if start < 0 and len(seen) < _NEAR:
            self._between = seen
            return -1
        if start < 0:
            self._is_plain = True
            self._parts.append(self._between + part[at:])
            self._between = b""
            return -1
        start += len(self._opening)
        self._between = b""
        self._parts.append(seen[: start - 1])
        return at + start - before

    def _unpack(self, text: bytes | memoryview) -> None:
        number = self._taken
        self._taken += 1
        self._parts.append(_mark(number))
        packed = unpack(text)
        if isinstance(packed, str):
            self._odd[number] = packed
            self._broken[number] = bytes(text)
            return
        if not number and len(packed) <= _MAX_ROW:
            self._row_bytes = len(packed)
            self._rows = self._make_rows()
            self._flat = self._rows.reshape(-1).data
        if number < self.inputs and len(packed) == self._row_bytes:
            self._rows[number] = np.frombuffer(packed, np.uint8)
        else:
            self._odd[number] = packed

    def _make_rows(self) -> npt.NDArray[np.uint8]:
        offered = self._offered
        if offered is not None and offered.dtype == FLOAT32 and offered.shape == (self.inputs, self._row_bytes // 4):
            return offered.view(np.uint8)
        return np.empty((self.inputs, self._row_bytes), np.uint8)

    def _put_back(self) -> None:
        """Put the vectors back into the text."""
        for number in range(self._taken):
            packed = self.vector(number)
            text = self._broken[number] if isinstance(packed, str) else pybase64.b64encode(packed)
            self._parts[2 * number + 1] = b'"%b"' % text
        self.text = b"".join(self._parts)
        self.marks.clear()


@functools.cache
def _mark(number: int) -> bytes:
    return b'"\\n%d"' % number


def unpack(text: bytes | memoryview) -> bytes | str:
    """The bytes of float32 numbers in base64, or what is wrong with them."""
    try:
        packed = pybase64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        return f"{excerpt(text)}: {error}"
    if len(packed) % 4:
        return f"{excerpt(text)}: not a whole number of float32 numbers"
    return packed or "an empty vector"


def excerpt(text: bytes | memoryview) -> str:
    """The beginning of *text*, for a message."""
    shown = bytes(text[:80]).decode("utf-8", "replace")
    return repr(shown + "…" if len(text) > 80 else shown) if len(text) else "an empty body"
