"""Which source it is that a path stands for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigurationError
from .delimited import CsvRows
from .files import FORMATS, FileSource, Format, find_files, format_of_all
from .lines import JsonLines, TextLines
from .source import BadRowHandler, Columns
from .streams import import_zstandard

if TYPE_CHECKING:
    from .tables import TableRows

_DELIMITERS = {"csv": ",", "tsv": "\t"}


def open_source(
    path: Path,
    *,
    text_column: str,
    id_column: str | None,
    format: Format | None = None,
    columns: Columns = (),
    skip_bad_rows: bool = False,
    on_bad_row: BadRowHandler | None = None,
) -> FileSource:
    """
    The source for *path*: a file, a folder of files, or a pattern such as ``data/*.parquet``.

    *format* is that of the files; without it, their suffix says it. The other arguments are those of the source.

    Raises :class:`ConfigurationError` for what is no source, and for a format whose package is not installed;
    :class:`SourceError` for a folder or a pattern without files.
    """
    _check_can_be_read_twice(path)
    files = find_files(path, format)
    format = format or format_of_all(path, files)
    if any(each.suffix.lower() == ".zst" for each in files or (path,)):
        import_zstandard()
    options: dict[str, Any] = {
        "files": files,
        "columns": _listed(columns),
        "skip_bad_rows": skip_bad_rows,
        "on_bad_row": on_bad_row,
    }
    match format:
        case "jsonl":
            return JsonLines(path, text_column, id_column, **options)
        case "txt":
            if id_column is not None:
                raise ConfigurationError(f"id_column={id_column!r}: {path} is a .txt file, which has no columns")
            return TextLines(path, **options)
        case "csv" | "tsv":
            return CsvRows(path, text_column, id_column, _DELIMITERS[format], **options)
        case "parquet":
            try:
                from .parquet import ParquetRows
            except ImportError as error:
                raise _no_pyarrow("a .parquet file") from error
            return ParquetRows(path, text_column, id_column, **options)
        case _:
            raise ConfigurationError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")


def open_table(
    table: Any,
    text_column: str,
    id_column: str | None,
    *,
    columns: Columns = (),
    skip_bad_rows: bool = False,
    on_bad_row: BadRowHandler | None = None,
) -> TableRows:
    """
    The source for *table*: a frame of pandas or polars, a table or a stream of pyarrow, a relation of DuckDB, a dataset
    of Hugging Face, or whatever else has ``__arrow_c_stream__``.

    It is read into memory, without a copy where it is Arrow's already: a stream can be read once, and a relation, which
    is a query, may have another order the next time. Columns that are not needed are let go where that can be done.

    Raises :class:`ConfigurationError` for what is no table, and :class:`SourceError` for one without the columns.
    """
    try:
        from .tables import table_rows
    except ImportError as error:
        raise _no_pyarrow("a table") from error
    return table_rows(
        table,
        text_column,
        id_column,
        columns=_listed(columns),
        skip_bad_rows=skip_bad_rows,
        on_bad_row=on_bad_row,
    )


def _listed(columns: Columns) -> Columns:
    return columns if isinstance(columns, str) else tuple(columns)


def _no_pyarrow(what: str) -> ConfigurationError:
    return ConfigurationError(f"source: {what} needs pyarrow. Install it with: pip install 'embedbatch[jobs]'")


def _check_can_be_read_twice(path: Path) -> None:
    if str(path) == "-" or (path.exists() and not path.is_file() and not path.is_dir()):
        what = "standard input" if str(path) == "-" else str(path)
        raise ConfigurationError(
            f"source: {what} can be read once, and a source is read twice. Copy it to a file: "
            "embedbatch.jobs.sources.spool does"
        )
