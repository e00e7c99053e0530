"""How requests are put to an endpoint: what is wanted, and what was learned by being refused. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..endpoints import EncodingFormat
from ..values import Batch
from ..wire.refusal import Field
from ..wire.request import Form

DOUBTFUL = 3  # inputs in a row
_ENCODINGS: tuple[EncodingFormat, ...] = ("base64", "float", None)  # from the shortest replies to the least asked


class Forms:
    """
    The form of requests that one endpoint takes, as far as it is known: it begins with *first*, and asks for less.

    What was part of a request that was answered is proven. A refusal that names a field, or that comes to one input
    before what it has is proven, is tried in other forms; the first that passes is kept. When inputs are refused by
    themselves one after the other, and nothing passes in between, what was proven is in doubt: behind a gateway
    another upstream may answer now.
    """

    def __init__(self, first: Form) -> None:
        self.first = first
        self.form = first
        self._proven: set[Field] = set()
        self._alone = 0  # inputs that were refused by themselves since anything passed, or forms were tried in vain

    def is_open(self, batch: Batch) -> bool:
        """True until a request like *batch*, all texts or all token arrays, was answered."""
        return ("token_arrays" if is_arrays(batch) else "encoding_format") not in self._proven or self._in_doubt

    @property
    def _in_doubt(self) -> bool:
        return self._alone >= DOUBTFUL

    def refuses_one(self) -> None:
        """An input was refused by itself, without a word about its form."""
        self._alone += 1

    def is_in_vain(self) -> None:
        """No form helps: it is not the form."""
        self._alone = 0

    def at_most(self, trial: Form) -> Form:
        """What both *trial* and all that is known ask for: what was learned since a trial began holds for it too."""
        encoding = max(self.form.encoding_format, trial.encoding_format, key=_ENCODINGS.index)
        return Form(encoding, self.form.dimensions and trial.dimensions, self.form.token_arrays and trial.token_arrays)

    def other(self, form: Form, batch: Batch, field: Field | None, tried: tuple[Form, ...]) -> Form | None:
        """Another form for *batch*, which was refused in *form* for its *field*, or for what nobody said."""
        for candidate in self._named(form, batch, field) if field else self._unnamed(batch):
            if candidate not in tried:
                return candidate
        return None

    def _named(self, form: Form, batch: Batch, field: Field) -> Iterator[Form]:
        if field == "encoding_format":
            yield from (replace(form, encoding_format=encoding) for encoding in _below(form.encoding_format))
        elif field == "dimensions" and form.dimensions:
            yield replace(form, dimensions=False)
        elif field == "token_arrays" and form.token_arrays and is_arrays(batch):
            yield replace(form, token_arrays=False)

    def _unnamed(self, batch: Batch) -> Iterator[Form]:
        form = self.form
        proven = set() if self._in_doubt else self._proven
        if is_arrays(batch) and form.token_arrays and "token_arrays" not in proven:
            yield replace(form, token_arrays=False)
        if "encoding_format" not in proven:
            yield from self._named(form, batch, "encoding_format")
        if form.dimensions and "dimensions" not in proven:
            yield replace(form, dimensions=False)
            yield replace(form, dimensions=False, encoding_format=None)

    def passes(self, form: Form, batch: Batch) -> list[tuple[Field, str]]:
        """*batch* was answered in *form*: keep to that where it asks for less. Returns what is new."""
        before = self.form
        self._alone = 0
        self.form = self.at_most(form)
        if form.encoding_format == self.form.encoding_format:
            self._proven.add("encoding_format")
        if form.dimensions:
            self._proven.add("dimensions")
        if is_arrays(batch):
            self._proven.add("token_arrays")
        return list(_differences(before, self.form))

    def without_token_arrays(self) -> list[tuple[Field, str]]:
        """Token arrays are refused, and no text to try instead is known. Returns what is new."""
        before = self.form
        self.form = replace(before, token_arrays=False)
        return list(_differences(before, self.form))

    def learned(self) -> dict[str, object]:
        """What is asked for otherwise than at first, as JSON can carry it."""
        return {name: getattr(self.form, name) for name, _ in _differences(self.first, self.form)}

    def recall(self, learned: Mapping[str, Any]) -> None:
        """Begin with what :meth:`learned` has told before. What is no such thing is passed over."""
        encoding = learned.get("encoding_format", self.form.encoding_format)
        self.form = self.at_most(
            Form(
                encoding if encoding in _ENCODINGS else self.form.encoding_format,
                learned.get("dimensions") is not False,
                learned.get("token_arrays") is not False,
            )
        )


def is_arrays(batch: Batch) -> bool:
    """True if the inputs of *batch* are token arrays, as all of them or none are."""
    return batch.inputs[0].startswith(b"[")


def _below(encoding: EncodingFormat) -> tuple[EncodingFormat, ...]:
    return _ENCODINGS[_ENCODINGS.index(encoding) + 1 :]


def _differences(before: Form, after: Form) -> Iterator[tuple[Field, str]]:
    if after.encoding_format != before.encoding_format:
        yield "encoding_format", after.encoding_format or "omitted"
    if after.dimensions != before.dimensions:
        yield "dimensions", "omitted"
    if after.token_arrays != before.token_arrays:
        yield "token_arrays", "texts"
