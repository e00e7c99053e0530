"""`Check`: what it finds out about servers with ways of their own, and what that costs them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import anyio
import numpy as np
import pybase64
import pytest

from embedbatch import ConfigurationError, Endpoint, RunStoppedError
from embedbatch.check import preset
from embedbatch.testing import Capacity, ProviderSimulator, Received, Scripted, ScriptedServer

from ..unit.checking import by_name, edit_vectors, error, make_check, openai_like, refuse

pytestmark = pytest.mark.anyio


async def found_at(server: Any, **options: Any) -> dict[str, Any]:
    """The values of what a check of *server* finds; it keeps to what it said it would send."""
    check = make_check(server, **options)
    most = check.at_most()
    findings = await check.run()
    assert check.requests <= most.requests
    if isinstance(server, ScriptedServer):
        assert check.requests == len(server.received)
        sent = [each for request in server.received if "input" in request.body for each in request.inputs]
        assert sum(len(each) + 1 for each in sent) <= most.tokens
        assert server.is_closed
    return by_name(findings)


async def test_a_server_that_keeps_the_contract() -> None:
    """Everything is as OpenAI has it."""
    found = await found_at(openai_like(dimensions=16))

    errors = found.pop("errors")
    assert found == {
        "dimensions": 16,
        "norm": 1.0,
        "order": "index",
        "text": True,
        "token_arrays": True,
        "float": "honoured",
        "base64": "honoured",
        "fewer_dimensions": "scaled",
        "more_dimensions": "refused",
        "inputs": {"accepted": 256, "refused": None},
        "long_text": "refused",
        "empty": False,
        "blank": True,
        "empty_beside": False,
        "usage": "tokens",
        "rate_headers": [],
        "model": "checked",
        "key": "checked",
    }
    assert errors["wrong_key"] == "401, {error: {message, type, param, code: null}}"


def halves(request: Received, item: dict[str, Any]) -> None:
    item["embedding"] = (np.array(item["embedding"]) / 2).tolist()


def big_endian(request: Received, item: dict[str, Any]) -> None:
    if isinstance(item["embedding"], str):
        numbers = np.frombuffer(pybase64.b64decode(item["embedding"]), "<f4")
        item["embedding"] = pybase64.b64encode_as_string(numbers.astype(">f4").tobytes())


def always_16(request: Received, item: dict[str, Any]) -> None:
    if "dimensions" in request.body:
        item["embedding"] = ScriptedServer().vector_of(request.inputs[item["index"]], 16).tolist()


def first_of_16(request: Received, item: dict[str, Any]) -> None:
    if "dimensions" in request.body:
        whole = ScriptedServer().vector_of(request.inputs[item["index"]], 16)
        item["embedding"] = whole[: request.body["dimensions"]].tolist()


def first_500(request: Received, item: dict[str, Any]) -> None:
    content = request.inputs[item["index"]]
    if isinstance(content, str) and "encoding_format" not in request.body:
        item["embedding"] = ScriptedServer().vector_of(content[:500], len(item["embedding"])).tolist()


def of_nan(request: Received, item: dict[str, Any]) -> None:
    if request.inputs[item["index"]] == " ":
        item["embedding"] = [None] * 16


@pytest.mark.parametrize(
    ("change", "name", "value"),
    [
        (halves, "norm", [0.5, 0.5]),
        (big_endian, "base64", "big-endian"),
        (always_16, "fewer_dimensions", "ignored"),
        (first_of_16, "fewer_dimensions", "cut"),
        (first_500, "long_text", "cut"),
        (of_nan, "blank", False),
        (lambda request, item: item.pop("index"), "order", "position"),
        (lambda request, item: item.update(index=0), "order", "position"),
    ],
)
async def test_a_way_of_its_own_is_found(change: Callable[..., None], name: str, value: object) -> None:
    """One thing is different in every vector, and that is what is found."""
    encodes: Literal["float", "as asked"] = "float" if change is halves else "as asked"
    server = edit_vectors(ScriptedServer(dimensions=16, encodes=encodes), change)
    refuse(server, lambda it: "input" not in it.body)

    assert (await found_at(server))[name] == value


async def test_shuffled_items_are_told_by_their_index() -> None:
    """The vectors are in another order, and each has the index of its text."""
    server = openai_like()
    server.edit(lambda request, body: {**body, "data": body["data"][::-1]})

    check = make_check(server)
    findings = {finding.name: finding for finding in await check.run()}

    assert findings["order"].value == "index"
    assert findings["order"].words == "index tells; the items come in another order"


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (error("base64 is not supported"), "refused"),
        (Scripted(body={"object": "list", "data": []}), "empty"),
        (Scripted(body={"object": "list", "data": [{"index": 0, "embedding": "!"}]}), "other"),
    ],
)
async def test_base64_may_be_refused_and_floats_are_the_preset(reply: Scripted, value: str) -> None:
    """What comes instead is told apart; the preset asks for floats."""
    server = openai_like()
    refuse(server, lambda it: it.body.get("encoding_format") == "base64", reply)
    check = make_check(server)

    findings = await check.run()

    assert by_name(findings)["base64"] == value
    given = preset(findings, check.answers, name="x", base_url=check.base_url)
    assert given["encoding_format"] == "float"
    assert given["needs_key"] is True


async def test_ignored_encodings_are_found() -> None:
    """A server that always sends numbers, and one that always sends base64."""
    assert (await found_at(openai_like(encodes="float")))["base64"] == "ignored"
    assert (await found_at(openai_like(encodes="base64")))["float"] == "ignored"


@pytest.mark.parametrize("announce", [True, False])
@pytest.mark.parametrize("cap", [1, 2, 10, 32, 100, 255, 256])
async def test_the_most_inputs_are_found(cap: int, announce: bool) -> None:
    """Exactly, whether the refusal names it or not; a name is tried and saves the search."""
    server = ProviderSimulator(max_inputs=cap, announce_caps=announce)
    check = make_check(server)

    found = by_name(await check.run())

    assert found["inputs"]["accepted"] == cap
    sizes = [record.inputs for record in server.requests[-9:]]
    if cap == 256:
        assert found["inputs"]["refused"] is None
    elif announce and cap > 1:
        assert sizes[-2:] == [256, cap]
    given = preset(check.findings(), check.answers, name="x", base_url="y")
    assert given.get("max_inputs") == (None if cap == 256 else cap)


@pytest.mark.parametrize(
    ("usage", "value"),
    [
        (lambda texts: sum(map(len, texts)), "characters"),
        (lambda texts: 3 * sum(map(len, texts)), "other"),
        (lambda texts: 0, "missing"),
    ],
)
async def test_usage_may_be_something_else(usage: Callable[[list[str]], int], value: str) -> None:
    """Characters, nothing, or nobody knows what."""
    server = openai_like()
    server.edit(lambda request, body: {**body, "usage": {"prompt_tokens": usage(request.inputs)}})

    assert (await found_at(server))["usage"] == value


async def test_a_first_request_that_fails_is_the_only_one() -> None:
    """A wrong key: one request, and the reason."""
    server = refuse(ScriptedServer(), lambda it: True, error("no such key", 401))

    with pytest.raises(RunStoppedError, match="the first request failed, and nothing was found out: 401: no such key"):
        await make_check(server).run()

    assert len(server.received) == 1
    assert server.is_closed


async def test_a_pause_is_kept_and_the_question_asked_again() -> None:
    """The first request gets a 429 for 20 seconds: nothing is sent meanwhile, and all is found."""
    server = openai_like()
    server.reply_next(Scripted(status=429, headers={"retry-after": "20"}))
    began_at = anyio.current_time()

    found = await found_at(server)

    assert found["base64"] == "honoured"
    assert anyio.current_time() - began_at >= 20


async def test_what_a_busy_server_leaves_open_is_not_taken_for_an_answer() -> None:
    """From the sixth request on it is busy: five questions are asked again, and nothing is said of the rest."""
    server = openai_like()
    server.reply_when(lambda it: Scripted(status=429) if it.number > 5 else None)
    check = make_check(server)

    findings = {finding.name: finding for finding in await check.run()}

    assert findings["float"].value == "honoured"
    assert findings["inputs"].value == {"accepted": 3, "refused": None}
    assert findings["long_text"].value is None
    assert findings["long_text"].words == "not known: 429, and no word"
    assert len(server.received) <= check.at_most().requests


async def test_a_pause_of_hours_is_not_waited_for() -> None:
    """The question stays open."""
    server = openai_like()
    server.reply_when(
        lambda it: Scripted(status=429, headers={"retry-after": "7200"}) if it.body.get("input") == [""] else None
    )
    began_at = anyio.current_time()

    found = await found_at(server)

    assert found["empty"] is None
    assert anyio.current_time() - began_at < 60


async def test_a_connection_that_breaks_is_asked_again() -> None:
    """As after an answer with 500, which some servers follow by closing."""
    server = openai_like()
    server.reply_next(Scripted(breaks="read"))

    assert (await found_at(server))["order"] == "index"


async def test_rate_headers_are_named() -> None:
    """Those about rates and none else."""
    server = openai_like()
    told = {"x-ratelimit-limit-requests": "3", "x-request-id": "1"}
    server.reply_when(lambda it: Scripted(headers=told) if it.number == 1 else None)

    assert (await found_at(server))["rate_headers"] == ["x-ratelimit-limit-requests"]


async def test_what_a_simulated_provider_refuses_is_found() -> None:
    """The one that this library ships: a server with a capacity of one, a cap on bytes, and no word about either."""
    server = ProviderSimulator(capacity=Capacity(workers=1), max_request_bytes=40_000, announce_caps=False)

    found = await found_at(server)

    assert found["long_text"] == "refused"
    assert found["order"] == "index"


@pytest.mark.parametrize("most", [0, 4_096])
async def test_a_size_that_cannot_be_tried_is_refused(most: int) -> None:
    """From 1 to what OpenAI takes."""
    with pytest.raises(ConfigurationError, match="max_inputs: expected 1 to 2,048"):
        make_check(ScriptedServer(), max_inputs=most)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b'{"data": 3}', b'{"data": [3]}', b"<html>", b"\xff", b"[" * 9_999]
)
async def test_nonsense_breaks_nothing(body: bytes) -> None:
    """Whatever comes after the first reply, with 200 or 400: everything has a finding, and none is good."""
    for status in (200, 400):
        server = ScriptedServer()
        server.reply_when(lambda it, status=status: Scripted(status=status, body=body) if it.number > 1 else None)

        found = await found_at(server)

        assert found["dimensions"] == 8
        assert found["text"] is found["token_arrays"] is found["empty"] is False


async def test_fields_are_called_as_the_endpoint_calls_them() -> None:
    """What every request needs is in it, and half of the dimensions are asked for by their other name."""
    server = openai_like(dimensions=16)
    endpoint = Endpoint(name="e", dimensions_field="output_dimension", extra_body={"input_type": "document"})

    await make_check(server, endpoint=endpoint).run()

    assert {request.body["input_type"] for request in server.received} == {"document"}
    assert [request.body["output_dimension"] for request in server.received if "output_dimension" in request.body] == [
        8,
        32,
    ]
    assert not any("dimensions" in request.body for request in server.received)
