"""What names a destination: a path, or a URL of a database, whose packages need not be there."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from embedbatch import ConfigurationError, jobs
from embedbatch.jobs.sinks import destination_of


def test_a_path_is_a_file_with_its_journal_beside_it(tmp_path: Path) -> None:
    """The list of failures stands there too."""
    destination = destination_of(tmp_path / "v.npy")

    assert (destination.name, str(destination)) == ("v.npy", str(tmp_path / "v.npy"))
    assert destination.journal == tmp_path / "v.npy.journal"
    assert destination.failures == tmp_path / "v.npy.failures.jsonl"
    with pytest.raises(ConfigurationError, match="journal: is for tables"):
        destination_of("v.npy", "elsewhere")


@pytest.mark.parametrize("url", ["mysql://u:secret@host/db?table=t", "postgres:/u:secret@host/db"])
def test_a_url_that_cannot_be_used_is_refused_and_not_repeated(url: str) -> None:
    """It may have a password in it, and would be the name of a file otherwise."""
    with pytest.raises(ConfigurationError) as raised:
        destination_of(url)
    with pytest.raises(ConfigurationError) as raised_for_a_path:
        destination_of(Path(url))

    assert "secret" not in f"{raised.value}{raised_for_a_path.value}"


@pytest.mark.parametrize(
    ("url", "package"), [("postgresql://h/d?table=t", "psycopg"), ("lancedb:///d?table=t", "lancedb")]
)
def test_a_package_that_is_missing_is_named(url: str, package: str) -> None:
    """With the extra that brings it."""
    if find_spec(package):
        pytest.skip(f"{package} is there")

    with pytest.raises(ConfigurationError, match=rf"needs {package}. Install it with: pip install 'embedbatch\["):
        destination_of(url)


@pytest.mark.parametrize("url", ["postgresql://u:secret@h/d?table=t", "lancedb:///d?table=t"])
def test_a_table_is_not_read(url: str) -> None:
    """Its database has means of its own."""
    with pytest.raises(ConfigurationError, match="a table is not read by embedbatch: ask its database"):
        jobs.search(url, [1.0])


@pytest.mark.parametrize("name", ["", ".", "/", "./", Path()])
def test_what_has_no_name_is_no_file(name: str | Path) -> None:
    """Such as an empty variable of a shell."""
    with pytest.raises(ConfigurationError, match=r"^destination: expected a file or a folder, got '[./]*'$"):
        destination_of(name)
