"""
What the gateways one-api and new-api do to requests and replies, in front of a server: contract.md's B3 by its sources.

    python gateway.py --port 3000 --upstream http://127.0.0.1:8000/v1      the key is EMBEDBATCH_API_KEY

Read in songquanpeng/one-api 8df4a26 (middleware/{auth,distributor,utils,rate-limit}.go, controller/relay.go,
relay/controller/{text,error,helper}.go, relay/adaptor/openai/main.go, relay/model/general.go) and in
Calcium-Ion/new-api ef8ae4d (middleware/model-rate-limit.go). Users, tokens and channels are not kept: which of their
conditions holds is told by the model's name.

    NAME                  as the upstream has it
    NAME/busy             the upstream channel is at its limit, every fourth time
    NAME/wrapped          the upstream sends an error with status 200, every fourth time
    NAME/ali              a channel that is not OpenAI's: of the input only texts are kept, in order
    NAME/no-channel       no channel has the model
    NAME/no-quota         the user has no quota left
    NAME/broken           the upstream's edge answers with a page of HTML, every fourth time
    NAME/limited          the gateway's own limit by address is reached, every fourth time
    NAME/two-objects      new-api's limit on a user's requests is reached, and it does not stop there, every fourth time
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from typing import Any, NamedTuple

import httpx
import uvicorn

_SATURATED = "当前分组上游负载已饱和，请稍后再试"
_TOO_OFTEN = "您已达到总请求数限制：1分钟内最多请求60次，包括失败次数，请检查您的请求是否正确"


class Reply(NamedTuple):
    """What comes back from the upstream, or goes out."""

    status: int
    body: bytes
    headers: dict[str, str]


class Gateway:
    """The gateway as an ASGI app, for whoever has its *key*."""

    def __init__(self, upstream: str, key: str) -> None:
        self._upstream = upstream
        self._key = key
        self._client = httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_keepalive_connections=0))
        self._seen: Counter[str] = Counter()
        self._requests = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        self._requests += 1
        reply = await self._answer(scope, body, f"20261122{self._requests:014}")
        headers = [(name.lower().encode(), value.encode()) for name, value in reply.headers.items()]
        headers.append((b"content-length", b"%d" % len(reply.body)))
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Any, body: bytes, request_id: str) -> Reply:
        if scope["path"] != "/v1/embeddings":
            message = f"Invalid URL ({scope['method']} {scope['path']})"
            error = {"message": message, "type": "invalid_request_error", "param": "", "code": ""}
            return _json(404, {"error": error})
        # middleware/auth.go: TokenAuth cuts "Bearer " and "sk-" off, and takes what stands before the next hyphen.
        given = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        if _token(given) != _token(f"Bearer {self._key}"):
            return _abort(401, "无效的令牌" if given else "未提供令牌", request_id)
        try:
            asked = json.loads(body)
            name, _, condition = asked["model"].partition("/")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return _abort(400, str(error), request_id)
        self._seen[asked["model"]] += 1
        now = self._seen[asked["model"]] % 4 == 2
        if condition == "no-channel":  # middleware/distributor.go
            return _abort(503, f"当前分组 default 下对于模型 {asked['model']} 无可用渠道", request_id)
        if condition == "no-quota":  # relay/controller/helper.go, through openai.ErrorWrapper
            return _relay_error(403, _wrap("user quota is not enough", "insufficient_user_quota"), request_id)
        if condition == "limited" and now:  # middleware/rate-limit.go: c.Status(429); c.Abort()
            return Reply(429, b"", {})
        reply = await self._ask_upstream(asked, name, condition, now)
        relayed = _relay(reply, request_id)
        if condition == "two-objects" and now:  # model-rate-limit.go: no return after the first
            first = _abort(429, _TOO_OFTEN, request_id, kind="new_api_error")
            return first._replace(body=first.body + relayed.body)
        return relayed

    async def _ask_upstream(self, asked: Any, name: str, condition: str, now: bool) -> Reply:
        if now and condition == "busy":
            limits = {"x-ratelimit-limit-requests": "3", "x-ratelimit-remaining-requests": "0"}
            error = {"message": "Rate limit reached", "type": "requests", "param": None, "code": "rate_limit_exceeded"}
            return _json(429, {"error": error}, {"retry-after": "1", **limits})
        if now and condition == "wrapped":
            error = {"message": "upstream is in trouble", "type": "server_error", "param": "", "code": None}
            return _json(200, {"error": error})
        if now and condition == "broken":
            return Reply(502, b"<html><h1>502 Bad Gateway</h1></html>", {"content-type": "text/html"})
        # What GeneralOpenAIRequest or new-api's EmbeddingRequest does not name is lost when it is written anew.
        kept = {field: asked[field] for field in ("input", "encoding_format", "dimensions", "user") if asked.get(field)}
        if condition == "ali" and isinstance(kept.get("input"), list):  # ParseInput
            kept["input"] = [item for item in kept["input"] if isinstance(item, str)]
        headers = {"authorization": f"Bearer {self._key}"}
        try:
            response = await self._client.post(
                f"{self._upstream}/embeddings", json={"model": name, **kept}, headers=headers
            )
        except httpx.TransportError:
            return _json(500, {"error": _wrap("请求上游地址失败", "do_request_failed")})
        return Reply(response.status_code, response.content, dict(response.headers))


def _relay(reply: Reply, request_id: str) -> Reply:
    """relay/controller/text.go: what becomes of the upstream's reply."""
    if reply.status != 200:
        return _relay_error(reply.status, _read_error(reply), request_id)
    try:
        found = json.loads(reply.body)
    except ValueError as error:
        return _relay_error(500, _wrap(str(error), "unmarshal_response_body_failed"), request_id)
    if (found.get("error") or {}).get("type"):  # openai/main.go: Handler, with the status of the upstream, which is 200
        return _relay_error(200, found["error"], request_id)
    # All headers of the upstream are copied, those about its own rates too.
    dropped = ("content-length", "transfer-encoding", "connection")
    return reply._replace(headers={name: value for name, value in reply.headers.items() if name not in dropped})


