"""The known servers: chosen by name, by file or by address, each with its key, its address and its source."""

from __future__ import annotations

import json
import pickle
import re
from pathlib import Path
from typing import Any

import pytest

from embedbatch.endpoints import (
    OPENAI,
    PRESETS,
    UNKNOWN,
    Endpoint,
    Target,
    as_mapping,
    choose,
    from_mapping,
    preset,
    read_endpoint,
    resolve,
)
from embedbatch.errors import ConfigurationError

KEY = "sk-secret-0123456789"
ENTRA = "eyJ0eXAiOiJKV1QifQ.eyJhdWQiOiJodHRwczovLyJ9.c2lnbmF0dXJl"
PLACE = "https://here.test/v1"
ISSUE = {
    *("openai", "azure", "azure-deployments", "one-api", "new-api", "vllm", "tei", "infinity", "ollama", "llama.cpp"),
    *("localai", "lm-studio", "litellm", "openrouter", "together", "fireworks", "deepinfra", "mistral", "jina"),
    *("voyage", "nomic", "nim", "gemini", "cohere", "cloudflare", "dashscope", "siliconflow", "vertex"),
}


def target(model: str = "a-model", *, environ: dict[str, str] | None = None, **given: Any) -> Target:
    arguments: dict[str, Any] = {"base_url": None, "api_key": None, "endpoint": None, "dimensions": None}
    return resolve(model, **arguments | given, environ=environ or {})


# Which one


def test_every_server_of_the_list_is_known() -> None:
    """Each row of the list of servers has a preset under its name, and each preset says where it is known from."""
    assert set(PRESETS) >= ISSUE
    for name, known in PRESETS.items():
        assert known.name == name
        assert re.match(r"[\w.][\w .,-]+: .{10,}", known.source), known.source


@pytest.mark.parametrize("name", ["llama.cpp", "llama-cpp", "LLaMA_CPP", " llamacpp "])
def test_a_name_may_be_written_in_many_ways(name: str) -> None:
    """Case, stops, blanks and dashes do not matter."""
    assert preset(name) is PRESETS["llama.cpp"]


@pytest.mark.parametrize("name", ["", "open ai 2", "tie"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    """A name that is none is a ConfigurationError with all that are."""
    with pytest.raises(ConfigurationError, match=r"endpoint: expected an Endpoint or one of .*mistral.*tei.*; got "):
        target(endpoint=name)


def test_something_else_is_no_endpoint() -> None:
    """Neither a mapping nor a number passes for one."""
    with pytest.raises(ConfigurationError, match="endpoint: expected an Endpoint or a name, got 5"):
        target(endpoint=5)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://api.mistral.ai/v1", "mistral"),
        ("https://API.Mistral.AI:443/v1", "mistral"),
        ("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://ws-1.ap-southeast-1.maas.aliyuncs.com/compatible-mode/v1", "dashscope"),
        ("https://my-resource.openai.azure.com/openai/v1", "azure"),
        ("https://my-resource.openai.azure.com", "azure"),
        ("https://my-resource.openai.azure.com/openai/deployments/d", "azure-deployments"),
        ("https://us-central1-aiplatform.googleapis.com/v1/projects/p/locations/l/endpoints/openapi", "vertex"),
        ("https://api.cloudflare.com/client/v4/accounts/a/ai/v1", "cloudflare"),
        ("https://openai.azure.com.evil.test/openai/v1", "openai-compatible"),
        ("https://notapi.mistral.ai.test/v1", "openai-compatible"),
        ("https://xapi.mistral.ai/v1", "openai-compatible"),
        ("http://localhost:8080/v1", "openai-compatible"),
    ],
)
def test_vendors_are_known_by_their_hosts(address: str, name: str) -> None:
    """The whole host decides, or its end where a vendor gives everyone a name below its own."""
    assert target(base_url=address, api_key=KEY).endpoint.name == name


def test_no_host_belongs_to_two() -> None:
    """No preset shadows another, but for the two URL forms of Azure, which the path tells apart."""
    hosts = [host for known in PRESETS.values() for host in known.hosts]

    assert len(hosts) == len(set(hosts))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_named_server_is_that_wherever_it_is(name: str) -> None:
    """endpoint= says what the server is and base_url= where: a known host does not change it."""
    found = target(endpoint=name, base_url="https://api.openai.com/v1", api_key=KEY)

    assert found.endpoint is PRESETS[name]


