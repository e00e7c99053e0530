"""What the tests of reply share."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from embedbatch.wire.body import Body
from embedbatch.wire.reply import Decoded, decode

Matrix = npt.NDArray[np.float32]

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
matrices = st.integers(1, 5).flatmap(
    lambda dimensions: st.lists(st.lists(finite, min_size=dimensions, max_size=dimensions).filter(any), min_size=1)
)
VECTORS = np.array([[0.1, -2.5, 3e-39], [1.0, 0.0, -0.0], [np.pi, 1e38, 7.0]], np.float32)


def packed(row: Any) -> str:
    return base64.b64encode(np.asarray(row, "<f4").tobytes()).decode()


def shortest(row: Any) -> list[float]:
    """Each number as the shortest decimals that are this float32 and no other."""
    return [float(str(number)) for number in np.asarray(row, np.float32)]


def widened(row: Any) -> list[float]:
    """Each number with all the digits of the float64 it is."""
    return [float(number) for number in np.asarray(row, np.float32)]


def item(embedding: Any, **more: Any) -> dict[str, Any]:
    return {"object": "embedding", "embedding": embedding, **more}


def body(data: Any, **more: Any) -> bytes:
    return json.dumps({"object": "list", "data": data, "model": "m", **more}).encode()


def reply(rows: Any, **more: Any) -> bytes:
    return body([item(packed(row), index=index) for index, row in enumerate(rows)], **more)


def read(data: bytes, inputs: int = 1, dimensions: int | None = None) -> Decoded:
    """Decode what comes in one part."""
    came = Body(inputs)
    came.feed(data)
    came.close()
    return decode(came, dimensions=dimensions, request_id="req_1")


def bits(vectors: Matrix) -> list[list[int]]:
    assert vectors.dtype == np.float32
    return vectors.view(np.uint32).tolist()
