"""Sources that are files: one, or several that are read one after the other."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from ...errors import ConfigurationError, SourceError
from ..identity import Fingerprint
from . import binding
from .source import RowSource
from .streams import COMPRESSED, FilePart

Format: TypeAlias = Literal["jsonl", "txt", "csv", "tsv", "parquet"]

FORMATS: tuple[Format, ...] = get_args(Format)
KNOWN = "a .jsonl, .txt, .csv or .tsv file, one of these with .gz or .zst, or a .parquet file"

_FILE = 2**42  # in Row.offset, for each file before: 4 TiB, and two million files


@dataclass(frozen=True, slots=True)
class FileSource(RowSource):
    """What sources in files have in common: *path* is the file, or where the *files* are that were found there."""

    path: Path
    _: KW_ONLY
    files: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        return str(self.path)

    def stamp(self) -> str:
        return binding.stamp(self.each_file())

    def fingerprint(self) -> Fingerprint:
        return binding.fingerprint_of_all(self.files) if self.files else binding.fingerprint(self.path)

    def has_grown(self, before: Fingerprint) -> bool:
        return bool(self.files) and binding.has_more_files(self.files, before)

    def each_file(self) -> tuple[Path, ...]:
        """The files it reads, in order."""
        return self.files or (self.path,)

    def shown(self, path: Path) -> str | None:
        """What ``Row.file`` is for the rows of *path*."""
        return str(path) if self.files else None


@dataclass(frozen=True, slots=True)
class LineSource(FileSource):
    """What sources in files of lines have in common."""

    def has_grown(self, before: Fingerprint) -> bool:
        if self.files:
            return binding.has_more_files(self.files, before)
        return not is_compressed(self.path) and binding.has_more_lines(self.path, before)

    def parts(self, line: int, offset: int) -> Iterator[FilePart]:
        """The files from *line* and *offset* of a row on."""
        first, within = divmod(offset, _FILE) if self.files else (0, offset)
        for number, path in enumerate(self.each_file()[first:], first):
            base = number * _FILE
            yield FilePart(path, line, within, base, self.shown(path))
            line, within = 1, 0


def find_files(path: Path, format: Format | None) -> tuple[Path, ...]:
    """
    The files in the folder, or of the pattern, *path*, in the order of their names; none where it is one file.

    In a folder, names that begin with a dot or an underscore are passed over. So are files whose format is not known,
    unless *format* says that all are of this one.
    """
    if path.is_dir():
        found = [str(each) for each in path.iterdir() if not each.name.startswith((".", "_"))]
    elif glob.has_magic(str(path)) and not path.exists():
        found = glob.glob(str(path), recursive=True)
    else:
        return ()
    files = [Path(each) for each in sorted(found)]
    files = [each for each in files if (format or format_of(each)) and each.is_file()]
    if not files:
        raise SourceError(f"expected {KNOWN}: there is none" if format is None else "there is no file", path=str(path))
    return tuple(files)


def format_of_all(path: Path, files: tuple[Path, ...]) -> Format:
    """The one format of *files*, which were found at *path*. Raises :class:`ConfigurationError` if there are two."""
    formats = {format_of(each) for each in files or (path,)}
    if len(formats) > 1:
        kinds = ", ".join(sorted(f".{each}" for each in formats))
        raise ConfigurationError(
            f"source: {path} has files of several formats: {kinds}. Name those of one, as in {path}/*.jsonl"
        )
    (format,) = formats
    if format is None:
        raise ConfigurationError(f"source: expected {KNOWN}, or a folder or a pattern of such, got {path.name!r}")
    return format


def format_of(path: Path) -> Format | None:
    """The format that the name of *path* stands for."""
    suffixes = [each.lower() for each in path.suffixes]
    packed = bool(suffixes) and suffixes[-1] in COMPRESSED
    suffix = "".join(suffixes[:-1][-1:] if packed else suffixes[-1:])
    if packed and suffix == ".parquet":
        return None
    return next((each for each in FORMATS if suffix == f".{each}"), None)


def is_compressed(path: Path) -> bool:
    """True if what the lines of *path* are made of is compressed."""
    return path.suffix.lower() in COMPRESSED
