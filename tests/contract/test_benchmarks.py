"""The benchmarks run, their server keeps the wire contract, and a wrong vector does not get past them."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pybase64
import pytest

from benchmarks.speed.__main__ import parts
from benchmarks.speed.case import Case, Outcome
from benchmarks.speed.delays import schedule
from benchmarks.speed.parts.latency import finish
from benchmarks.speed.report import BEGIN, END, Report, publish
from benchmarks.speed.tables import Verdict, ratio, seconds
from benchmarks.speed.vectors import Checker, WrongVectorError, choice, decimals, texts

ROOT = Path(__file__).parents[2]
DIMENSIONS = 8
OK = b"HTTP/1.1 200 OK"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """The load server, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.speed.server", "--dimensions", str(DIMENSIONS)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.stdin.close()


def ask(port: int, method: str, path: str, body: object = None, **headers: str) -> Any:
    """The JSON that the load server answers, or the status if it is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return json.loads(content) if response.status == 200 else response.status


def embed(port: int, inputs: object, **options: object) -> list[Any]:
    """The `embedding` of each input."""
    reply = ask(port, "POST", "/v1/embeddings", {"model": "bench", "input": inputs} | options)
    assert [item["index"] for item in reply["data"]] == list(range(len(reply["data"])))
    return [item["embedding"] for item in reply["data"]]


def converse(port: int, *sent: bytes, replies: int) -> bytes:
    """What comes back on one connection until so many replies have come."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        for part in sent:
            connection.sendall(part)
        received = b""
        while received.count(b'"usage"') < replies or not received.endswith(b"}}"):
            received += connection.recv(65_536)
        return received


def post(body: bytes, *headers: bytes) -> bytes:
    """A request as bytes; without *headers* it has a length."""
    lines = headers or (b"Content-Length: %d" % len(body),)
    return b"\r\n".join([b"POST /v1/embeddings HTTP/1.1", b"Host: bench", *lines, b"", body])


def made(value: float) -> Outcome:
    """A round in which something took *value* seconds."""
    return Outcome(seconds=value, cpu=value, server={}, versions={}, extra={})


# the whole ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_quick_run_measures_every_part(tmp_path: Path) -> None:
    """
    A quick run ends well, finds no wrong vector, and writes figures of every part, the verdicts and the picture.
    """
    figures, picture = tmp_path / "results.json", tmp_path / "chart.png"
    command = [sys.executable, "-m", "benchmarks.speed", "--quick", "--json", str(figures), "--chart", str(picture)]

    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert run.returncode == 0, run.stdout + run.stderr
    found = json.loads(figures.read_text())
    assert found["failures"] == {}
    assert list(found["parts"]) == [part.name for part in parts(quick=True)]
    assert all(found["parts"].values())
    assert len(found["verdicts"]) == len([verdict for part in parts(quick=True) for verdict in part.verdicts({})])
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_a_measurement_with_wrong_vectors_fails(port: int) -> None:
    """
    A process that gets vectors which are not those of its texts tells so, and ends with another status than 0.
    """
    case = Case(task="embed", client="embedbatch", texts=10, warm_up=1, dimensions=2 * DIMENSIONS)
    command = [sys.executable, "-m", "benchmarks.speed.worker", case.to_json(), f"http://127.0.0.1:{port}/v1"]

    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert run.returncode != 0
    assert "expected vectors of 16 numbers" in run.stderr


# checking -----------------------------------------------------------------------------------------------------


def test_the_vectors_of_their_texts_pass() -> None:
    """
    Arrays and lists of floats are compared alike, whatever the number of blocks.
    """
    asked = list(texts(3_000))
    vectors = decimals(DIMENSIONS)[[choice(text.encode()) for text in asked]]

    assert Checker(DIMENSIONS).check(asked, vectors.astype(np.float32)) == 3_000
    assert Checker(DIMENSIONS).check(asked, vectors.tolist()) == 3_000


@pytest.mark.parametrize("at", [0, 1_500, 2_998])
def test_two_vectors_that_changed_places_are_found(at: int) -> None:
    """
    A vector at the text beside its own is told, with the number of the text.
    """
    asked = list(texts(3_000))
    vectors = decimals(DIMENSIONS)[[choice(text.encode()) for text in asked]].astype(np.float32)
    vectors[[at, at + 1]] = vectors[[at + 1, at]]

    with pytest.raises(WrongVectorError, match=f"{at:,} is not that of its text"):
        Checker(DIMENSIONS).check(asked, vectors)


def test_a_missing_vector_is_found() -> None:
    """
    Fewer vectors than texts are told, and so is one that is not a number.
    """
    asked = list(texts(2))

    with pytest.raises(WrongVectorError, match="expected 2 vectors, got 1"):
        Checker(DIMENSIONS).check(asked, np.ones((1, DIMENSIONS), np.float32))
    with pytest.raises(WrongVectorError, match="not that of its text"):
        Checker(DIMENSIONS).check(asked, np.full((2, DIMENSIONS), np.nan, np.float32))


# the load server ----------------------------------------------------------------------------------------------


def test_base64_and_numbers_are_the_same_vectors(port: int) -> None:
    """
    Both forms give the float32 that the checksum of the text chooses.
    """
    asked = list(texts(5))

    packed = [np.frombuffer(pybase64.b64decode(each), "<f4") for each in embed(port, asked, encoding_format="base64")]

    assert np.array_equal(np.array(embed(port, asked), np.float32), np.array(packed))
    Checker(DIMENSIONS).check(asked, packed)


