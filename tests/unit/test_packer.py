"""Chunks become batches: nothing lost, repeated or reordered, and no cap of a request passed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from embedbatch.plan.packer import Caps, Packer
from embedbatch.values import Batch, Chunks
from embedbatch.wire.request import Form, RequestTemplate

Row = tuple[bytes, int, int, int, int]

contents = st.text(max_size=12) | st.lists(st.integers(0, 100_000), min_size=1, max_size=6)
chunks = st.builds(
    lambda content, part, tokens, more: (json.dumps(content).encode(), part, tokens, tokens + more),
    contents,
    st.integers(0, 3),
    st.integers(0, 12),
    st.integers(1, 12),
)
streams = st.lists(st.lists(chunks, max_size=12), max_size=6)
caps = st.builds(
    Caps, max_inputs=st.integers(1, 6), max_tokens=st.integers(1, 50), max_bytes=st.integers(1, 80)
) | st.just(Caps(max_inputs=10**6, max_tokens=10**9, max_bytes=10**9))
template = RequestTemplate("m", dimensions=None, user=None, extra_body={})

WIDE = Caps(max_inputs=100, max_tokens=1_000, max_bytes=1_000)


def columns(stream: Iterable[Iterable[tuple[bytes, int, int, int]]]) -> Iterator[Chunks]:
    """Each group as chunks; every chunk belongs to a document of its own, so that it can be told from the others."""
    document = 0
    for group in stream:
        taken = Chunks()
        for wire, part, tokens, bound in group:
            taken.append(wire, document, part, tokens, bound)
            document += 1
        yield taken


def pack(stream: Iterable[Chunks], given_caps: Caps) -> list[Batch]:
    packer = Packer(lambda: given_caps)
    batches = [batch for taken in stream for batch in packer.add(taken)]
    batches += packer.flush()
    assert len(packer) == 0
    return batches


def rows(all_chunks: Iterable[Chunks]) -> list[Row]:
    return [
        row
        for some in all_chunks
        for row in zip(some.inputs, some.documents, some.parts, some.tokens, some.bounds, strict=True)
    ]


def is_text(row: Row) -> bool:
    return row[0].startswith(b'"')


@given(streams, caps)
def test_packing_loses_repeats_and_reorders_nothing(stream: list[list[tuple[bytes, int, int, int]]], cap: Caps) -> None:
    """The texts in all batches are the texts that came, in order; the token arrays too; no batch holds both."""
    taken = rows(columns(stream))
    batches = pack(columns(stream), cap)

    packed = rows(batches)
    assert [row for row in packed if is_text(row)] == [row for row in taken if is_text(row)]
    assert [row for row in packed if not is_text(row)] == [row for row in taken if not is_text(row)]
    assert all(len({is_text(row) for row in rows([batch])}) == 1 for batch in batches)


@given(streams, caps)
def test_no_request_exceeds_a_cap(stream: list[list[tuple[bytes, int, int, int]]], cap: Caps) -> None:
    """Inputs, tokens by their bounds and bytes of the real body stay within the caps; only a lone chunk may not."""
    for batch in pack(columns(stream), cap):
        body = template.body(batch, Form())
        assert 1 <= len(batch) <= cap.max_inputs
        if len(batch) > 1:
            assert sum(batch.bounds) <= cap.max_tokens
            assert len(body) <= cap.max_bytes + template.overhead
        assert json.loads(body)["input"] == [json.loads(wire) for wire in batch.inputs]


@given(streams, caps)
def test_a_batch_is_closed_only_when_the_next_chunk_does_not_fit(
    stream: list[list[tuple[bytes, int, int, int]]], cap: Caps
) -> None:
    """Every batch but the last of its kind could not have taken the first chunk of the one that follows it."""
    batches = pack(columns(stream), cap)
    for kind in (True, False):
        same = [batch for batch in batches if is_text(rows([batch])[0]) is kind]
        for batch, following in itertools.pairwise(same):
            assert (
                len(batch) == cap.max_inputs
                or sum(batch.bounds) + following.bounds[0] > cap.max_tokens
                or sum(len(wire) + 1 for wire in [*batch.inputs, following.inputs[0]]) > cap.max_bytes
            )


@given(streams, caps)
def test_how_chunks_arrive_changes_no_batch(stream: list[list[tuple[bytes, int, int, int]]], cap: Caps) -> None:
    """The batches are the same whether chunks come all at once, in groups, or one by one."""
    groups = list(columns(stream))
    together = Chunks()
    for row in rows(groups):
        together.append(*row)

    assert pack([together], cap) == pack(groups, cap)
    assert pack((together.select([row]) for row in range(len(together))), cap) == pack(groups, cap)


def texts(*sizes: int) -> Chunks:
    """Texts whose wire forms have *sizes* bytes, a token each."""
    made = Chunks()
    for document, size in enumerate(sizes):
        made.append(b'"' + b"x" * (size - 2) + b'"', document, 0, 1, 1)
    return made


def test_a_full_batch_does_not_wait_for_the_next_chunk() -> None:
    """With 3 inputs a batch, the third chunk closes it; two wait, and are not closed before the flush."""
    packer = Packer(lambda: Caps(max_inputs=3, max_tokens=1_000, max_bytes=1_000))

    assert [len(batch) for batch in packer.add(texts(5, 5, 5, 5, 5))] == [3]
    assert len(packer) == 2
    assert [len(batch) for batch in packer.flush()] == [2]
    assert list(packer.flush()) == []


def test_every_comma_is_counted() -> None:
    """Ten inputs of 9 bytes and a comma each fill 100 bytes; with 99 bytes the tenth goes alone."""
    assert [len(batch) for batch in pack([texts(*[9] * 10)], Caps(max_inputs=99, max_tokens=99, max_bytes=100))] == [10]
    assert [len(batch) for batch in pack([texts(*[9] * 10)], Caps(max_inputs=99, max_tokens=99, max_bytes=99))] == [
        9,
        1,
    ]


def test_a_chunk_above_a_cap_goes_alone() -> None:
    """A text of 500 bytes among small ones, under a cap of 100, is a batch of its own, and in its place."""
    cap = Caps(max_inputs=99, max_tokens=99, max_bytes=100)

    assert [batch.documents for batch in pack([texts(5, 5, 500, 5, 5)], cap)] == [[0, 1], [2], [3, 4]]


def test_no_room_at_all_sends_chunks_alone() -> None:
    """Caps that are used up by the body's own bytes, 0 or less, put every chunk into a batch of its own."""
    assert [len(batch) for batch in pack([texts(5, 5, 5)], Caps(max_inputs=9, max_tokens=9, max_bytes=-20))] == [1] * 3


def test_what_is_learned_counts_from_the_next_batch_on() -> None:
    """Caps are read when the first chunk of a batch comes, also if the last batch was closed long before."""
    now = [WIDE]
    packer = Packer(lambda: now[0])

    assert list(packer.add(texts(5, 5))) == []
    now[0] = Caps(max_inputs=1, max_tokens=1_000, max_bytes=1_000)
    assert list(packer.add(texts(5))) == []
    assert [len(batch) for batch in packer.flush()] == [3]
    assert [len(batch) for batch in packer.add(texts(5, 5))] == [1, 1]
    now[0] = WIDE
    assert list(packer.add(texts(5, 5))) == []


def test_texts_and_token_arrays_fill_batches_of_their_own() -> None:
    """Texts and arrays that alternate become one batch of each, in order, and not one batch per change."""
    mixed = Chunks()
    for document in range(6):
        mixed.append(b'"x"' if document % 2 else b"[1,2]", document, 0, 1, 1)

    assert [batch.documents for batch in pack([mixed], WIDE)] == [[1, 3, 5], [0, 2, 4]]
