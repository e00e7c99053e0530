"""The formats of destinations, by their suffix. Without one it is a folder of Parquet files, one for each part."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import ConfigurationError
from ..disk import Disk
from ..parts import Division
from ..sources import IdType
from .origin import Origin
from .result import Result, Sink


def check_destination(path: Path) -> None:
    """Raise :class:`ConfigurationError` if nothing can be written to *path*."""
    _is_parquet(path)
    if path.is_dir() and (path.suffix or not (_is_result(path) or _is_empty(path))):
        reason = "expected a file, got the directory" if path.suffix else "there is something else in the directory"
        raise ConfigurationError(f"destination: {reason} {path}")
    if not path.parent.is_dir():
        raise ConfigurationError(f"destination: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"destination: the directory {path.parent} cannot be written to")


def open_sink(
    disk: Disk, folder: Path, destination: Path, origin: Origin, *, division: Division, id_type: IdType, keep_text: bool
) -> Sink:
    """The sink for *destination*, by its suffix. What is not complete yet is in *folder*."""
    if _is_parquet(destination):
        from .parquet import ParquetSink

        return ParquetSink(
            disk,
            folder,
            destination,
            origin,
            parts=division.parts,
            dimensions=origin.dimensions or 0,
            id_type=id_type,
            keep_text=keep_text,
        )
    from .npy import NpySink

    return NpySink(disk, folder, destination, origin, documents=division.documents, part_rows=division.part_rows)


def open_result(destination: str | os.PathLike[str]) -> Result:
    """The result in *destination*. Raises :class:`SourceError` if it is none, or is not there."""
    path = Path(destination)
    if _is_parquet(path):
        from .parquet import ParquetResult

        return ParquetResult(path)
    from .npy import NpyResult

    return NpyResult(path)


def read_origin(destination: str | os.PathLike[str]) -> Origin:
    """What made the vectors in *destination*. Raises :class:`SourceError` if it is no result of a job."""
    return open_result(destination).origin


def _is_result(folder: Path) -> bool:
    return all(path.name.startswith("part-") and path.suffix == ".parquet" for path in folder.iterdir())


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _is_parquet(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".npy", ""):
        raise ConfigurationError(
            f"destination: expected a .parquet or .npy file, or a name without a suffix, got {path.name!r}"
        )
    if suffix == ".npy":
        return False
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigurationError(
            f"destination: a .parquet file needs pyarrow. Install it with: pip install 'embedbatch[jobs]' - {path}"
        ) from error
    return True
