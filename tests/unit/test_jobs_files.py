"""Files that appear complete or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from embedbatch.errors import ConfigurationError
from embedbatch.jobs.files import Drafts, drafts_for


def names(folder: Path) -> set[str]:
    """What is in *folder*."""
    return {path.name for path in folder.iterdir()}


def test_nothing_has_its_name_before_it_is_published(tmp_path: Path) -> None:
    """While it is written, no file has its final name; afterwards no other file is there."""
    with drafts_for(tmp_path / "v.npy") as drafts:
        drafts.create().write(b"vectors")
        drafts.create(".ids.jsonl").write(b"ids")
        before = names(tmp_path)
        drafts.publish()

    assert not before & {"v.npy", "v.npy.ids.jsonl"}
    assert names(tmp_path) == {"v.npy", "v.npy.ids.jsonl"}
    assert (tmp_path / "v.npy").read_bytes() == b"vectors"
    assert (tmp_path / "v.npy.ids.jsonl").read_bytes() == b"ids"


def test_an_error_removes_every_draft(tmp_path: Path) -> None:
    """What an earlier run left stays as it was, and nothing is beside it."""
    (tmp_path / "v.npy").write_bytes(b"earlier")

    with pytest.raises(ZeroDivisionError), drafts_for(tmp_path / "v.npy") as drafts:
        drafts.create().write(b"vectors")
        drafts.create(".ids.jsonl")
        raise ZeroDivisionError

    assert names(tmp_path) == {"v.npy"}
    assert (tmp_path / "v.npy").read_bytes() == b"earlier"


def test_an_empty_optional_file_removes_its_predecessor(tmp_path: Path) -> None:
    """A list of failures without a failure is no file, and that of an earlier run goes."""
    (tmp_path / "v.npy.failures.jsonl").write_bytes(b"earlier")

    with drafts_for(tmp_path / "v.npy") as drafts:
        drafts.create(".failures.jsonl", optional=True)
        drafts.create()
        drafts.publish()

    assert names(tmp_path) == {"v.npy"}


def test_two_results_at_once_do_not_share_a_draft(tmp_path: Path) -> None:
    """The one that is published later stays, whole."""
    with drafts_for(tmp_path / "v.npy") as one, drafts_for(tmp_path / "v.npy") as other:
        one.create().write(b"one")
        other.create().write(b"other")
        other.publish()
        one.publish()

    assert names(tmp_path) == {"v.npy"}
    assert (tmp_path / "v.npy").read_bytes() == b"one"


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error names the directory."""
    with drafts_for(tmp_path / "missing" / "v.npy") as drafts, pytest.raises(ConfigurationError, match="missing"):
        drafts.create()


def test_discarding_waits_for_whoever_writes(tmp_path: Path) -> None:
    """A thread that is writing comes to its end before the files go; one that begins later gets an error."""
    drafts = Drafts(tmp_path / "v.npy")
    file = drafts.create()
    is_writing, may_go_on = threading.Event(), threading.Event()
    written: list[bool] = []

    def write() -> None:
        with drafts.writing():
            is_writing.set()
            may_go_on.wait(10)
            written.append(not file.closed)

    writer, discarder = threading.Thread(target=write), threading.Thread(target=drafts.discard)
    writer.start()
    is_writing.wait(10)
    discarder.start()
    may_go_on.set()
    writer.join(10)
    discarder.join(10)

    assert written == [True]
    assert names(tmp_path) == set()
    with pytest.raises(RuntimeError, match="given up"), drafts.writing():
        pass
