"""`--endpoint`: a known server by its name, or another one from a file."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from embedbatch.testing import ScriptedServer

from ..contract.loopback import serve_in_a_thread
from .commanding import TEXTS, call, write_corpus


@pytest.fixture
def server() -> ScriptedServer:
    """What listens at the address below."""
    return ScriptedServer()


@pytest.fixture
def address(server: ScriptedServer) -> Iterator[str]:
    """The address at which *server* listens, without a path."""
    with serve_in_a_thread(server) as base_url:
        yield base_url.removesuffix("/v1")


def test_a_run_takes_a_file_that_describes_the_server(server: ScriptedServer, address: str, tmp_path: Path) -> None:
    """Caps, encoding, fields and address are those of the file; the key comes from the variable that it names."""
    file = tmp_path / "server.json"
    description = {
        "name": "ours",
        "base_url": f"{address}/v1",
        "key_variable": "OPENAI_API_KEY",
        "max_inputs": 2,
        "encoding_format": "float",
        "extra_body": {"input_type": "passage"},
        "auth": "api-key: {key}",
        "notes": {"checked": "2026-11-23"},
    }
    file.write_text(json.dumps(description), encoding="utf-8")
    os.environ["OPENAI_API_KEY"] = "a key of ours"  # tests/conftest.py takes it out again

    result = call(
        "run", write_corpus(tmp_path / "c.jsonl"), "-o", tmp_path / "v.parquet", "--model", "m", "--endpoint", file
    )

    assert result.exit_code == 0, result.output
    assert pq.read_table(tmp_path / "v.parquet").num_rows == len(TEXTS)
    assert [len(request.inputs) for request in server.received] == [2, 2]
    for request in server.received:
        assert request.headers["api-key"] == "a key of ours"
        assert request.body["encoding_format"] == "float"
        assert request.body["input_type"] == "passage"
    assert "a key of ours" not in result.output


def test_a_run_takes_a_known_name(server: ScriptedServer, address: str, tmp_path: Path) -> None:
    """--endpoint tei with a host: the path and the key's header are known. Search asks in the same way afterwards."""
    destination = tmp_path / "v.parquet"
    given = ("--model", "m", "--endpoint", "tei", "--base-url", address)

    result = call("run", write_corpus(tmp_path / "c.jsonl"), "-o", destination, *given)
    found = call("search", destination, TEXTS[0])

    assert result.exit_code == found.exit_code == 0, result.output + found.output
    assert {request.url.rpartition("/v1")[2] for request in server.received} == {"/embeddings"}
    assert found.output.split()[1] == "1.000"


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ("tie", "endpoint: expected an Endpoint or one of azure, "),
        ("nowhere.json", "endpoint: cannot read nowhere.json: No such file"),
        ("vllm", "no address for vllm: pass base_url="),
        ("mistral", "no key for mistral: set MISTRAL_API_KEY"),
    ],
)
@pytest.mark.parametrize("command", ["run", "bench"])
def test_what_is_no_endpoint_ends_before_anything_is_sent(
    command: str, endpoint: str, message: str, tmp_path: Path
) -> None:
    """One line that says why, and exit status 2."""
    arguments = [write_corpus(tmp_path / "c.jsonl"), "-o", tmp_path / "v.parquet"] if command == "run" else []

    result = call(command, *arguments, "--model", "m", "--endpoint", endpoint)

    assert result.exit_code == 2
    assert message in result.output


def test_a_plan_needs_no_key_of_anybody(tmp_path: Path) -> None:
    """The caps of the known server count, nothing is sent."""
    corpus = write_corpus(tmp_path / "c.jsonl", [f"text {n}" for n in range(100)])

    result = call("plan", corpus, "--model", "m", "--endpoint", "dashscope", "--json", tmp_path / "plan.json")

    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "plan.json").read_text())["requests"] == 10
