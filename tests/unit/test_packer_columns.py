"""The packer, which works in columns, against a model that puts one chunk after the other where it fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from embedbatch.plan.packer import Caps, Packer
from embedbatch.values import Batch, Chunks

Row = tuple[bytes, int, int, int, int]

many_caps = st.lists(
    st.builds(Caps, max_inputs=st.integers(1, 5), max_tokens=st.integers(0, 30), max_bytes=st.integers(-5, 60)),
    min_size=1,
    max_size=6,
)
wires = st.sampled_from([b'"x"', b'"a longer text"', b'"["', b"[1]", b"[1,2,3,4,5]", b'""'])
groups = st.lists(st.lists(st.tuples(wires, st.integers(0, 3), st.integers(0, 20)), max_size=10), max_size=5)


def rows(chunks: Chunks) -> list[Row]:
    return list(zip(chunks.inputs, chunks.documents, chunks.parts, chunks.tokens, chunks.bounds, strict=True))


def together(some: list[Row]) -> Chunks:
    made = Chunks()
    for row in some:
        made.append(*row)
    return made


class OneByOne:
    """What the packer promises, chunk by chunk."""

    def __init__(self, caps: Callable[[], Caps]) -> None:
        self._caps = caps
        self._open: dict[bool, tuple[Caps, list[Row]]] = {}

    def add(self, some: Chunks) -> Iterator[list[Row]]:
        for row in rows(some):
            kind = row[0].startswith(b'"')
            if kind in self._open and not self._fits(*self._open[kind], row):
                yield self._open.pop(kind)[1]
            if kind not in self._open:
                self._open[kind] = (self._caps(), [])
            caps, batch = self._open[kind]
            batch.append(row)
            if len(batch) == caps.max_inputs:
                yield self._open.pop(kind)[1]

    def flush(self) -> Iterator[list[Row]]:
        for kind in (True, False):  # texts go first
            if kind in self._open:
                yield self._open.pop(kind)[1]

    def __len__(self) -> int:
        return sum(len(batch) for _, batch in self._open.values())

    @staticmethod
    def _fits(caps: Caps, batch: list[Row], row: Row) -> bool:
        more = [*batch, row]
        return (
            len(more) <= caps.max_inputs
            and sum(bound for *_, bound in more) <= caps.max_tokens
            and sum(len(wire) + 1 for wire, *_ in more) <= caps.max_bytes
        )


@settings(max_examples=150)
@given(groups, many_caps, st.data())
def test_batches_are_those_of_a_packer_that_takes_one_chunk_at_a_time(
    stream: list[list[tuple[bytes, int, int]]], caps: list[Caps], data: st.DataObject
) -> None:
    """
    Texts and token arrays in any mixture, chunks above every cap, bounds of 0, flushes in between.

    The caps are others for each batch that is begun: both see the same ones, and both give the same batches at the
    same time, whatever the caps were when a batch was begun.
    """
    asked, asked_by_model = iter(caps * 100), iter(caps * 100)
    packer, model = Packer(lambda: next(asked)), OneByOne(lambda: next(asked_by_model))

    for number, group in enumerate(stream):
        some = together([(wire, 10 * number + at, part, 0, bound) for at, (wire, part, bound) in enumerate(group)])
        before = rows(some)
        assert [rows(batch) for batch in packer.add(some)] == list(model.add(some))
        assert rows(some) == before
        assert len(packer) == len(model)
        if data.draw(st.booleans()):
            assert [rows(batch) for batch in packer.flush()] == list(model.flush())
    assert [rows(batch) for batch in packer.flush()] == list(model.flush())
    assert next(asked) == next(asked_by_model)  # the caps were asked for as often


def test_a_batch_that_was_handed_out_does_not_change() -> None:
    """Whoever keeps a batch keeps what it held: what is packed later goes into another one."""
    packer = Packer(lambda: Caps(max_inputs=2, max_tokens=9, max_bytes=99))
    kept: list[Batch] = []
    for number in range(6):
        kept += packer.add(together([(b'"x"', number, 0, 1, 1)]))

    assert [batch.documents for batch in kept] == [[0, 1], [2, 3], [4, 5]]


def test_caps_that_shrink_under_an_open_batch_do_not_close_it() -> None:
    """A batch keeps the caps that it was begun with; the one after it has the new ones, also within one call."""
    now = [Caps(max_inputs=3, max_tokens=99, max_bytes=99)]
    packer = Packer(lambda: now[0])
    assert list(packer.add(together([(b'"x"', 0, 0, 1, 1)]))) == []
    now[0] = Caps(max_inputs=2, max_tokens=99, max_bytes=99)

    batches = list(packer.add(together([(b'"x"', number, 0, 1, 1) for number in range(1, 8)])))

    assert [batch.documents for batch in batches] == [[0, 1, 2], [3, 4], [5, 6]]
    assert len(packer) == 1