# Where


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"endpoint": "tei", "base_url": "http://h:8080"}, "http://h:8080/v1/embeddings"),
        ({"endpoint": "tei", "base_url": "http://h:8080/"}, "http://h:8080/v1/embeddings"),
        ({"endpoint": "tei", "base_url": "http://h:8080/v1"}, "http://h:8080/v1/embeddings"),
        ({"endpoint": "tei", "base_url": "http://h:8080/v1/embeddings"}, "http://h:8080/v1/embeddings"),
        ({"endpoint": "infinity", "base_url": "http://h:7997"}, "http://h:7997/embeddings"),
        ({"endpoint": "ollama"}, "http://localhost:11434/v1/embeddings"),
        ({"endpoint": "nomic"}, "https://api-atlas.nomic.ai/v1/embedding/text"),
        ({"base_url": "https://api.mistral.ai"}, "https://api.mistral.ai/v1/embeddings"),
        ({"endpoint": "gemini"}, "https://generativelanguage.googleapis.com/v1beta/openai/embeddings"),
        ({"base_url": "https://r.openai.azure.com"}, "https://r.openai.azure.com/openai/v1/embeddings"),
        ({"base_url": "https://r.openai.azure.com/openai/v1/"}, "https://r.openai.azure.com/openai/v1/embeddings"),
        (
            {"base_url": "https://r.openai.azure.com/openai/deployments/d"},
            "https://r.openai.azure.com/openai/deployments/d/embeddings?api-version=2024-10-21",
        ),
        (
            {"base_url": "https://r.openai.azure.com/openai/deployments/d/embeddings?api-version=2023-05-15"},
            "https://r.openai.azure.com/openai/deployments/d/embeddings?api-version=2023-05-15",
        ),
        (
            {"base_url": "https://r.openai.azure.com", "endpoint": "azure-deployments", "model": "my/d"},
            "https://r.openai.azure.com/openai/deployments/my%2Fd/embeddings?api-version=2024-10-21",
        ),
    ],
)
def test_a_host_is_enough(given: dict[str, Any], url: str) -> None:
    """A bare host is completed, a whole address is left as it is, and a query that is given is not given twice."""
    assert target(api_key=KEY, **{"model": "a-model", **given}).url == url


@pytest.mark.parametrize("name", ["tei", "vllm", "one-api", "cloudflare", "azure"])
def test_a_server_of_ones_own_needs_an_address(name: str) -> None:
    """A name without an address never leads to OpenAI: it is a ConfigurationError that says what to pass."""
    with pytest.raises(ConfigurationError, match=f"no address for {name}: pass base_url="):
        target(endpoint=name, api_key=KEY)


def test_the_environment_says_where_a_named_server_is() -> None:
    """OPENAI_BASE_URL is where a server of one's own is, AZURE_OPENAI_ENDPOINT where Azure is; vendors stay."""
    environ = {"OPENAI_BASE_URL": PLACE, "AZURE_OPENAI_ENDPOINT": "https://r.openai.azure.com/"}

    assert target(endpoint="tei", environ=environ).url == f"{PLACE}/embeddings"
    assert (
        target(endpoint="azure", api_key=KEY, environ=environ).url == "https://r.openai.azure.com/openai/v1/embeddings"
    )
    assert target(endpoint="mistral", api_key=KEY, environ=environ).url == "https://api.mistral.ai/v1/embeddings"


# Whose key


@pytest.mark.parametrize("known", [each for each in PRESETS.values() if each.key_variable], ids=lambda each: each.name)
def test_each_vendor_has_a_variable_for_its_key(known: Endpoint) -> None:
    """The key is found in the variable that the vendor documents; api_key= goes before it."""
    address = known.base_url or PLACE
    environ = {str(known.key_variable): KEY}

    assert target(endpoint=known.name, base_url=address, environ=environ).api_key == KEY
    assert target(endpoint=known.name, base_url=address, environ=environ, api_key="mine").api_key == "mine"


@pytest.mark.parametrize(
    "known", [each for each in PRESETS.values() if each.needs_key and each is not OPENAI], ids=lambda each: each.name
)
def test_openais_key_goes_to_nobody_else(known: Endpoint) -> None:
    """A vendor that needs a key is not sent OPENAI_API_KEY: the error names the right variable."""
    with pytest.raises(ConfigurationError, match=f"no key for {known.name}: ") as raised:
        target(endpoint=known.name, base_url=known.base_url or PLACE, environ={"OPENAI_API_KEY": KEY})

    assert known.key_variable is None or known.key_variable in str(raised.value)
    assert KEY not in str(raised.value)


def test_openais_variables_belong_together() -> None:
    """Where OPENAI_BASE_URL names another vendor, OPENAI_API_KEY is its key, unless its own variable is set."""
    environ = {"OPENAI_BASE_URL": "https://api.mistral.ai/v1", "OPENAI_API_KEY": KEY}

    assert target(environ=environ).api_key == KEY
    assert target(environ=environ | {"MISTRAL_API_KEY": "own"}).api_key == "own"


