"""
The real servers, each started when the first test asks for it and stopped after the last.

    infinity    infinity-emb on CPU, with a BERT that bert.py makes
    litellm     the LiteLLM proxy in front of it; `bert` has no limit, `bert-60` grants 60 requests a minute
    served      embedbatch serve
    gateway     what gateway.py says of one-api and new-api, in front of `served`
    llama       llama-cpp-python's server, where it is set up
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedbatch.version import VERSION

from . import bert
from .starting import KEY, ROOT, RealServer, free_port, python_of, started, versions

HERE = Path(__file__).parent
OFFLINE = {"HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "LITELLM_TELEMETRY": "False"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--record FILE``: write what ``embedbatch check`` finds at the servers into a file."""
    parser.addoption("--record", metavar="FILE", help="write what was measured at the servers into FILE")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test here needs a server."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.servers)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the servers' files and logs are."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="session")
def infinity(folder: Path) -> Iterator[RealServer]:
    python, port = python_of("infinity"), free_port()
    command = [
        *(python.with_name("infinity_emb"), "v2", "--host", "127.0.0.1", "--port", str(port), "--url-prefix", "/v1"),
        *("--engine", "torch", "--device", "cpu", "--model-id", bert.write_bert(folder / "bert")),
        *("--served-model-name", "bert", "--no-bettertransformer", "--no-model-warmup"),
    ]
    server = RealServer(
        name="infinity",
        about=versions(python, "infinity-emb", "torch", "transformers"),
        base_url=f"http://127.0.0.1:{port}/v1",
        model="bert",
        bad_input="x" * 130_000,
    )
    with started(command, server, folder / "infinity.log", OFFLINE):
        yield server


@pytest.fixture(scope="session")
def litellm(folder: Path, infinity: RealServer) -> Iterator[RealServer]:
    python, port = python_of("litellm"), free_port()
    config = folder / "litellm.yaml"
    config.write_text(_LITELLM.format(base_url=infinity.base_url, key=KEY))
    command = [python.with_name("litellm"), "--config", config, "--host", "127.0.0.1", "--port", str(port)]
    server = RealServer(
        name="litellm",
        about=f"{versions(python, 'litellm')} in front of {infinity.about}",
        base_url=f"http://127.0.0.1:{port}/v1",
        model="bert",
        bad_input=infinity.bad_input,
        origin=infinity,
    )
    with started(command, server, folder / "litellm.log", OFFLINE | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"}):
        yield server


_LITELLM = """
model_list:
  - model_name: bert
    litellm_params: {{model: openai/bert, api_base: "{base_url}", api_key: none}}
  - model_name: bert-60
    litellm_params: {{model: openai/bert, api_base: "{base_url}", api_key: none, rpm: 60}}
router_settings:
  optional_pre_call_checks: ["enforce_model_rate_limits"]
  num_retries: 0
litellm_settings:
  drop_params: true
  num_retries: 0
general_settings:
  master_key: {key}
"""


@pytest.fixture(scope="session")
def served(folder: Path) -> Iterator[RealServer]:
    port = free_port()
    server = RealServer(
        name="served",
        about=f"embedbatch {VERSION}",
        base_url=f"http://127.0.0.1:{port}/v1",
        model="local",
        bad_input="word " * 9_000,
    )
    command = [sys.executable, "-m", "embedbatch", "serve", "--port", str(port)]
    environment = {"EMBEDBATCH_API_KEY": KEY, "PYTHONPATH": str(ROOT)}
    with started(command, server, folder / "served.log", environment):
        yield server


@pytest.fixture(scope="session")
def gateway(folder: Path, served: RealServer) -> Iterator[RealServer]:
    port = free_port()
    server = RealServer(
        name="gateway",
        about=f"gateway.py, after one-api 8df4a26 and new-api ef8ae4d, in front of {served.about}",
        base_url=f"http://127.0.0.1:{port}/v1",
        model="local",
        bad_input=served.bad_input,
        origin=served,
    )
    command = [sys.executable, HERE / "gateway.py", "--port", str(port), "--upstream", served.base_url]
    with started(command, server, folder / "gateway.log", {"EMBEDBATCH_API_KEY": KEY, "PYTHONPATH": str(ROOT)}):
        yield server


@pytest.fixture(scope="session")
def llama(folder: Path) -> Iterator[RealServer]:
    python, port = python_of("llama"), free_port()
    model = folder / "bert.gguf"
    subprocess.run([python, HERE / "to_gguf.py", bert.write_bert(folder / "bert"), model], check=True)
    command = [
        *(python, "-m", "llama_cpp.server", "--host", "127.0.0.1", "--port", str(port), "--model", model),
        *("--model_alias", "bert", "--embedding", "true", "--verbose", "false"),
        *("--n_ctx", "512", "--n_batch", "512", "--n_threads", "1", "--n_threads_batch", "1"),
    ]
    server = RealServer(
        name="llama",
        about=versions(python, "llama-cpp-python"),
        base_url=f"http://127.0.0.1:{port}/v1",
        model="bert",
        bad_input=[5, 6],
        texts=200,
    )
    with started(command, server, folder / "llama.log"):
        yield server


REAL = ["served", "gateway", "infinity", "litellm", "llama"]


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest) -> RealServer:
    """Each of the servers."""
    server: RealServer = request.getfixturevalue(request.param)
    return server
