"""The embedded model as an ASGI app: ``POST /v1/embeddings``, ``GET /v1/models``, and errors as OpenAI sends them."""

from __future__ import annotations

import hmac
import re
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import anyio.to_thread
import msgspec
import pybase64
from anyio import CapacityLimiter
from anyio.lowlevel import RunVar
from msgspec import Meta

from ..errors import ConfigurationError
from ..values import Vectors
from .model import VOCABULARY_SIZE, LocalModel, LocalTokenizer, TokenIds, load, normalised

MODEL = "local"
PATH = "/v1/embeddings"
MODELS_PATH = "/v1/models"
MAX_INPUTS = 2_048
MAX_BODY_BYTES = 8_000_000

_Message: TypeAlias = MutableMapping[str, Any]
_Receive: TypeAlias = Callable[[], Awaitable[_Message]]
_Send: TypeAlias = Callable[[_Message], Awaitable[None]]
_T = TypeVar("_T")


class LocalApp:
    """
    ``model="local"`` behind the wire contract, as an ASGI 3 app. Creating one is instant; the first request loads.

    With *api_key*, requests must carry it as ``Authorization: Bearer …``. Where the model is not installed, a valid
    request raises ``ConfigurationError`` out of the app: to the caller under httpx's ASGI transport, as a 500 under
    a server.
    """

    def __init__(self, *, api_key: str | None = None) -> None:
        if api_key == "":
            raise ConfigurationError("api_key: expected at least 1 character, got ''; leave it out to ask for no key")
        self._authorization = None if api_key is None else f"Bearer {api_key}".encode()
        # Of the event loop, not of the app: a limiter is not safe between loops in different threads.
        self._turn: RunVar[CapacityLimiter] = RunVar("embedbatch.local.turn")

    async def __call__(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)
        else:
            raise ValueError(f"expected an ASGI scope of type 'http' or 'lifespan', got {scope['type']!r}")

    async def _respond(self, scope: _Message, receive: _Receive, send: _Send) -> None:
        try:
            check_head(scope, self._authorization)
            body = await _read_body(receive)
            if body is None:
                return
            if scope["path"] == PATH:
                status, reply = 200, await anyio.to_thread.run_sync(answer, body, limiter=self._limiter())
            else:
                status, reply = 200, describe(scope["path"])
        except Refusal as refusal:
            status, reply = refusal.status, refusal.body()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(reply))]
        if status == 401:  # RFC 9110 demands these
            headers.append((b"www-authenticate", b"Bearer"))
        elif status == 405:
            headers.append((b"allow", method_for(scope["path"]).encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": reply})

    def _limiter(self) -> CapacityLimiter:
        limiter = self._turn.get(None)
        if limiter is None:
            # 1: the tokenizer uses every core for one request already.
            limiter = CapacityLimiter(1)
            self._turn.set(limiter)
        return limiter


async def _read_body(receive: _Receive) -> bytes | None:
    """The whole body, or ``None`` if the client went away; refuses as soon as it is too large."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        part = message.get("body", b"")
        parts.append(part)
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise Refusal(413, f"The body is too large: expected at most {MAX_BODY_BYTES:,} bytes.")
        if not message.get("more_body", False):
            return b"".join(parts)


async def _live(receive: _Receive, send: _Send) -> None:
    """Nothing to start or stop: say so when asked."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


# From here on: rules. Pure and synchronous, except that `answer` loads the model.


class Refusal(Exception):
    """A request that is answered with an error of OpenAI's shape."""

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> bytes:
        """The reply as JSON."""
        error = {"message": self.message, "type": "invalid_request_error", "param": self.param, "code": self.code}
        return msgspec.json.encode({"error": error})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    A request that is valid as far as can be told without the model.

    Either *texts* or *token_arrays* is empty. *dimensions* is 1 to 256.
    """

    texts: list[str]
    token_arrays: list[list[int]]
    dimensions: int
    encoding_format: Literal["float", "base64"]


class _Wire(msgspec.Struct):
    """The body as JSON has it. Unknown fields, *user* among them, are ignored."""

    model: str
    input: str | list[str | int | list[int]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Meta(ge=1, le=LocalModel.dimensions)] = LocalModel.dimensions


_Text = Annotated[str, Meta(min_length=1)]
_Texts = Annotated[list[_Text], Meta(max_length=MAX_INPUTS)]
_TokenArray = Annotated[list[Annotated[int, Meta(ge=0, lt=VOCABULARY_SIZE)]], Meta(min_length=1)]
_TokenArrays = Annotated[list[_TokenArray], Meta(max_length=MAX_INPUTS)]


def check_head(scope: _Message, authorization: bytes | None) -> None:
    """Raise ``Refusal`` for another path, another method, or a header that is not the demanded *authorization*."""
    path, method = scope["path"], scope["method"]
    if path not in (PATH, MODELS_PATH) and not path.startswith(f"{MODELS_PATH}/"):
        raise Refusal(404, f"Invalid URL ({method} {path}): expected {PATH} or {MODELS_PATH}.")
    if method != method_for(path):
        raise Refusal(405, f"Not allowed to {method} on {path}: expected {method_for(path)}.")
    if authorization is None:
        return
    given = dict(scope["headers"]).get(b"authorization", b"")
    if not given:
        raise Refusal(401, "You didn't provide an API key: expected a header Authorization: Bearer YOUR_KEY.")
    if not hmac.compare_digest(given, authorization):
        raise Refusal(401, "Incorrect API key provided.", code="invalid_api_key")


def method_for(path: str) -> str:
    """The one method that a *path* of this app takes."""
    return "POST" if path == PATH else "GET"


def describe(path: str) -> bytes:
    """The reply about the models, as JSON: all of them, or the one whose name ends *path*. Raises ``Refusal``."""
    model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "embedbatch"}
    if path == MODELS_PATH:
        return msgspec.json.encode({"object": "list", "data": [model]})
    _check_model(path.removeprefix(f"{MODELS_PATH}/"))
    return msgspec.json.encode(model)


def answer(body: bytes) -> bytes:
    """The reply to *body*, as JSON. Raises ``Refusal``, or ``ConfigurationError`` where there is no model."""
    request = read_request(body)
    model = load()
    tokens = tokenize(request, model.tokenizer)
    vectors = model.embed_tokens(tokens)
    if request.dimensions < model.dimensions:
        vectors = normalised(vectors[:, : request.dimensions])
    return write_reply(vectors, sum(map(len, tokens)), request.encoding_format)


def read_request(body: bytes) -> Request:
    """The request in *body*. Raises ``Refusal`` if it is not JSON or not a valid request."""
    try:
        wire = msgspec.json.decode(body, type=_Wire)
    except msgspec.ValidationError as error:
        field = re.search(r"(?:\$\.|required field `)(\w+)", str(error))
        raise Refusal(400, f"Invalid request: {error}.", param=field and field[1]) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, f"We could not parse the JSON body of your request: {error}.") from error
    _check_model(wire.model)
    texts: list[str] = []
    token_arrays: list[list[int]] = []
    match wire.input:  # The first element tells the form, the others have to agree.
        case []:
            raise Refusal(400, "Invalid 'input': expected at least 1 input, got an empty array.", param="input")
        case [int(), *_]:
            token_arrays = [_as(_TokenArray, wire.input)]
        case [list(), *_]:
            token_arrays = _as(_TokenArrays, wire.input)
        case str():
            texts = [_as(_Text, wire.input)]
        case _:
            texts = _as(_Texts, wire.input)
    return Request(
        texts=texts,
        token_arrays=token_arrays,
        dimensions=wire.dimensions,
        encoding_format=wire.encoding_format,
    )


def _check_model(name: str) -> None:
    if name != MODEL:
        message = f"The model `{name}` does not exist: expected `{MODEL}`."
        raise Refusal(404, message, param="model", code="model_not_found")


def _as(kind: type[_T], given: object) -> _T:
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise Refusal(400, f"Invalid 'input': {error}.", param="input") from error


def tokenize(request: Request, tokenizer: LocalTokenizer) -> Sequence[Sequence[int] | TokenIds]:
    """The token ids of each input. Raises ``Refusal`` if one is longer than the model takes."""
    # A text of megabytes would take seconds and a gigabyte to count, which is not needed to refuse it.
    for text in request.texts:
        least = tokenizer.least(len(text))
        if least > LocalModel.max_input_tokens:
            raise _too_long(f"at least {least}")
    tokens: list[Sequence[int] | TokenIds] = [*tokenizer.encode(request.texts), *request.token_arrays]
    for ids in tokens:
        if len(ids) > LocalModel.max_input_tokens:
            raise _too_long(str(len(ids)))
    return tokens


def _too_long(amount: str) -> Refusal:
    message = (
        f"This model's maximum context length is {LocalModel.max_input_tokens} tokens, however you requested {amount} "
        f"tokens ({amount} in your prompt; 0 for the completion). Please reduce your prompt; or completion length."
    )
    return Refusal(400, message, param="input")


def write_reply(vectors: Vectors, tokens: int, encoding_format: Literal["float", "base64"]) -> bytes:
    """The reply with *vectors*, a row for each input, and the number of *tokens* in all of them, as JSON."""
    embeddings = _in_base64(vectors) if encoding_format == "base64" else vectors.tolist()
    return msgspec.json.encode(
        {
            "object": "list",
            "data": [
                {"object": "embedding", "index": index, "embedding": embedding}
                for index, embedding in enumerate(embeddings)
            ],
            "model": MODEL,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _in_base64(vectors: Vectors) -> list[str]:
    return [pybase64.b64encode_as_string(vector.tobytes()) for vector in vectors.astype("<f4", copy=False)]
