"""
How the known servers behave, as far as a client can see: the rows of the contract's matrix, played by a scripted one.

What no source says is played as OpenAI does it. `embedbatch/endpoints/presets.py` has the sources.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import pybase64

from embedbatch.testing import Received, Scripted, ScriptedServer

Shape = Callable[[int, str], Any]

TOO_LONG = "too long: "  # a text that begins so is longer than the model takes


def nested(status: int, message: str) -> Any:
    """OpenAI, and most who follow it."""
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}}


def nested_with_number(status: int, message: str) -> Any:
    """llama.cpp, infinity, Gemini."""
    return {"error": {"code": status, "message": message, "type": "server_error"}}


def flat(status: int, message: str) -> Any:
    """text-embeddings-inference."""
    return {"message": message, "code": status, "type": "Validation"}


def flat_object(status: int, message: str) -> Any:
    """Mistral, older vLLM."""
    return {"object": "error", "message": message, "type": "invalid_request_error", "param": None, "code": None}


def detail(status: int, message: str) -> Any:
    """Voyage, Jina."""
    return {"detail": message}


def details(status: int, message: str) -> Any:
    """FastAPI's validation: DeepInfra."""
    return {"detail": [{"loc": ["body", "input"], "msg": message, "type": "value_error"}]}


def numbered(status: int, message: str) -> Any:
    """SiliconFlow."""
    return {"code": 20015, "message": message, "data": None}


def envelope(status: int, message: str) -> Any:
    """Cloudflare."""
    return {"result": None, "success": False, "errors": [{"code": 5006, "message": message}], "messages": []}


def message_alone(status: int, message: str) -> Any:
    """Cohere."""
    return {"message": message}


def with_ids(status: int, message: str) -> Any:
    """DashScope."""
    return {"error": {"message": message, "type": "invalid_request_error"}, "id": "x", "request_id": "x"}


@dataclass(frozen=True, kw_only=True)
class Habits:
    """
    What a server does: caps and the words that name them, encodings, sizes, token arrays, usage, and its errors.

    *too_long* is what a text above the model's limit brings: a status and words, or ``None`` if it is cut in silence.
    *arrays* are taken, refused with words, or dropped. *busy* is what it says when it has too much to do.
    """

    shape: Shape = nested
    path: str = "/embeddings"
    max_inputs: int | None = None
    too_many: tuple[int, str] = (400, "Too many inputs")
    arrays: bool | tuple[int, str] | Literal["dropped"] = True
    base64: Literal["honoured", "ignored", "empty"] | tuple[int, str] = "honoured"
    refuses_float: bool = False
    encoding_field: str = "encoding_format"
    dimensions_field: str | None = "dimensions"
    too_long: tuple[int, str] | None = (400, "This model's maximum context length is 8192 tokens")
    usage: Literal["both", "total", "absent", "zero", "characters"] = "both"
    index: Literal["right", "backwards", "absent"] = "right"
    bare: bool = False
    needs: tuple[str, ...] = ()
    busy: Scripted = field(default_factory=lambda: Scripted(status=429, headers={"retry-after": "1"}))
    headers: Mapping[str, str] = field(default_factory=dict)