def _read_error(reply: Reply) -> dict[str, Any]:
    """RelayErrorHandler: an error of OpenAI's shape is kept, and of anything else little remains."""
    status = str(reply.status)
    error = {"message": "", "type": "upstream_error", "param": status, "code": "bad_response_status_code"}
    try:
        found = json.loads(reply.body)
    except ValueError:
        return error
    inner = found.get("error")
    if isinstance(inner, dict) and inner.get("message"):
        return {name: inner.get(name) or "" for name in ("message", "type", "param")} | {"code": inner.get("code")}
    error["message"] = found.get("message") or found.get("msg") or f"bad response status code {status}"
    return error


def _relay_error(status: int, error: dict[str, Any], request_id: str) -> Reply:
    """controller/relay.go: Relay. The words of a 429, and its headers with the time to wait, are lost."""
    message = _SATURATED if status == 429 else error["message"]
    return _json(status, {"error": {**error, "message": f"{message} (request id: {request_id})"}})


def _abort(status: int, message: str, request_id: str, kind: str = "one_api_error") -> Reply:
    """middleware/utils.go: abortWithMessage."""
    return _json(status, {"error": {"message": f"{message} (request id: {request_id})", "type": kind}})


def _wrap(message: str, code: str) -> dict[str, Any]:
    """relay/adaptor/openai/util.go: ErrorWrapper."""
    return {"message": message, "type": "one_api_error", "param": "", "code": code}


def _json(status: int, body: object, headers: dict[str, str] | None = None) -> Reply:
    kind = {"content-type": "application/json; charset=utf-8"}
    return Reply(status, json.dumps(body, ensure_ascii=False).encode(), kind | (headers or {}))


def _token(authorization: str) -> str:
    return authorization.removeprefix("Bearer ").removeprefix("sk-").partition("-")[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    arguments = parser.parse_args()
    app = Gateway(arguments.upstream, os.environ["EMBEDBATCH_API_KEY"])
    uvicorn.run(app, port=arguments.port, lifespan="off", log_level="warning", access_log=False)