@pytest.mark.parametrize("inputs", ["a text", ["a text", "b"], [1, 2, 3], [[1, 2], [3]]], ids=str)
def test_every_form_of_input_is_answered(port: int, inputs: object) -> None:
    """
    A text and a token array have one vector, a list of either one for each.
    """
    alone = isinstance(inputs, str) or inputs == [1, 2, 3]

    assert len(embed(port, inputs)) == (1 if alone else 2)


def test_requests_that_arrive_together_are_answered_in_order(port: int) -> None:
    """
    Two requests in one packet, and one in many, get their replies one after the other, however they are framed.
    """
    one = post(b'{"input":["x"]}')
    chunked = post(b'6\r\n{"inpu\r\n9;x=y\r\nt":["yy"]\r\n1\r\n}\r\n0\r\n\r\n', b"Transfer-Encoding: chunked")
    last = [bytes([byte]) for byte in post(b'{"input":["zzz","zzz"]}')]

    received = converse(port, one + chunked, *last, replies=3)

    assert received.count(OK) == 3
    assert [part.count(b'"index"') for part in received.split(OK)[1:]] == [1, 1, 2]


def test_a_client_that_asks_first_is_told_to_continue(port: int) -> None:
    """
    `Expect: 100-continue` is answered before the body comes.
    """
    head, body = post(b"", b"Content-Length: 15", b"Expect: 100-continue"), b'{"input":["x"]}'
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(head)
        assert connection.recv(65_536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(body)
        assert connection.recv(65_536).startswith(OK)


def test_what_is_no_request_is_refused(port: int) -> None:
    """
    Broken JSON is a bad request and an unknown path is not found; the server goes on.
    """
    assert ask(port, "POST", "/v1/embeddings", "no object") == 400
    assert ask(port, "GET", "/else") == 404
    assert len(embed(port, "x")) == 1


def test_the_server_counts_and_delays(port: int) -> None:
    """
    After a reset the counts begin anew, and the k-th request waits for the k-th delay.
    """
    ask(port, "POST", "/reset", {"delays": [0.0, 0.05]})
    embed(port, ["x", "y"])
    embed(port, ["z"])

    stats = ask(port, "GET", "/stats")

    assert (stats["requests"], stats["inputs"], stats["most_in_flight"]) == (2, 3, 1)
    assert 0 < stats["largest_reply"] < stats["reply_bytes"]


# figures ------------------------------------------------------------------------------------------------------


def test_a_ratio_is_that_of_the_rounds() -> None:
    """
    A ratio is taken round by round, then its median: a slow moment of the machine hits both or is one of five.
    """
    ours, theirs = Case(task="embed", client="embedbatch"), Case(task="embed", client="baseten")
    results = {ours: list(map(made, [1, 10, 3])), theirs: list(map(made, [2, 20, 1]))}

    assert ratio(results, ours, theirs, seconds) == 0.5
    assert ratio({ours: [made(1)]}, ours, theirs, seconds) is None


def test_a_verdict_says_whether_its_bar_is_met() -> None:
    """
    A bar is a least or a most; without a figure there is no verdict.
    """
    verdicts = [Verdict("a", 5.0, 5), Verdict("b", 4.9, 5), Verdict("c", 4.9, 5, at_least=False), Verdict("d", None, 5)]

    assert [verdict.is_met for verdict in verdicts] == [True, False, True, None]


def test_the_schedule_is_the_same_for_every_client() -> None:
    """
    The delays come from the seed alone, and bound how soon anybody can be done.
    """
    ours, theirs = (
        Case(task="embed", client=client, texts=1_000, batch=16, in_flight=4, delays=7)
        for client in ("embedbatch", "baseten")
    )

    assert schedule(ours) == schedule(theirs)
    assert finish([1.0, 2.0, 1.0, 1.0], 4, places=2) == 3.0


def test_a_case_survives_its_way_to_another_process() -> None:
    """
    What is read from JSON is what was written, settings too.
    """
    case = Case(task="start", client="openai", settings=(("statement", "import openai"),))

    assert Case.from_json(case.to_json()) == case


def test_results_are_published_between_the_marks(tmp_path: Path) -> None:
    """
    Only what stands between the marks is written anew, however often.
    """
    page = tmp_path / "page.md"
    page.write_text(f"before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")

    publish(page, r"new \1")
    publish(page, r"newer \1")

    assert page.read_text() == f"before\n\n{BEGIN}\n\nnewer \\1\n\n{END}\n\nafter\n"


def test_the_front_page_shows_medians_of_the_ceiling() -> None:
    """
    Of the clients people know; those that were not measured have no line.
    """
    ceiling = {
        Case(task="embed", client="openai"): [replace(made(value), vectors=10) for value in (1.0, 2.0, 5.0)],
        Case(task="embed", client="embedbatch-fast"): [replace(made(0.5), vectors=10)],
        Case(task="embed", client="raw-decode"): [replace(made(0.1), vectors=10)],
    }

    lines = Report({}, {}, {"ceiling": ceiling}).headline().splitlines()

    assert lines[2:] == ["| embedbatch [fast] | 20 | 50,000 |", "| openai-python | 5 | 200,000 |"]
