"""Vectors of a part, compared with what was written of them."""

from __future__ import annotations

import numpy as np
import pytest

from embedbatch.jobs.ledger import RowRun
from embedbatch.jobs.rows import Bytes, digest
from embedbatch.jobs.segments import DIGEST_BYTES, Check

ROWS, WIDTH = 20, 12
RNG = np.random.default_rng(1)
VECTORS: Bytes = RNG.integers(0, 256, (ROWS, WIDTH)).astype(np.uint8)
INPUTS: Bytes = RNG.integers(0, 256, (ROWS, DIGEST_BYTES)).astype(np.uint8)


def run(first: int, rows: int, vectors: Bytes = VECTORS) -> RowRun:
    """Rows that were written as they are in *vectors*."""
    end = first + rows
    return RowRun(first, rows, digest(vectors[first:end].reshape(-1).data, INPUTS[first:end].reshape(-1).data))


def feed(check: Check, vectors: Bytes, step: int) -> list[RowRun]:
    for row in range(0, ROWS, step):
        check.feed(vectors[row : row + step])
    return check.wrong


@pytest.mark.parametrize("step", [1, 3, 7, ROWS])
@pytest.mark.parametrize("row", range(ROWS))
def test_the_run_that_has_a_damaged_row_is_wrong_and_no_other(row: int, step: int) -> None:
    """Wherever blocks end, and in whatever order the runs came."""
    runs = [run(11, 6), run(0, 4), run(17, 1), run(4, 7)]
    damaged = VECTORS.copy()
    damaged[row, row % WIDTH] ^= 1

    check = Check(runs, INPUTS)

    assert feed(check, damaged, step) == [each for each in runs if each.first <= row < each.first + each.rows]
    assert check.covered.tolist() == [True] * 18 + [False] * 2


@pytest.mark.parametrize("step", [1, 8, ROWS])
def test_the_last_that_was_written_to_a_row_counts(step: int) -> None:
    """A row of a run may be made again, with another text or of several chunks: that run is compared no more."""
    before = VECTORS.copy()
    before[3] += 1
    runs = [run(0, 8, before), run(8, 4), run(3, 1)]
    damaged = VECTORS.copy()
    damaged[3] += 2

    assert feed(Check(runs, INPUTS), VECTORS, step) == []
    assert feed(Check(runs, INPUTS), damaged, step) == [run(3, 1)]


def test_inputs_are_compared_too() -> None:
    """The digests of the texts are part of what was written."""
    inputs = INPUTS.copy()
    inputs[2] ^= 1

    assert feed(Check([run(0, 2), run(2, 2)], inputs), VECTORS, ROWS) == [run(2, 2)]
