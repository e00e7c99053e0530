"""Which source a path stands for: suffixes, folders, patterns, standard input, and what is not installed."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from embedbatch.errors import ConfigurationError, SourceError
from embedbatch.jobs.sources import CsvRows, FileSource, JsonLines, TextLines, open_source, scan, spool

from .sourcing import contents, csv_rows, opened, write


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("corpus.jsonl", JsonLines),
        ("corpus.JSONL.GZ", JsonLines),
        ("corpus.v1.txt.zst", TextLines),
        ("corpus.csv.gz", CsvRows),
        ("corpus.tsv", CsvRows),
    ],
)
def test_the_suffix_says_the_format(name: str, kind: type[FileSource]) -> None:
    """Letters may be large or small, and .gz or .zst may follow. The file is opened when it is read."""
    source = opened(Path(name))

    assert type(source) is kind
    assert source.name == name


@pytest.mark.parametrize("name", ["corpus", "corpus.gz", "corpus.parquet.gz", "corpus.xls", ".jsonl", "jsonl"])
def test_another_suffix_is_refused(name: str) -> None:
    """What has no known suffix is refused by its name."""
    with pytest.raises(ConfigurationError, match=rf"expected a \.jsonl, .*got '{name}'"):
        opened(Path(name))


def test_a_format_can_be_given(tmp_path: Path) -> None:
    """It goes before the suffix; whether a file is compressed is still what its name says."""
    (tmp_path / "corpus.log").write_bytes(b"one\ntwo\n")

    assert contents(opened(tmp_path / "corpus.log", format="txt")) == ["one", "two"]
    assert contents(opened(tmp_path, format="txt")) == ["one", "two"]
    with pytest.raises(ConfigurationError, match="format: expected one of jsonl, txt, csv, tsv, parquet, got 'xml'"):
        opened(tmp_path / "corpus.log", format="xml")


def test_a_folder_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Names are compared letter by letter. What is hidden, is no file, or has another suffix is passed over."""
    files = {"b.txt": b"b", "a.txt": b"a", "Z.txt": b"Z", "a10.txt": b"a10", "a9.txt": b"a9"}
    others = {"README.md": b"#", ".c.txt": b"c", "_d.txt": b"d", "e.txt/f.txt": b"f"}
    write(tmp_path, {**files, **others})

    assert contents(opened(tmp_path)) == ["Z", "a", "a10", "a9", "b"]


def test_a_pattern_is_read_in_the_order_of_names(tmp_path: Path) -> None:
    """Compressed files among others are read as one corpus; a file that has the pattern as its name is meant itself."""
    write(tmp_path, {"a1.csv": csv_rows([("a1",)]), "a2.csv": csv_rows([("a2",)]), "b.csv": csv_rows([("b",)])})
    assert contents(opened(tmp_path / "a*.csv")) == ["a1", "a2"]
    assert contents(opened(tmp_path / "[ab]*.csv")) == ["a1", "a2", "b"]

    write(tmp_path, {"[ab]*.csv": csv_rows([("itself",)])})
    assert contents(opened(tmp_path / "[ab]*.csv")) == ["itself"]


def test_files_are_found_once(tmp_path: Path) -> None:
    """A file that appears after the source was opened is not in the second reading either."""
    source = opened(write(tmp_path, {"a.txt": b"a"}))
    write(tmp_path, {"b.txt": b"b"})

    assert contents(source) == ["a"]


def test_a_place_without_files_is_refused(tmp_path: Path) -> None:
    """An empty folder, one with other files only, and a pattern that nothing has say so."""
    write(tmp_path, {"other/README.md": b"#"})
    (tmp_path / "empty").mkdir()

    for name in ("empty", "other", "*.jsonl"):
        with pytest.raises(SourceError, match=r"expected a \.jsonl, .*: there is none") as caught:
            opened(tmp_path / name)
        assert caught.value.path == str(tmp_path / name)
    with pytest.raises(SourceError, match="there is no file"):
        opened(tmp_path / "empty", format="jsonl")


def test_several_formats_are_refused(tmp_path: Path) -> None:
    """Which of them is meant is not guessed."""
    write(tmp_path, {"a.jsonl": b"", "b.csv": b"", "c.jsonl.gz": b""})

    with pytest.raises(ConfigurationError, match=r"several formats: \.csv, \.jsonl\. Name those of one"):
        opened(tmp_path)


