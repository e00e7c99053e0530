"""Arrow's record batches, row by row. (The only place that turns its values into Python's.)"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...errors import SourceError
from .source import NO_EXTRA, Row, RowSource, invalid_utf8, no_column

MAX_ROWS = 1024  # of a batch
PIECE = 2**22  # bytes of text that are Python objects at a time


class RowReader:
    """
    Turns the batches of a *schema* into rows, for *source*.

    *path* is what errors name, *file* what ``Row.file`` is. *names* are the columns that batches need to have, and
    *schema* is that of ``Row.extra``. Raises :class:`SourceError` if they are not there, or are not what a text or an
    id can be.
    """

    def __init__(
        self,
        source: RowSource,
        schema: pa.Schema,
        *,
        text_column: str,
        id_column: str | None,
        path: str,
        file: str | None = None,
    ) -> None:
        wanted = [text_column, *([] if id_column is None else [id_column])]
        self.extra = source.chosen(schema.names, but=wanted)
        self.names = list(dict.fromkeys([*wanted, *self.extra]))
        self._source = source
        self._text, self._id = text_column, id_column
        self._path, self._file = path, file
        for name in self.names:
            if schema.names.count(name) != 1:
                reason = f"column {name!r} is there twice" if name in schema.names else no_column(name, schema.names)
                raise SourceError(reason, path=path)
        kind = schema.field(text_column).type
        if not (is_text(kind) or is_tokens(kind) or pa.types.is_null(kind)):
            raise SourceError(f"column {text_column!r}: expected texts or lists of integers, got {kind}", path=path)
        if id_column is not None:
            kind = schema.field(id_column).type
            if not (is_text(kind) or pa.types.is_integer(kind)):
                raise SourceError(f"column {id_column!r}: expected texts or integers, got {kind}", path=path)
        self.schema = pa.schema([(name, plain(schema.field(name).type)) for name in self.extra])

    def rows(
        self, batches: Iterable[pa.RecordBatch], position: int, line: int, offset: int
    ) -> Generator[Row, None, int]:
        """
        The rows of *batches*, the first of which has this position, line and offset. Returns the position after them.
        """
        file = self._file
        for batch in batches:
            for piece, sizes in self._pieces(batch):
                bad: dict[int, str] = {}
                contents = values(piece.column(self._text), self._text, bad)
                ids = None if self._id is None else self._ids(piece, self._id, bad)
                extras = self._extras(piece, bad) if self.extra else None
                for number, (content, size) in enumerate(zip(contents, sizes, strict=True)):
                    if bad and number in bad:
                        self._source.pass_over(SourceError(bad[number], path=self._path, line=line + number))
                        continue
                    id = position if ids is None else ids[number]
                    extra = NO_EXTRA if extras is None else extras[number]
                    yield Row(id, content, line + number, size, offset + number, file, extra)
                    position += 1
                line += len(contents)
                offset += len(contents)
        return position

    def _pieces(self, batch: pa.RecordBatch) -> Iterator[tuple[pa.RecordBatch, list[int]]]:
        """*batch* in pieces that fit the memory, with the bytes of each text."""
        sizes: list[int] = lengths(batch.column(self._text)).fill_null(0).to_pylist()
        extra = (batch.column(name) for name in self.extra)
        nbytes = sum(sizes) + sum(each.nbytes for each in extra if not pa.types.is_dictionary(each.type))
        step = max(1, min(len(sizes), len(sizes) * PIECE // max(1, nbytes)))
        for first in range(0, len(sizes), step):
            yield batch.slice(first, step), sizes[first : first + step]

    def _ids(self, batch: pa.RecordBatch, name: str, bad: dict[int, str]) -> list[Any]:
        ids = values(batch.column(name), name, bad)
        if batch.column(name).null_count:
            for number, id in enumerate(ids):
                if id is None:
                    bad.setdefault(number, f"column {name!r}: expected a text or an integer, got null")
        return ids

    def _extras(self, batch: pa.RecordBatch, bad: dict[int, str]) -> list[dict[str, Any]]:
        columns = [values(batch.column(name), name, bad) for name in self.extra]
        return [dict(zip(self.extra, values, strict=True)) for values in zip(*columns, strict=True)]


def plain(kind: pa.DataType) -> pa.DataType:
    """The type of the :func:`values` of a column of this *kind*: one for all texts, and none for how they are kept."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return plain(kind.storage_type)
    return pa.large_string() if is_text(kind) else kind


def united(schemas: Iterable[pa.Schema], path: str) -> pa.Schema:
    """A schema with room for what all of *schemas* have room for. Raises :class:`SourceError` if there is none."""
    try:
        return pa.unify_schemas(list(schemas), promote_options="permissive")
    except pa.ArrowException as error:
        raise SourceError(f"its files have columns of one name and several types: {error}", path=path) from error


def is_text(kind: pa.DataType) -> bool:
    """True if values of this type are texts."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def is_tokens(kind: pa.DataType) -> bool:
    """True if values of this type are lists of integers."""
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)) and (
        pa.types.is_integer(kind.value_type)
    )


def lengths(column: Any) -> Any:
    """The bytes that each text or list of *column* takes, null where it is null."""
    kind = column.type
    if pa.types.is_null(kind):
        return column.cast(pa.int64())
    if pa.types.is_dictionary(kind):
        return lengths(column.dictionary).take(column.indices)
    if pa.types.is_string_view(kind):
        column = column.cast(pa.large_string())
    if is_tokens(kind):
        return pc.multiply(pc.list_value_length(column).cast(pa.int64()), kind.value_type.bit_width // 8)
    return pc.binary_length(column).cast(pa.int64())


def decoded(column: Any) -> Any:
    """*column* with its values in place of their numbers in a dictionary."""
    if not pa.types.is_dictionary(column.type):
        return column
    if pa.types.is_string_view(column.type.value_type):  # polars has these, and Arrow cannot take from them
        texts = column.dictionary.cast(pa.large_string())
        column = pa.DictionaryArray.from_arrays(column.indices, texts)
    return column.dictionary_decode()


def values(column: Any, name: str, bad: dict[int, str]) -> list[Any]:
    """*column*, called *name*, as Python's values. What cannot be one is None, and why is in *bad*, by its row."""
    column = decoded(column)
    if isinstance(column.type, pa.BaseExtensionType):
        column = column.storage
    try:
        found: list[Any] = column.to_pylist()
        return found
    except (ValueError, OverflowError, pa.ArrowException):
        return [_value(column, name, number, bad) for number in range(len(column))]


def _value(column: Any, name: str, number: int, bad: dict[int, str]) -> Any:
    try:
        return column[number].as_py()
    except UnicodeDecodeError as error:
        bad[number] = f"column {name!r}: {invalid_utf8(error)}"
    except (ValueError, OverflowError, pa.ArrowException) as error:
        bad[number] = f"column {name!r}: {error}"
    return None
