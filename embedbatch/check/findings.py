"""What the answers say about the endpoint, and the preset that follows. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from ..endpoints import Endpoint
from ..values import Vector
from ..wire.quota import read_number
from .answers import Answer, are_same, length
from .probes import TEXTS, long_text

_UNIT = 1e-3  # of length 1 may a vector miss that is scaled to it
_RATE_HEADERS = re.compile(r"(?:llm_provider-)?(?:x-)?ratelimit|retry-after")
_LIMIT_IN_WORDS = re.compile(
    r"(?:maximum (?:context|input) length is|at most|max(?:imum)?(?: of)?:?|less than|limit(?: is| of|:)?)"
    r" ([0-9][0-9,]*) tokens",
    re.IGNORECASE,
)
_WIDE = (0.12, 1.0)  # tokens to a byte that English can have


@dataclass(frozen=True, slots=True)
class Finding:
    """
    One thing that was found: its *name*, and its *value* as JSON can carry it; both as people read them.

    *value* is ``None`` where the answers do not say.
    """

    name: str
    value: Any
    topic: str
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """
    What is known besides the answers.

    *count* counts the tokens of a text as the model does, where its tokenizer is known; *max_input_tokens* is the
    limit that was gone beyond; requests with *inputs_accepted* were answered, with *inputs_refused* not.
    """

    count: Callable[[str], int] | None
    max_input_tokens: int
    inputs_accepted: int
    inputs_refused: int | None


def find(answers: Mapping[str, Answer], known: Known) -> list[Finding]:
    """All that *answers* say, by the names of their probes; what was not asked is left out."""
    closed = {name: answer for name, answer in answers.items() if not answer.is_open}
    found: list[Finding] = []
    if "plain" not in closed:
        return found
    for name, topic, rule, asked in _RULES:
        said = rule(closed, known)
        if said is None and asked in answers and answers[asked].is_open:
            said = None, f"not known: {answers[asked].refusal}"
        if said is not None:
            value, words = said
            found.append(Finding(name, value, topic, words))
    found.extend(_errors(closed))
    return found


_Said = tuple[Any, str] | None


def _vectors(answers: Mapping[str, Answer], known: Known) -> _Said:
    vector = answers["plain"].vector
    return None if vector is None else (len(vector), f"{len(vector):,} numbers")


def _norm(answers: Mapping[str, Answer], known: Known) -> _Said:
    vectors = [item.vector for answer in (answers["plain"], answers.get("order")) if answer for item in answer.items]
    norms = [length(vector) for vector in vectors if vector is not None]
    if not norms:
        return None
    low, high = min(norms), max(norms)
    if max(abs(low - 1), abs(high - 1)) <= _UNIT:
        return 1.0, "1: they come scaled"
    return [round(low, 4), round(high, 4)], f"{low:.3g} to {high:.3g}: they do not come scaled to 1"


def _order(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer = answers.get("order")
    singles = [answers["plain"].vector, answers["string"].vector if "string" in answers else None]
    if answer is None:
        return None
    if not answer.is_good:
        return None, answer.refusal
    items = answer.items
    indexes = [item.index for item in items]
    by_position = [item.vector for item in items]
    has_indexes = sorted(index for index in indexes if index is not None) == list(range(len(items)))
    by_index = [vector for _, vector in sorted(zip(indexes, by_position, strict=True), key=_by_index)]
    if has_indexes and _begins(by_index, singles):
        in_order = indexes == list(range(len(items)))
        return "index", "index tells" + ("" if in_order else "; the items come in another order")
    if _begins(by_position, singles):
        missing = all(index is None for index in indexes)
        return "position", "by position; " + ("no index" if missing else f"the indexes are wrong: {indexes}")
    return "unknown", "neither index nor position leads to the vector that a text has alone"


def _by_index(pair: tuple[int | None, Vector | None]) -> int:
    return -1 if pair[0] is None else pair[0]


def _begins(vectors: Sequence[Vector | None], singles: Sequence[Vector | None]) -> bool:
    pairs = [(one, other) for one, other in zip(vectors, singles, strict=False) if other is not None]
    return bool(pairs) and all(are_same(one, other) for one, other in pairs)


def _accepted(name: str) -> Callable[[Mapping[str, Answer], Known], _Said]:
    """The rule that says whether the probe of that *name* was answered."""

    def accepts(answers: Mapping[str, Answer], known: Known) -> _Said:
        answer = answers.get(name)
        if answer is None:
            return None
        return (True, "taken") if answer.is_good else (False, answer.refusal)

    return accepts


def _float(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer = answers.get("float")
    if answer is None:
        return None
    if not answer.is_good:
        return "refused", answer.refusal
    honoured = answer.items[0].encoding == "float"
    return ("honoured", "honoured") if honoured else ("ignored", "ignored: base64 comes")


def _base64(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer = answers.get("base64")
    if answer is None:
        return None
    if not answer.items or answer.status != 200:
        return ("empty" if answer.status == 200 else "refused"), answer.refusal
    item = answer.items[0]
    if item.encoding == "float":
        return "ignored", "ignored: numbers come"
    plain = answers["plain"].vector
    if are_same(plain, item.vector):
        return "honoured", "honoured: float32, little-endian"
    if item.vector is not None and are_same(plain, item.vector.byteswap()):
        return "big-endian", "float32, but big-endian: not usable"
    return "other", "something else than float32 comes: not usable"


def _token_arrays(answers: Mapping[str, Answer], known: Known) -> _Said:
    nested, flat = answers.get("token_arrays"), answers.get("one_token_array")
    if nested is None:
        return None
    if not nested.is_good:
        return False, nested.refusal
    refused = "" if flat is None or flat.is_good else f"; one that is not in a list is not: {flat.refusal}"
    return True, f"taken{refused}"


def _dimensions(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer, plain = answers.get("half_dimensions"), answers["plain"].vector
    if answer is None or plain is None:
        return None
    vector = answer.vector
    if vector is None:
        return "refused", answer.refusal
    asked = answer.probe.fields["dimensions"]
    if len(vector) != asked:
        return "ignored", f"ignored: {len(vector):,} numbers come, {asked:,} were asked for"
    norm = length(vector)
    if abs(norm - 1) <= _UNIT:
        return "scaled", f"honoured: {asked:,} numbers of length 1"
    cut = " (the first of the whole vector)" if are_same(plain[:asked], vector) else ""
    return "cut", f"honoured, but not scaled: {asked:,} numbers{cut} of length {norm:.3g}"


def _too_many_dimensions(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer = answers.get("double_dimensions")
    if answer is None:
        return None
    if answer.vector is None:
        return "refused", answer.refusal
    return (
        "ignored",
        f"ignored: {len(answer.vector):,} numbers come, {answer.probe.fields['dimensions']:,} were asked for",
    )


def _inputs(answers: Mapping[str, Answer], known: Known) -> _Said:
    accepted, refused = known.inputs_accepted, known.inputs_refused
    if refused is None:
        return {"accepted": accepted, "refused": None}, f"{accepted:,} are taken; more were not tried"
    said = next((answer.refusal for answer in answers.values() if answer.probe.count == refused), "")
    return {"accepted": accepted, "refused": refused}, f"at most {accepted:,}; {refused:,} get {said}"


def _long(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer, shortened = answers.get("long"), answers.get("shortened")
    if answer is None:
        return None
    if not answer.is_good:
        return "refused", answer.refusal
    words = len(long_text(known.max_input_tokens).split())
    if shortened is None or not shortened.is_good:
        return None, f"a text of {words:,} words is taken; whether as a whole is not known"
    if are_same(answer.vector, shortened.vector):
        return "cut", f"cut without a word: {words:,} words and four fifths of them have the same vector"
    return "whole", f"taken as a whole: {words:,} words"


def _usage(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer = answers.get("order")
    if answer is None or not answer.is_good:
        return None
    if not answer.usage:
        return "missing", "is not told" if answer.usage is None else "says 0"
    texts = "".join(TEXTS)
    counted = sum(map(known.count, TEXTS)) if known.count else None
    if answer.usage == counted:
        return "tokens", f"tokens, as counted here: {counted}"
    if answer.usage == len(texts):
        return "characters", f"characters: {answer.usage} for {len(texts)} of them"
    beside = "" if counted is None else f", where {counted} are counted here"
    low, high = _WIDE
    if low <= answer.usage / len(texts) < high:
        return "tokens", f"tokens, as it seems: {answer.usage} for {len(texts)} characters{beside}"
    return "other", f"something else: {answer.usage} for {len(texts)} characters{beside}"


def _rate_headers(answers: Mapping[str, Answer], known: Known) -> _Said:
    names = sorted(name for name in answers["plain"].headers or {} if _RATE_HEADERS.match(name))
    return names, ", ".join(names) or "none"


def _model(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer = answers.get("wrong_model")
    if answer is None:
        return None
    if answer.is_good:
        return "any", f"any is taken; it calls itself {answer.names_model!r}"
    return "checked", answer.refusal


def _key(answers: Mapping[str, Answer], known: Known) -> _Said:
    answer = answers.get("wrong_key")
    if answer is None:
        return None
    return ("any", "any is taken, or none is asked for") if answer.is_good else ("checked", answer.refusal)


def _errors(answers: Mapping[str, Answer]) -> Iterator[Finding]:
    shapes = {
        name: f"{answer.status}, {answer.shape}"
        for name, answer in answers.items()
        if answer.status is not None and not answer.is_good and answer.status != 200
    }
    kinds: dict[str, list[str]] = {}
    for name, shape in shapes.items():
        kinds.setdefault(shape, []).append(name)
    words = "; ".join(f"{shape} ({', '.join(names)})" for shape, names in kinds.items())
    yield Finding("errors", shapes, "errors", words or "none seen")


# What is found, as people read it, by which rule, from the answer to which probe above all.
_RULES: tuple[tuple[str, str, Callable[[Mapping[str, Answer], Known], _Said], str], ...] = (
    ("dimensions", "vectors", _vectors, "plain"),
    ("norm", "length of vectors", _norm, "plain"),
    ("order", "order", _order, "order"),
    ("text", "a text, not in a list", _accepted("string"), "string"),
    ("token_arrays", "token arrays", _token_arrays, "token_arrays"),
    ("float", "encoding_format: float", _float, "float"),
    ("base64", "encoding_format: base64", _base64, "base64"),
    ("fewer_dimensions", "dimensions: fewer", _dimensions, "half_dimensions"),
    ("more_dimensions", "dimensions: too many", _too_many_dimensions, "double_dimensions"),
    ("inputs", "inputs in a request", _inputs, "plain"),
    ("long_text", "a text that is too long", _long, "long"),
    ("empty", "an empty text", _accepted("empty"), "empty"),
    ("blank", "a blank text", _accepted("blank"), "blank"),
    ("empty_beside", "an empty text beside another", _accepted("empty_beside"), "empty_beside"),
    ("usage", "usage", _usage, "order"),
    ("rate_headers", "headers about rates", _rate_headers, "plain"),
    ("model", "an unknown model", _model, "wrong_model"),
    ("key", "a wrong key", _key, "wrong_key"),
)


def preset(findings: Sequence[Finding], answers: Mapping[str, Answer], *, name: str, base_url: str) -> dict[str, Any]:
    """
    What is found as the fields of an ``Endpoint``, and the rest of it under *notes*.

    Only what was found differs from the defaults: a cap that was not met is none.
    """
    found = {finding.name: finding.value for finding in findings}
    given: dict[str, Any] = {"name": name, "base_url": base_url, "needs_key": found.get("key") == "checked"}
    given["token_arrays"] = found.get("token_arrays") is True
    given["encoding_format"] = _encoding(found)
    given["source"] = "found by embedbatch check"
    if found.get("norm") is not None:
        given["normalised"] = found["norm"] == 1.0 and found.get("fewer_dimensions") != "cut"
    if found.get("fewer_dimensions") in ("ignored", "refused"):
        given["dimensions_field"] = None
    inputs = found.get("inputs") or {}
    if inputs.get("refused") is not None:
        given["max_inputs"] = inputs["accepted"]
    if (most := _max_input_tokens(found, answers)) is not None:
        given["max_input_tokens"] = most
    names = {each.name for each in fields(Endpoint)}
    notes = {finding.name: {"value": finding.value, "words": finding.words} for finding in findings}
    return {**{field: value for field, value in given.items() if field in names}, "notes": notes}


def _encoding(found: Mapping[str, Any]) -> str | None:
    if found.get("base64") == "honoured":
        return "base64"
    return "float" if found.get("float") in ("honoured", "ignored") else None


def _max_input_tokens(found: Mapping[str, Any], answers: Mapping[str, Answer]) -> int | None:
    """What the refusal of a long text names, or the usage of one that was cut."""
    answer = answers.get("long")
    if answer is None:
        return None
    if found.get("long_text") == "refused":
        named = _LIMIT_IN_WORDS.search(answer.words.message)
        return int(read_number(named[1]) or 0) or None if named else None
    shortened = answers.get("shortened")
    if found.get("long_text") != "cut" or found.get("usage") != "tokens" or shortened is None:
        return None
    return answer.usage if answer.usage == shortened.usage else None