def test_standard_input_has_to_be_copied_first() -> None:
    """It can be read once: the error says what to do, also for a pipe that has a name."""
    with pytest.raises(ConfigurationError, match=r"standard input can be read once.*spool"):
        opened(Path("-"), format="jsonl")


def test_a_pipe_has_to_be_copied_first(tmp_path: Path) -> None:
    """A named pipe, as a shell's `<(…)` makes them, would be empty at the second reading."""
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)

    with pytest.raises(ConfigurationError, match=r"pipe\.jsonl can be read once"):
        opened(pipe)


def test_a_stream_is_copied_to_a_file(tmp_path: Path) -> None:
    """The copy is an ordinary source; nothing else is left behind."""
    data = b"".join(b"line %d\n" % number for number in range(200_000))
    path = tmp_path / "spooled.txt"

    size = spool(io.BytesIO(data), path)

    assert (size, path.read_bytes()) == (len(data), data)
    assert [each.name for each in tmp_path.iterdir()] == ["spooled.txt"]
    assert len(contents(opened(path))) == 200_000


class _Broken(io.RawIOBase):
    """Gives a line, and then what a closed terminal gives."""

    def __init__(self, error: BaseException) -> None:
        self._error = error
        self._given = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._given:
            raise self._error
        self._given = True
        buffer[:4] = b"one\n"
        return 4


@pytest.mark.parametrize(
    ("error", "expected"), [(OSError(5, "Input/output error"), SourceError), (KeyboardInterrupt(), KeyboardInterrupt)]
)
def test_a_stream_that_breaks_leaves_no_file(
    tmp_path: Path, error: BaseException, expected: type[BaseException]
) -> None:
    """Half a corpus is not taken for a whole one, and what was there stays."""
    path = tmp_path / "spooled.txt"
    path.write_bytes(b"before")

    with pytest.raises(expected):
        spool(io.BufferedReader(_Broken(error)), path)

    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("spooled.txt", b"before")]


def test_a_copy_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    """The error names the file and the reason."""
    with pytest.raises(SourceError, match=r"standard input: cannot be copied to .*none.*: No such file"):
        spool(io.BytesIO(b"one"), tmp_path / "none" / "spooled.txt")


@pytest.mark.anyio
async def test_a_scan_reads_several_files_as_one(tmp_path: Path) -> None:
    """Documents and bytes are those of all of them."""
    found = await scan(opened(write(tmp_path, {"a.txt": b"one\n", "b.txt": b"two"})))

    assert (found.documents, found.bytes, found.id_type) == (2, 7, "int")


@pytest.mark.parametrize(
    ("package", "opening", "remedy"),
    [
        ("zstandard", "open_source(Path('corpus.jsonl.zst'), text_column='text', id_column=None)", "zstandard"),
        ("pyarrow", "open_source(Path('corpus.parquet'), text_column='text', id_column=None)", "'embedbatch[jobs]'"),
        ("pyarrow", "open_table([], 'text', None)", "'embedbatch[jobs]'"),
    ],
)
def test_a_missing_package_is_named_with_its_remedy(package: str, opening: str, remedy: str) -> None:
    """The format that needs it says so when the source is opened; the others work without."""
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from pathlib import Path\n"
        "from embedbatch.errors import ConfigurationError\n"
        "from embedbatch.jobs.sources import open_source, open_table\n"
        "open_source(Path('corpus.jsonl.gz'), text_column='text', id_column=None)\n"
        f"try: {opening}\n"
        f"except ConfigurationError as error: message = str(error)\n"
        f"assert '{package}' in message and message.endswith({'pip install ' + remedy!r}), message\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_reading_lines_imports_neither() -> None:
    """pyarrow, zstandard and the libraries of tables are imported where they are needed, and not before."""
    program = (
        "import sys; import embedbatch.jobs.sources;"
        "assert not {'pyarrow', 'zstandard', 'pandas', 'polars', 'datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


def test_open_source_takes_options_of_every_source(tmp_path: Path) -> None:
    """They are attributes of the source."""
    path = tmp_path / "corpus.jsonl"
    source = open_source(path, text_column="t", id_column="i", columns=["x"], skip_bad_rows=True, on_bad_row=print)

    assert source == JsonLines(path, "t", "i", columns=("x",), skip_bad_rows=True, on_bad_row=print)
    assert (source.path, source.skip_bad_rows, source.on_bad_row) == (path, True, print)
