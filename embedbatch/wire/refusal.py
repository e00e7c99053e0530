"""
What a refusal says about size: the cap of one request, a size error that wears another status, a busy server.

These are words, and words come last (see fault.py). So a wording has to be known, and its number has to fit the
request that was refused. A cap on one input is not a cap on the request: it is never reported here.
"""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from .quota import NUMBER, read_number, read_overrun

Unit = Literal["inputs", "tokens", "bytes"]
Field = Literal["encoding_format", "dimensions", "token_arrays"]


class NamedCap(NamedTuple):
    """
    The most that one request may hold, by the refusal of a larger one.

    *number* is ``None`` when the refusal says that something is too much, and not how much would do.
    """

    unit: Unit
    number: int | None


def _patterns(*wordings: str) -> re.Pattern[str]:
    """One pattern of many; in a wording # is the number that is wanted, and N any other number."""
    named = (wording.replace("#", f"({NUMBER})").replace("N", NUMBER) for wording in wordings)
    return re.compile("|".join(f"(?:{wording})" for wording in named), re.IGNORECASE)


_THINGS = r"(?:inputs|texts|items|documents|strings|sentences|instances|entries)"
_ONE = r"(?:per|in one|in a|in an|in each|for one|for each|for a single|in a single)"
_WHOLE = r"(?:request|batch|call|array)"
_MAX = r"(?:max|maximum)"

_MAX_INPUTS = _patterns(
    r"batch size N > maximum allowed batch size #",  # text-embeddings-inference, SiliconFlow
    r"at most # requests can be in one batch",  # Gemini
    r"batch size is invalid, it should not be larger than #",  # DashScope
    r"array too long\. expected an array with maximum length #",  # OpenAI
    r"array length must be # or less",  # OpenAI, Azure
    r"number of texts must be at most #",  # Cohere
    r"\b# instance\(s\) is allowed per prediction",  # Vertex
    r"input list can contain at most # items",  # Jina
    r"list should have at most # items",  # pydantic 2: infinity, and others on FastAPI
    r"ensure this value has at most # items",  # pydantic 1
    r"expected maximum item count: #",  # Bedrock
    r"input array max #",  # Zhipu
    r"数组最大不得超过 ?#",  # Zhipu
    r"batch size limit is #",
    rf"{_MAX}(?: allowed)? (?:batch size|number of {_THINGS})(?: {_ONE} {_WHOLE})?(?: is| of|:| =) ?#",  # Azure, 2023
    rf"batch size (?:of )?\(?N\)? (?:exceeds|is larger than|is greater than) (?:the )?{_MAX}[^0-9.]{{0,30}}#",
    rf"(?:at most|no more than|maximum of|up to|more than) # {_THINGS} {_ONE} {_WHOLE}",
)
# Vertex: "it has a batchSize value of 251 but the supported range is from 1 (inclusive) to 251 (exclusive)"
_BELOW_INPUTS = _patterns(r"batchSize value of N but the supported range is from N \(inclusive\) to # \(exclusive\)")
_TOO_MANY_INPUTS = _patterns(rf"too many {_THINGS}\b")  # Mistral

_MAX_TOKENS = _patterns(
    r"requested N tokens, max # tokens per request",  # OpenAI
    r"max allowed tokens per submitted batch is #",  # Voyage
    r"too many tokens in batch\. max is #",  # Mistral, 2024
    r"request body too large for .{1,80}\. max size: # tokens",  # GitHub Models
    rf"{_MAX}(?: of)? # tokens {_ONE} {_WHOLE}",
    rf"{_MAX}(?: allowed)?(?: number of)? tokens {_ONE} {_WHOLE}(?: is| of|:| =) ?#",
    rf"(?:at most|no more than|up to) # tokens {_ONE} {_WHOLE}",
)
# Vertex says the same of one text as of all; no input of its models may have more than 8,192 tokens.
_SUPPORTED_TOKENS = _patterns(r"input token count is N but the model supports up to #")
_TOO_MANY_TOKENS = _patterns(rf"too many tokens (?:overall|in (?:the |this )?{_WHOLE})")  # Mistral

_TOO_LARGE_BODY = _patterns(
    r"(?<!response )\b(?:entity|body|payload|content)(?: size)?(?: is)? too large",  # nginx, and most others
    r"payload size exceeds the limit",  # Google
    r"body exceeds (?:the )?max",
    r"request_too_large",
    r"length limit exceeded",  # text-embeddings-inference
)
_BYTES = re.compile(r"(?<![\w.])(" + NUMBER + r") ?(bytes?|[kmg]i?b)\b", re.IGNORECASE)
_BARE_BYTES = re.compile(
    r"\b(?:limit|maximum|max|smaller than|less than|at most|up to|allowed|exceeds)\b[^0-9]{0,20}"
    rf"({NUMBER})(?!\w|[.,][0-9])(?! ?(?:[kmg]i?b\b|tokens|char|{_THINGS}))",
    re.IGNORECASE,
)
# A "MB" may be 1,048,576 bytes; a million is right in either case.
_SCALES = {"k": 1_000, "m": 1_000_000, "g": 1_000_000_000, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}

