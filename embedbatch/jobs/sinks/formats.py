"""The formats of destinations, by their suffix. Without one it is a folder of Parquet files, one for each part."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ...errors import ConfigurationError
from ..columns import check_names
from ..disk import Disk
from ..dtypes import Dtype, check_dtype
from ..parts import Division
from ..segments import Room
from ..sources import IdType
from ..sources.streams import import_zstandard
from .origin import Origin
from .result import Result, Sink

_Format: TypeAlias = Literal["parquet", "npy", "jsonl"]

_SUFFIXES: dict[str, _Format] = {
    "": "parquet",
    ".parquet": "parquet",
    ".npy": "npy",
    ".jsonl": "jsonl",
    ".jsonl.gz": "jsonl",
    ".jsonl.zst": "jsonl",
}
_OWN_COLUMNS: dict[_Format, set[str]] = {
    "parquet": {"id", "vector", "tokens", "text"},
    "npy": {"id", "tokens", "text"},
    "jsonl": {"id", "embedding", "tokens", "text"},
}
_NEEDED: dict[_Format, str] = {"parquet": "pyarrow", "jsonl": "orjson"}


def check_destination(path: Path, *, dtype: Dtype = "float32", columns: Iterable[str] = ()) -> None:
    """Raise :class:`ConfigurationError` if nothing can be written to *path*, or not in *dtype* or with *columns*."""
    format = _format_of(path)
    check_dtype(dtype)
    if dtype != "float32" and format == "jsonl":
        raise ConfigurationError(f"dtype={dtype!r} is for .parquet and .npy: in {path} numbers are decimal")
    check_names(columns, taken=_OWN_COLUMNS[format])
    if path.is_dir() and (path.suffix or not (_is_result(path) or _is_empty(path))):
        reason = "expected a file, got the directory" if path.suffix else "there is something else in the directory"
        raise ConfigurationError(f"destination: {reason} {path}")
    if not path.parent.is_dir():
        raise ConfigurationError(f"destination: there is no directory {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"destination: the directory {path.parent} cannot be written to")


def check_columns(path: Path, columns: Mapping[str, Any]) -> None:
    """Raise :class:`ConfigurationError` if *columns*, which a source has, cannot be written to *path*."""
    format = _format_of(path)
    check_names(columns, taken=_OWN_COLUMNS[format])
    if format == "parquet":
        from .parquet import fields_of

        fields_of(columns)


def open_sink(
    disk: Disk,
    folder: Path,
    destination: Path,
    origin: Origin,
    *,
    division: Division,
    id_type: IdType,
    keep_text: bool,
    dtype: Dtype = "float32",
    columns: Mapping[str, Any] | None = None,
) -> Sink:
    """
    The sink for *destination*, by its suffix. What is not complete yet is in *folder*.

    *columns* are the other ones of the source: an Arrow type for each, or a kind of :mod:`embedbatch.jobs.columns`.
    """
    match _format_of(destination):
        case "parquet":
            from .parquet import ParquetSink

            return ParquetSink(
                disk,
                folder,
                destination,
                origin,
                dimensions=origin.dimensions or 0,
                id_type=id_type,
                keep_text=keep_text,
                dtype=dtype,
                columns=columns or {},
            )
        case "npy":
            from .npy import NpySink

            documents, part_rows = division.documents, division.part_rows
            return NpySink(disk, folder, destination, origin, documents=documents, part_rows=part_rows, dtype=dtype)
        case "jsonl":
            from .jsonl import JsonlSink

            return JsonlSink(disk, folder, destination, origin)


def room_for(folder: Path, destination: Path, *, division: Division, dimensions: int, dtype: Dtype) -> Room | None:
    """Where vectors of that size stand from the first, if the sink for *destination* takes no others."""
    match _format_of(destination):
        case "parquet" if destination.suffix:
            from .parquet import room_of as room_of_parquet

            return room_of_parquet(folder)
        case "npy" if dtype == "float32":
            from .npy import room_of

            return room_of(folder, documents=division.documents, dimensions=dimensions)
    return None


def open_result(destination: str | os.PathLike[str]) -> Result:
    """The result in *destination*. Raises :class:`SourceError` if it is none, or is not there."""
    path = Path(destination)
    match _format_of(path):
        case "parquet":
            from .parquet import ParquetResult

            return ParquetResult(path)
        case "npy":
            from .npy import NpyResult

            return NpyResult(path)
        case "jsonl":
            from .jsonl import JsonlResult

            return JsonlResult(path)


def _is_result(folder: Path) -> bool:
    return all(path.name.startswith("part-") and path.suffix == ".parquet" for path in folder.iterdir())


def _is_empty(folder: Path) -> bool:
    return next(folder.iterdir(), None) is None


def _format_of(path: Path) -> _Format:
    """Raises :class:`ConfigurationError` for a name that says none, and where a package is missing."""
    packed = path.suffix.lower() in (".gz", ".zst")
    format = _SUFFIXES.get("".join(path.suffixes[-2 if packed else -1 :]).lower())
    if format is None:
        raise ConfigurationError(
            "destination: expected a .parquet, .npy, .jsonl, .jsonl.gz or .jsonl.zst file, or a name without a suffix, "
            f"got {path.name!r}"
        )
    try:
        import_module(_NEEDED.get(format, "numpy"))
    except ImportError as error:
        raise ConfigurationError(
            f"destination: a .{format} file needs {_NEEDED[format]}. Install it with: pip install 'embedbatch[jobs]' "
            f"- {path}"
        ) from error
    if path.suffix.lower() == ".zst":
        import_zstandard("destination")
    return format