class KnownServer(ScriptedServer):
    """Behaves by *habits*; counts what it *refused*."""

    def __init__(self, habits: Habits) -> None:
        super().__init__()
        self.habits = habits
        self.refused: list[Received] = []
        self.reply_when(self._rule)
        self.edit(self._dress)

    def _rule(self, request: Received) -> Scripted | None:
        words = self._objection(request)
        if words is None:
            return Scripted(headers=self.habits.headers) if self.habits.headers else None
        self.refused.append(request)
        status, message = words
        return Scripted(status=status, body=self.habits.shape(status, message), headers=self.habits.headers)

    def _objection(self, request: Received) -> tuple[int, str] | None:
        habits, inputs = self.habits, request.inputs
        encoding = request.body.get(habits.encoding_field)
        missing = [name for name in habits.needs if name not in request.body]
        if missing or not request.url.partition("?")[0].endswith(habits.path):
            return (400, f"'{missing[0]}' parameter is required") if missing else (404, "no such path")
        if habits.max_inputs is not None and len(inputs) > habits.max_inputs:
            status, message = habits.too_many
            return status, message.format(count=len(inputs), most=habits.max_inputs)
        if isinstance(habits.base64, tuple) and encoding == "base64":
            return habits.base64
        if habits.refuses_float and encoding == "float":
            return 400, "Value 'float' supplied for argument 'encoding_format' is not valid"
        if isinstance(habits.arrays, tuple) and not isinstance(inputs[0], str):
            return habits.arrays
        if habits.too_long and any(isinstance(text, str) and text.startswith(TOO_LONG) for text in inputs):
            return habits.too_long
        return None

    def _dress(self, request: Received, body: dict[str, Any]) -> dict[str, Any]:
        habits, asked = self.habits, request.body
        size = asked.get(habits.dimensions_field) if habits.dimensions_field else None
        packed = asked.get(habits.encoding_field) == "base64" and habits.base64 == "honoured"
        vectors = [self.vector_of(content, size) for content in request.inputs]
        embeddings = [pybase64.b64encode_as_string(row.tobytes()) if packed else row.tolist() for row in vectors]
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(embeddings)]
        if habits.arrays == "dropped" and not isinstance(request.inputs[0], str):
            data = []
        if habits.base64 == "empty" and asked.get(habits.encoding_field) == "base64":
            data = []
        if habits.index == "backwards":
            data.reverse()
        elif habits.index == "absent":
            data = [{"embedding": item["embedding"]} for item in data]
        total = body["usage"]["total_tokens"]
        usages: dict[str, Any] = {
            "both": {"usage": {"prompt_tokens": total, "total_tokens": total}},
            "total": {"usage": {"total_tokens": total}},
            "zero": {"usage": {"prompt_tokens": 0, "total_tokens": 0}},
            "characters": {"usage": dict.fromkeys(("prompt_tokens", "total_tokens"), sum(map(len, request.inputs)))},
            "absent": {},
        }
        if habits.bare:
            return {"embeddings": embeddings, "model": "m", **usages[habits.usage]}
        return {"object": "list", "data": data, "model": "m", **usages[habits.usage]}


_OPENAI_BUSY = Scripted(
    status=429,
    headers={"x-ratelimit-limit-requests": "3000", "x-ratelimit-remaining-requests": "0", "retry-after": "1"},
    body={"error": {"message": "Rate limit reached", "type": "requests", "code": "rate_limit_exceeded"}},
)
_GATEWAY_BUSY = Scripted(
    status=429, body={"error": {"message": "当前分组上游负载已饱和，请稍后再试", "type": "one_api_error"}}
)
_STRANGE_RATES = {"x-ratelimit-limit-requests": "1", "x-ratelimit-remaining-requests": "1"}