_CODES: dict[str, Unit] = {
    "array_above_max_length": "inputs",
    "max_tokens_per_request": "tokens",  # OpenAI
    "tokens_limit_reached": "tokens",  # GitHub Models
    "too_many_tokens_in_batch": "tokens",
    "request_too_large": "bytes",
}

_ONE_INPUT = _patterns(
    r"maximum context length",  # OpenAI, vLLM
    r"maximum input length",  # OpenAI
    r"tokens per (?:input|text|document)",
    r"must have less than N (?:tokens|characters)",  # text-embeddings-inference
    r"exceeds? (?:the )?(?:available |maximum )?context (?:length|size|window)",  # Ollama, llama.cpp, llama-cpp-python
    r"exceed_context_size",  # llama.cpp
    r"too large to process",  # llama.cpp
    r"too big compared to kv size",  # llama-box
    r"more tokens than configured batch size",  # LLamaSharp
    r"larger than the max context",  # llama.cpp, 2024
    r"longer than the maximum model length",  # vLLM
    r"input is too long",
)
_INVALID = _patterns(
    r"\bN validation errors?:",  # llama-cpp-python: what FastAPI would answer with 422
    r"llama_decode returned -1",  # llama.cpp's words for a batch that is not valid, in llama-cpp-python
)
_RATE = _patterns(
    r"rate.?limit",
    r"\bper (?:second|sec|minute|min|hour|day)\b",
    r"/ ?(?:sec|second|min|minute|hour|day)\b",
    r"\b[rt]p[smhd]\b",
    r"quota",
    r"配额|额度|限流|速率|频率",
)
_BUSY = _patterns(
    r"overload",  # text-embeddings-inference, OpenAI, Gemini
    r"\bbusy\b",  # Ollama
    r"queue (?:is |was )?full",
    r"max(?:imum)? pending requests",  # Ollama
    r"no slots? available",  # llama.cpp
    r"too many (?:concurrent|parallel|pending|queued|in-flight|simultaneous)",
    r"concurren(?:cy|t)[\w ]{0,20}(?:limit|exceeded|reached)",
    r"(?:at|over|insufficient|out of|no) capacity|capacity exceeded",  # Mistral
    r"high demand|heavy load|saturated",
    r"饱和|过载|繁忙|并发",  # one-api, new-api; Zhipu
)

_NO = r"(?:not|n't|un|in|no longer)[- ]?(?:be )?(?:support|allow|permitted|accepted|recogni[sz]ed|known|valid|expected)"
_EXTRA = r"(?:extra|additional|unknown|unexpected|unrecogni[sz]ed) (?:\w+ )?(?:field|argument|parameter|input|propert)"
_FIELDS: dict[str, Field] = {
    "encoding_format": "encoding_format",
    "embedding_type": "encoding_format",
    "dimensions": "dimensions",
    "output_dimension": "dimensions",
    "dimensionality": "dimensions",
}
_ENCODING = r"(?:encoding_?format|embedding_type|\bbase64\b)"
_NO_ENCODING = _patterns(
    rf"{_ENCODING}[^.]{{0,60}}{_NO}", rf"{_NO}[^.]{{0,60}}{_ENCODING}", rf"{_EXTRA}[^.]{{0,60}}{_ENCODING}"
)
_FIELD_WORDS: tuple[tuple[Field, re.Pattern[str]], ...] = (
    ("encoding_format", _patterns(_ENCODING)),
    (
        "dimensions",
        _patterns(
            r"matryoshka",  # vLLM
            r"output_dimension|dimensionality",
            rf"{_NO}[^.]{{0,60}}\bdimensions?\b",  # OpenAI: "This model does not support specifying dimensions."
            rf"\bdimensions?\b[^.]{{0,60}}{_NO}",
            rf"{_EXTRA}[^.]{{0,60}}\bdimensions?\b",
        ),
    ),
    (
        "token_arrays",
        _patterns(
            r"invalid input type",  # Ollama
            r"'input' field must be a string",  # LM Studio
            r"input should be a valid string|str type expected",  # infinity: pydantic 2 and 1
            r"expected string at field input",  # IONOS
            rf"token (?:arrays?|ids?)[^.]{{0,60}}{_NO}|{_NO}[^.]{{0,60}}token (?:arrays?|ids?)",
        ),
    ),
)

_MIN_TOKENS = 512  # below it, the number is about one input
_MIN_BYTES = 1_000
_DEFAULT_BODY = 2_000_000  # of text-embeddings-inference, which says only that the limit is exceeded
_LONGEST_INPUT = 8_192  # tokens
_ANY = 10**15  # more inputs and bytes than any request has
_URL = re.compile(r"https?://\S+")


