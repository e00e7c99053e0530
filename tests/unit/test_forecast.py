"""What documents become and what that makes together: the same as in a run, and the time that rates allow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.dispatch.pace import Ramp
from embedbatch.jobs.forecast import Rates
from embedbatch.jobs.survey import RECORD, add_up, digest, examine
from embedbatch.plan.chunker import Chunker
from embedbatch.plan.documents import Source
from embedbatch.plan.packer import Caps, Packer
from embedbatch.plan.tokens import cl100k_base

CONTENTS = st.one_of(
    st.text(st.characters(exclude_categories=[])),
    st.text("ab \n.", min_size=30, max_size=400),
    st.lists(st.integers(0, 300), max_size=40),
    st.sampled_from([None, 7, "", "  ", "a\ud800b", "naïve 北京 🙂 " * 8, [1.5]]),
)
CAPS = st.builds(Caps, max_inputs=st.integers(1, 6), max_tokens=st.integers(8, 120), max_bytes=st.integers(20, 600))


@given(
    contents=st.lists(CONTENTS, max_size=25),
    caps=CAPS,
    long_input=st.sampled_from(["split", "truncate", "error"]),
    counts=st.booleans(),
    knows=st.booleans(),
    arrays=st.booleans(),
)
def test_what_is_forecast_is_what_a_chunker_and_a_packer_do(
    contents: list[object], caps: Caps, long_input: str, counts: bool, knows: bool, arrays: bool
) -> None:
    """Inputs, batches, exact tokens, bounds and failures are those that a run with these settings would have."""
    chunker = Chunker(
        max_input_tokens=16,
        tokenizer=cl100k_base() if knows else None,
        long_input=long_input,  # type: ignore[arg-type]
        token_arrays=arrays,
        count_tokens=counts,
    )
    sources = [Source(position, position, content) for position, content in enumerate(contents)]
    planned = chunker.plan(sources)
    packer = Packer(lambda: caps)
    batches = [*packer.add(planned.chunks), *packer.flush()]

    share = examine(sources, chunker)
    totals = add_up([share.records], np.empty(0, np.int64), caps=caps, batch_tokens=math.inf)

    assert (totals.inputs, totals.requests) == (len(planned.chunks), len(batches))
    assert (totals.bounds, totals.nbytes) == (sum(planned.chunks.bounds), sum(map(len, planned.chunks.inputs)))
    assert totals.sent + share.empty + share.invalid + share.refused == share.documents == len(contents)
    assert share.empty + share.invalid + share.refused == len(planned.failures)
    assert totals.cut == len(planned.cuts)
    assert totals.cut_chunks == sum(len(cut.spans) for cut in planned.cuts)
    if knows and counts:
        assert totals.tokens == sum(planned.chunks.tokens)


@given(
    documents=st.lists(st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=3), max_size=30),
    data=st.data(),
)
def test_duplicates_are_as_if_they_were_not_there(documents: list[list[tuple[int, bool]]], data: st.DataObject) -> None:
    """Without the documents at some positions, the sums are those of the others; and they are counted by themselves."""
    positions = np.repeat(np.arange(len(documents)), [len(parts) for parts in documents])
    records = np.zeros(len(positions), RECORD)
    records["position"] = positions
    for field in ("tokens", "bound", "known"):
        records[field] = [size for parts in documents for size, _ in parts]
    records["nbytes"] = records["tokens"] + 2
    records["kind"] = [is_text + 2 * (number == 0) for parts in documents for number, (_, is_text) in enumerate(parts)]
    out = sorted(data.draw(st.sets(st.integers(0, max(0, len(documents) - 1)))))
    rest = records[~np.isin(records["position"], out)]
    caps = Caps(max_inputs=4, max_tokens=20, max_bytes=40)
    none = np.empty(0, np.int64)

    totals = add_up([records[:5], records[5:]], np.array(out, np.int64), caps=caps, batch_tokens=math.inf)
    whole = add_up([records[:5], records[5:]], none, caps=caps, batch_tokens=math.inf)
    expected = add_up([rest], none, caps=caps, batch_tokens=math.inf)

    assert (totals.sent, totals.inputs, totals.requests) == (expected.sent, expected.inputs, expected.requests)
    assert (totals.tokens, totals.bounds, totals.nbytes) == (expected.tokens, expected.bounds, expected.nbytes)
    assert totals.duplicate_tokens == whole.tokens - totals.tokens
    assert totals.duplicates == whole.sent - totals.sent


def test_equal_documents_have_the_same_digest_and_others_do_not() -> None:
    """A text and an array that is written the same differ; what is neither is like nothing else."""
    contents: list[object] = [
        "a",
        "",
        "[1,2]",
        "\ud800",
        "\ufffd",
        "é",
        "e\u0301",
        [1, 2],
        [1],
        [12],
        None,
        None,
        {},
        {1},
    ]
    contents += [np.array([1, 2]), np.array([1, 2])]

    digests = [digest(content, position) for position, content in enumerate(contents)]

    assert len(set(digests)) == len(contents)
    assert {len(each) for each in digests} == {16}
    assert digest("a", 99) == digests[0]
    assert digest([1, 2], 99) == digests[7]


def test_a_batch_goes_in_parts_that_the_pace_allows() -> None:
    """Four inputs of 30 tokens with 70 in a request: two and two. One above it goes alone."""
    records = np.zeros(4, RECORD)
    records["position"], records["nbytes"], records["kind"] = np.arange(4), 100, 3
    records["known"] = records["tokens"] = records["bound"] = 30
    caps = Caps(max_inputs=10, max_tokens=1_000, max_bytes=10_000)

    def requests(batch_tokens: float) -> int:
        return add_up([records[:5], records[5:]], np.empty(0, np.int64), caps=caps, batch_tokens=batch_tokens).requests

    assert [requests(limit) for limit in (math.inf, 120, 119, 70, 60, 59, 1)] == [1, 1, 2, 2, 2, 4, 4]


def test_where_the_tokens_are_not_known_the_pace_goes_by_four_bytes_a_token() -> None:
    """As in a run: 100 bytes are taken for 25 tokens."""
    records = np.zeros(4, RECORD)
    records["position"], records["nbytes"], records["kind"] = np.arange(4), 100, 3
    caps = Caps(max_inputs=10, max_tokens=1_000, max_bytes=10_000)

    totals = add_up([records[:5], records[5:]], np.empty(0, np.int64), caps=caps, batch_tokens=50)

    assert totals.requests == 2


def test_the_slower_of_two_rates_decides() -> None:
    """1,000 requests at 10 a second take longer than a million tokens at 20,000 a second; and the other way round."""
    rates = Rates(requests=10, tokens=20_000)

    assert rates.seconds(1_000, 1_000_000) == (100, "requests")
    assert rates.seconds(100, 1_000_000) == (50, "tokens")
    assert rates.seconds(0, 0) == (0, "tokens")


def test_without_rates_there_is_no_time() -> None:
    """One of them is enough for a time."""
    assert Rates(requests=math.inf, tokens=math.inf).seconds(1_000, 1_000_000) is None
    assert Rates(requests=math.inf, tokens=10).seconds(1_000, 100) == (10, "tokens")
    assert Rates(requests=10, tokens=math.inf).seconds(1_000, 100) == (100, "requests")


@pytest.mark.parametrize("tokens_per_minute", [500_000, 1_500_000, 10_000_000, math.inf])
@pytest.mark.parametrize("minutes", [1, 30, 200])
def test_growth_that_is_kept_slow_takes_the_time_that_it_takes(tokens_per_minute: float, minutes: int) -> None:
    """Second by second by the rule of the limiter itself, within a part in a thousand."""
    ramp = Ramp()
    ramp.begin(0.0, 0.0)
    sent = sum(min(ramp.rate(second + 0.5), tokens_per_minute / 60) for second in range(60 * minutes))

    found = Rates(requests=math.inf, tokens=tokens_per_minute / 60, ramp=True).seconds(1, round(sent))

    assert found == (pytest.approx(60 * minutes, rel=1e-3), "tokens")