KNOWN: dict[str, Habits] = {
    "openai": Habits(max_inputs=2_048, busy=_OPENAI_BUSY),
    "azure": Habits(max_inputs=2_048, busy=Scripted(status=429, headers={"retry-after-ms": "1500"})),
    "azure-deployments": Habits(max_inputs=2_048, busy=Scripted(status=429, headers={"retry-after-ms": "1500"})),
    "one-api": Habits(arrays="dropped", usage="zero", busy=_GATEWAY_BUSY, headers=_STRANGE_RATES),
    "new-api": Habits(arrays="dropped", usage="absent", busy=Scripted(status=429), headers=_STRANGE_RATES),
    "litellm": Habits(arrays="dropped", base64="ignored"),
    "openrouter": Habits(
        shape=nested_with_number, path="/api/v1/embeddings", arrays="dropped", base64="empty", usage="absent"
    ),
    "vllm": Habits(shape=flat_object, too_long=(400, "This model's maximum context length is 512 tokens")),
    "tei": Habits(
        shape=flat,
        max_inputs=32,
        too_many=(422, "batch size {count} > maximum allowed batch size {most}"),
        too_long=None,
        busy=Scripted(status=429, body={"message": "Model is overloaded", "code": 429, "type": "Overloaded"}),
    ),
    "infinity": Habits(
        shape=details,
        max_inputs=2_048,
        arrays=(422, "Input should be a valid string"),
        too_long=None,
        usage="characters",
    ),
    "ollama": Habits(
        arrays=(400, "invalid input type"),
        too_long=None,
        busy=Scripted(
            status=503, body={"error": {"message": "server busy, please try again. maximum pending requests"}}
        ),
    ),
    "llama.cpp": Habits(
        shape=nested_with_number,
        dimensions_field=None,
        too_long=(500, "input is too large to process. increase the physical batch size"),
        busy=Scripted(status=503, body={"error": {"code": 503, "message": "Loading model", "type": "unavailable"}}),
    ),
    "llama-cpp-python": Habits(
        shape=lambda status, message: {"error": {"message": message, "type": "internal_server_error"}},
        arrays=(500, "[{'type': 'string_type', 'msg': 'Input should be a valid string'}]"),
        base64="ignored",
        dimensions_field=None,
        too_long=None,
    ),
    "localai": Habits(usage="absent"),
    "lm-studio": Habits(
        shape=lambda status, message: {"error": message},
        arrays=(400, "'input' field must be a string or an array of strings"),
        base64="ignored",
    ),
    "together": Habits(base64=(400, "encoding_format is not supported"), usage="absent", dimensions_field=None),
    "fireworks": Habits(max_inputs=2_048),
    "deepinfra": Habits(
        shape=details,
        max_inputs=1_024,
        arrays=(422, "Input should be a valid string"),
    ),
    "mistral": Habits(
        shape=flat_object,
        max_inputs=256,
        too_many=(400, "Too many inputs in request, split into more batches."),
        dimensions_field="output_dimension",
        headers={"mistral-correlation-id": "m-1"},
    ),
    "jina": Habits(
        shape=detail,
        max_inputs=512,
        too_many=(400, "input list can contain at most 512 items"),
        encoding_field="embedding_type",
        usage="total",
        index="backwards",
    ),
    "voyage": Habits(
        shape=detail,
        max_inputs=1_000,
        too_many=(400, "The batch size limit is 1000."),
        refuses_float=True,
        dimensions_field="output_dimension",
        usage="total",
        needs=("truncation",),
    ),
    "nomic": Habits(
        shape=detail,
        path="/v1/embedding/text",
        max_inputs=50,
        dimensions_field="dimensionality",
        bare=True,
        too_long=None,
        needs=("texts", "task_type"),
    ),
    "nim": Habits(
        shape=flat_object,
        arrays=(422, "Input should be a valid string"),
        needs=("input_type",),
        too_long=(400, "Input length 600 exceeds maximum allowed token size 512"),
    ),
    "gemini": Habits(
        shape=nested_with_number,
        path="/v1beta/openai/embeddings",
        max_inputs=100,
        too_many=(400, "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch"),
        base64=(400, "Invalid value at 'encoding_format'"),
        usage="absent",
        too_long=None,
    ),
    "vertex": Habits(
        max_inputs=250,
        too_many=(400, "{most} instance(s) is allowed per prediction. Actual: {count}"),
        base64=(400, "encoding_format must be float"),
    ),
    "cohere": Habits(
        shape=message_alone,
        max_inputs=96,
        too_many=(400, "invalid request: total number of texts must be at most 96 - received {count}"),
        too_long=None,
    ),
    "cloudflare": Habits(shape=envelope, max_inputs=100, too_many=(400, "maximum batch size is 100"), too_long=None),
    "dashscope": Habits(
        shape=with_ids,
        max_inputs=10,
        too_many=(400, "<400> batch size is invalid, it should not be larger than 10.: input.contents"),
        base64=(400, "encoding_format: only float is supported"),
    ),
    "siliconflow": Habits(
        shape=numbered,
        max_inputs=32,
        too_many=(413, "input batch size {count} > maximum allowed batch size {most}"),
        too_long=(400, "input must have less than 512 tokens"),
    ),
    "sambanova": Habits(
        busy=Scripted(status=429, body={"error": {"message": "slow", "code": "insufficient_quota", "type": "x"}})
    ),
}
