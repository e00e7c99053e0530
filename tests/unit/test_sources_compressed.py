"""Compressed files are what they unpack to, or are refused."""

from __future__ import annotations

import gzip
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedbatch.jobs.sources import open_source
from embedbatch.jobs.sources.streams import open_bytes

from .sourcing import TEXTS, assert_can_begin_anywhere, contents, csv_rows, json_lines, opened, places, refusal, write

zstandard = pytest.importorskip("zstandard")


def zst(data: bytes) -> bytes:
    """A frame of *data*, with a checksum, as the command zstd writes it."""
    packed: bytes = zstandard.ZstdCompressor(write_checksum=True).compress(data)
    return packed


PACKERS = {".gz": gzip.compress, ".zst": zst}

every_kind = pytest.mark.parametrize(("suffix", "pack"), PACKERS.items(), ids=PACKERS)


@every_kind
@pytest.mark.parametrize("format", ["jsonl", "txt", "csv", "tsv"])
@given(texts=st.lists(TEXTS, max_size=8))
def test_a_compressed_file_is_as_good_as_a_plain_one(
    tmp_path_factory: pytest.TempPathFactory,
    format: str,
    suffix: str,
    pack: Callable[[bytes], bytes],
    texts: list[str],
) -> None:
    """Rows, their lines and their offsets are the same; and reading can begin at any row."""
    folder = tmp_path_factory.mktemp("source")
    data = {
        "jsonl": json_lines({"text": text} for text in texts),
        "txt": "".join(f"{text}\n" for text in texts).encode(),
        "csv": csv_rows([(text,) for text in texts]),
        "tsv": csv_rows([(text,) for text in texts], delimiter="\t"),
    }[format]
    write(folder, {f"plain.{format}": data, f"packed.{format}{suffix}": pack(data)})

    packed = opened(folder / f"packed.{format}{suffix}")

    assert list(packed.rows()) == list(opened(folder / f"plain.{format}").rows())
    assert_can_begin_anywhere(packed)


@every_kind
def test_plain_and_compressed_files_are_one_corpus(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """In a folder, some files may be compressed."""
    write(tmp_path, {"a.txt": b"one\n", f"b.txt{suffix}": pack(b"two\nthree\n"), "c.txt": b"four\n"})

    assert contents(opened(tmp_path)) == ["one", "two", "three", "four"]
    assert_can_begin_anywhere(opened(tmp_path))


@every_kind
def test_an_archive_may_have_several_members(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """Archives that were put one behind the other are one, also where a line goes over the border."""
    path = tmp_path / f"corpus.txt{suffix}"
    path.write_bytes(pack(b"one\ntw") + pack(b"") + pack(b"o\n"))

    assert contents(opened(path)) == ["one", "two"]


@every_kind
@given(data=st.data())
def test_an_archive_that_is_cut_off_is_refused(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, pack: Callable[[bytes], bytes], data: st.DataObject
) -> None:
    """Wherever it ends: its last documents are not lost without a word."""
    path = tmp_path_factory.mktemp("source") / f"corpus.txt{suffix}"
    packed = pack(b"".join(b"line %d\n" % number for number in range(1_000)))
    path.write_bytes(packed[: data.draw(st.integers(0, len(packed) - 1))])

    error = refusal(opened(path))

    assert places(error) == (path.name, None)
    assert error.reason.startswith("broken archive: ")


@every_kind
@pytest.mark.parametrize("spoil", ["text", "tail", "bit"])
def test_a_broken_archive_is_refused(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes], spoil: str) -> None:
    """Plain text under the name of an archive, something behind its end, a flipped bit: the error names the file."""
    path = tmp_path / f"corpus.txt{suffix}"
    packed = bytearray(pack(random.Random(0).randbytes(5_000).hex().encode()))
    packed[2_500] ^= 16
    path.write_bytes({"text": b"one\ntwo\n", "tail": pack(b"one\n") + b"two\n", "bit": bytes(packed)}[spoil])

    error = refusal(opened(path, skip_bad_rows=True))

    assert error.path == str(path)
    assert error.reason.startswith("broken archive: ")


@every_kind
def test_a_missing_archive_is_named(tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    """It is a file that cannot be read, as any other."""
    assert refusal(opened(tmp_path / f"corpus.txt{suffix}")).reason == "cannot be read: No such file or directory"


@every_kind
def test_what_is_before_the_beginning_is_not_parsed(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    """Bytes are unpacked up to the offset, and no line of them is looked at."""
    path = tmp_path / f"corpus.jsonl{suffix}"
    path.write_bytes(pack(b"no JSON\n" * 1_000 + b'{"text": "a"}\n'))

    with open_bytes(path, 8_000) as stream:
        assert stream.read() == b'{"text": "a"}\n'


@every_kind
@pytest.mark.slow
def test_what_is_packed_tightly_is_unpacked_in_bounded_memory(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    """Of 300 MB that are a few kB when packed, Python holds less than 40 MB at a time."""
    path = tmp_path / f"corpus.txt{suffix}"
    path.write_bytes(pack((b"a" * 999 + b"\n") * 100_000) * 3)

    tracemalloc.start()
    try:
        documents = sum(1 for _ in open_source(path, text_column="text", id_column=None).rows())
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert documents == 300_000
    assert most < 40_000_000