def read_cap(
    status: int, message: str, code: str | None, type: str | None, *, inputs: int, size: int
) -> NamedCap | None:
    """
    The cap of one request that this refusal names, or ``None``.

    *inputs* and *size*, in bytes, are those of the refused request. A number of inputs is believed only below
    *inputs*, a number of bytes only below *size*: what is learned always makes the next request smaller. A 413 is
    about bytes unless its words are about something else.
    """
    overrun = read_overrun(message)
    if overrun is not None:
        # Groq: more tokens in one request than in a minute. It can never pass.
        never = overrun.resource == "tokens" and (overrun.requested or 0) > overrun.limit
        return _believe_tokens(overrun.limit) if never else None
    if status == 429 or (status != 413 and _names_rate(message)):
        return None
    if cap := _read_inputs(message, inputs):
        return cap
    if _ONE_INPUT.search(message):
        return None
    if cap := _read_tokens(message):
        return cap
    unit = _CODES.get((code or "").lower()) or _CODES.get((type or "").lower())
    if unit == "tokens" or (unit == "inputs" and inputs > 1):
        return NamedCap(unit, None)
    if status == 413 or unit == "bytes" or _TOO_LARGE_BODY.search(message):
        return NamedCap("bytes", _read_bytes(message, size))
    return None


def read_field(message: str, param: str | None) -> Field | None:
    """The field of the request that this refusal is about, or ``None``: by its *param*, or else by its words."""
    named = _FIELDS.get((param or "").rpartition(".")[2].lower())
    if named is not None:
        return named
    return next((field for field, words in _FIELD_WORDS if words.search(message)), None)


def is_form_in_disguise(message: str) -> bool:
    """True for words that say, at whatever status, that an encoding is not to be had: that is no fault that passes."""
    return _NO_ENCODING.search(message) is not None


def is_about_one_input(message: str) -> bool:
    """True if this refusal says that an input is too long: nothing else of the request is the matter."""
    return _ONE_INPUT.search(message) is not None


def is_size_in_disguise(status: int, message: str) -> bool:
    """
    True for a 5xx that says the request, or one input of it, is too large: trying it again as it is does not help.

    llama.cpp says so with a 500, and gateways turn an upstream's 4xx into one.
    """
    if not 500 <= status < 600:
        return False
    return bool(_ONE_INPUT.search(message)) or bool(read_cap(status, message, None, None, inputs=_ANY, size=_ANY))


def is_invalid_in_disguise(status: int, message: str) -> bool:
    """True for a 5xx that says the request is not valid, or one input of it: it never will be."""
    return 500 <= status < 600 and _INVALID.search(message) is not None


def is_overload(status: int, message: str, type: str | None) -> bool:
    """
    True for a 429 or 503 that says the server is busy, or too much is in flight: fewer requests at once will help.

    False when it says that a rate or a quota of this key is used up.
    """
    words = f"{message} {type or ''}"
    return status in (429, 503, 529) and not _names_rate(words) and _BUSY.search(words) is not None


def _read_inputs(message: str, inputs: int) -> NamedCap | None:
    number = _named(_MAX_INPUTS, message)
    if number is None:
        above = _named(_BELOW_INPUTS, message)
        number = None if above is None else above - 1
    if number is not None:
        return NamedCap("inputs", int(number)) if 1 <= number < inputs else None
    return NamedCap("inputs", None) if inputs > 1 and _TOO_MANY_INPUTS.search(message) else None


def _read_tokens(message: str) -> NamedCap | None:
    number = _named(_MAX_TOKENS, message)
    if number is not None:
        return _believe_tokens(number)
    number = _named(_SUPPORTED_TOKENS, message)
    if number is not None:
        return _believe_tokens(number) if number > _LONGEST_INPUT else None
    return NamedCap("tokens", None) if _TOO_MANY_TOKENS.search(message) else None


def _believe_tokens(number: float) -> NamedCap | None:
    return NamedCap("tokens", int(number)) if number >= _MIN_TOKENS else None


def _read_bytes(message: str, size: int) -> int | None:
    """The smallest number of bytes in the message that is below *size*; another may be the size that was sent."""
    numbers = [(read_number(text) or 0.0) for text in _BARE_BYTES.findall(message)]
    for text, unit in _BYTES.findall(message):
        numbers.append((read_number(text) or 0.0) * _SCALES.get(unit.lower().removesuffix("b"), 1))
    if "length limit exceeded" in message.lower():
        numbers.append(_DEFAULT_BODY)
    return min((int(number) for number in numbers if _MIN_BYTES <= number < size), default=None)


def _named(pattern: re.Pattern[str], message: str) -> float | None:
    """The number that the first known wording in *message* names."""
    found = pattern.search(message)
    return read_number(found[found.lastindex or 0]) if found else None


def _names_rate(text: str) -> bool:
    """True if the words, and not merely an address to read on, are about a rate or a quota."""
    return _RATE.search(_URL.sub("", text)) is not None