def test_a_key_may_be_a_callable() -> None:
    """What gives a key counts as one; anything else than a text or a callable is refused without being shown."""
    assert target(endpoint="mistral", api_key=lambda: KEY).api_key is not None
    with pytest.raises(ConfigurationError, match=r"^api_key: expected a text or a callable, got list") as raised:
        target(endpoint="mistral", api_key=[KEY])
    assert KEY not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "key", "header"),
    [
        ("openai", KEY, ("Authorization", f"Bearer {KEY}")),
        ("openai", ENTRA, ("Authorization", f"Bearer {ENTRA}")),
        ("azure", "0123456789abcdef0123456789abcdef", ("api-key", "0123456789abcdef0123456789abcdef")),
        ("azure", ENTRA, ("Authorization", f"Bearer {ENTRA}")),
        ("azure-deployments", ENTRA, ("Authorization", f"Bearer {ENTRA}")),
        ("azure-deployments", "eyJnodot", ("api-key", "eyJnodot")),
    ],
)
def test_the_key_has_its_header(name: str, key: str, header: tuple[str, str]) -> None:
    """Azure takes keys in a header of their own and Entra's tokens in the usual one; others take both in the latter."""
    assert PRESETS[name].auth_header(key) == header


def test_a_custom_header_is_a_pattern() -> None:
    """auth="X-Key: Token {key}" is the whole header; what no header can be is refused."""
    assert Endpoint(name="x", auth="X-Key: Token {key}").auth_header("k") == ("X-Key", "Token k")
    for wrong in ("Bearer {key}", "X-Key: none", "X Key: {key}", "X: {key}\r\nY: 1", "", None, 5):
        with pytest.raises(ConfigurationError, match=r"^auth: expected a header such as 'api-key: \{key\}', got "):
            Endpoint(name="x", auth=wrong)  # type: ignore[arg-type]


def test_a_meaning_is_one_of_those_there_are() -> None:
    """refusals= with an unknown meaning is refused by the word it is for."""
    with pytest.raises(ConfigurationError, match=r"refusals: expected one of rate, .* for 'quota_x', got 'money'"):
        Endpoint(name="x", refusals={"quota_x": "money"})  # type: ignore[dict-item]


# Files


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_an_endpoint_goes_through_a_file(name: str, tmp_path: Path) -> None:
    """What is written as JSON is read as the same endpoint, and holds only what differs from an unknown server."""
    path = tmp_path / "server.json"
    path.write_text(json.dumps(as_mapping(PRESETS[name])), encoding="utf-8")

    assert read_endpoint(path) == PRESETS[name] == choose(str(path))
    assert pickle.loads(pickle.dumps(PRESETS[name])) == PRESETS[name]
    assert as_mapping(UNKNOWN).keys() == {"name", "source"}


def test_notes_are_for_readers() -> None:
    """What is found out beside the fields may stand in the file too."""
    assert from_mapping({"name": "x", "max_inputs": 5, "notes": {"base64": "honoured"}}) == Endpoint(
        name="x", max_inputs=5
    )


def test_a_key_is_never_written() -> None:
    """The mapping of an endpoint with a key has none, and one with a key is not read."""
    assert KEY not in str(as_mapping(Endpoint(name="x", api_key=KEY)))
    with pytest.raises(ConfigurationError, match="expected fields of Endpoint other than api_key, got api_key"):
        from_mapping({"name": "x", "api_key": KEY})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expecting property name"),
        ("[1]", "expected an object with the fields of an Endpoint"),
        ("{}", "expected a name, got none"),
        ('{"name": "x", "max_inputs": "5"}', "max_inputs: expected an int of at least 1, got '5'"),
        ('{"name": "x", "max_input": 5}', "got max_input"),
        ('{"name": 5}', "name: got 5, which is of another kind"),
        ('{"name": "x", "token_arrays": "yes"}', "token_arrays: got 'yes', which is of another kind"),
        ('{"name": "x", "extra_body": []}', "extra_body: got"),
        ('{"name": "x", "hosts": "a"}', "hosts: got 'a'"),
        ('{"name": "x", "normalised": 1}', "normalised: got 1"),
        ('{"name": "x", "base_url": 1}', "base_url: got 1"),
        ('{"name": "x", "encoding_format": "hex"}', "expected 'base64', 'float' or None; got 'hex'"),
        ("[" * 100_000, "endpoint: "),
    ],
)
def test_a_file_that_is_no_endpoint_is_refused(text: str, message: str, tmp_path: Path) -> None:
    """Broken JSON, unknown fields and values of another kind are ConfigurationErrors that say which."""
    path = tmp_path / "server.json"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigurationError, match=re.escape(message)):
        read_endpoint(path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The error has the path and the reason."""
    with pytest.raises(ConfigurationError, match=r"endpoint: cannot read .*nothing\.json: No such file"):
        choose(str(tmp_path / "nothing.json"))
    assert choose(None) is None
