"""Where a run goes: from the arguments, then the environment, and refused before anything is sent."""

from __future__ import annotations

from typing import Any

import pytest

from embedbatch.endpoints import LOCAL, OPENAI, UNKNOWN, Endpoint, Target, resolve
from embedbatch.errors import ConfigurationError

KEY = "sk-secret-0123456789"
SMALL = "text-embedding-3-small"


def target(model: str = SMALL, *, environ: dict[str, str] | None = None, **given: Any) -> Target:
    arguments: dict[str, Any] = {"base_url": None, "api_key": None, "endpoint": None, "dimensions": None}
    return resolve(model, **arguments | given, environ=environ or {})


# Which endpoint


def test_a_key_is_all_that_openai_needs() -> None:
    """With OPENAI_API_KEY set, a model's name leads to api.openai.com and what is known of it: 1,536 numbers."""
    found = target(environ={"OPENAI_API_KEY": KEY})

    assert found.endpoint is OPENAI
    assert found.url == "https://api.openai.com/v1/embeddings"
    assert (found.api_key, found.dimensions, found.max_input_tokens) == (KEY, 1_536, 8_192)


def test_arguments_go_before_the_environment() -> None:
    """api_key= and base_url= are used although both variables are set; an empty one counts as not given."""
    environ = {"OPENAI_API_KEY": "other", "OPENAI_BASE_URL": "https://other.test/v1"}

    found = target(environ=environ, api_key=KEY, base_url="https://mine.test/v1")
    assert (found.api_key, found.url) == (KEY, "https://mine.test/v1/embeddings")
    found = target(environ=environ, api_key="", base_url="")
    assert (found.api_key, found.url) == ("other", "https://other.test/v1/embeddings")


def test_an_endpoints_own_address_goes_before_the_environment() -> None:
    """endpoint= says where, unless base_url= does; only without either OPENAI_BASE_URL counts."""
    mine = Endpoint(name="mine", base_url="https://mine.test/v1")
    environ = {"OPENAI_BASE_URL": "https://other.test/v1"}

    assert target(environ=environ, endpoint=mine).url == "https://mine.test/v1/embeddings"
    assert target(environ=environ, endpoint=mine, base_url="https://b.test").url == "https://b.test/embeddings"
    assert target(environ=environ, endpoint=Endpoint(name="x")).url == "https://other.test/v1/embeddings"
    assert target(environ=environ).endpoint is UNKNOWN


@pytest.mark.parametrize(
    ("base_url", "endpoint"),
    [
        ("https://api.openai.com/v1", OPENAI),
        ("https://API.OpenAI.com:443/v1/", OPENAI),
        ("https://api.openai.com.evil.test/v1", UNKNOWN),
        ("https://evil.test/api.openai.com", UNKNOWN),
        ("https://api.openai.com@evil.test/v1", UNKNOWN),
        ("http://localhost:8000/v1", UNKNOWN),
        ("http://[::1]:8000/v1", UNKNOWN),
    ],
)
def test_openai_is_known_by_its_host(base_url: str, endpoint: Endpoint) -> None:
    """The host decides whose limits apply, not what an address has elsewhere."""
    assert target(base_url=base_url, api_key=KEY).endpoint is endpoint


def test_a_server_of_ones_own_needs_no_key() -> None:
    """With base_url= nobody asks for a key; one in the environment is used, as the openai package does."""
    assert target(base_url="http://localhost:8000/v1").api_key is None
    assert target(base_url="http://localhost:8000/v1", environ={"OPENAI_API_KEY": KEY}).api_key == KEY


@pytest.mark.parametrize("environ", [{}, {"OPENAI_API_KEY": ""}])
@pytest.mark.parametrize(
    "given", [{}, {"api_key": ""}, {"base_url": "https://api.openai.com/v1"}, {"endpoint": OPENAI}]
)
def test_a_missing_key_names_the_variable(environ: dict[str, str], given: dict[str, Any]) -> None:
    """Without a key for OpenAI the error names OPENAI_API_KEY, api_key=, base_url= and model="local"."""
    with pytest.raises(ConfigurationError, match=r"^no key for openai: set OPENAI_API_KEY or pass api_key=") as raised:
        target(environ=environ, **given)
    assert "base_url=" in str(raised.value)
    assert 'model="local"' in str(raised.value)


def test_the_local_model_needs_nothing_and_tells_nobody() -> None:
    """model="local" is the embedded model, whatever the environment says, and no key is passed on."""
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "https://other.test/v1"}
    for found in (target("local"), target("local", environ=environ), target("local", api_key=KEY)):
        assert found.endpoint is LOCAL
        assert found.api_key is None
        assert found.url == "http://embedbatch.local/v1/embeddings"
        assert (found.dimensions, found.max_input_tokens) == (256, 8_192)


def test_a_model_named_local_may_live_elsewhere() -> None:
    """With base_url=, model="local" is that server's model."""
    found = target("local", base_url="http://localhost:8000/v1", api_key=KEY)

    assert (found.endpoint, found.url) == (UNKNOWN, "http://localhost:8000/v1/embeddings")


@pytest.mark.parametrize("model", ["", None, 5, ["m"], b"m"])
def test_a_model_has_a_name(model: Any) -> None:
    """An empty name, or something else than a text, is refused."""
    with pytest.raises(ConfigurationError, match=r"^model: expected a name, got "):
        target(model, api_key=KEY)


# The address


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://a.test/v1", "https://a.test/v1/embeddings"),
        ("https://a.test/v1/", "https://a.test/v1/embeddings"),
        ("https://a.test/v1///", "https://a.test/v1/embeddings"),
        ("https://a.test", "https://a.test/embeddings"),
        ("https://a.test/", "https://a.test/embeddings"),
        ("https://a.test/d?api-version=1", "https://a.test/d/embeddings?api-version=1"),
    ],
)
def test_one_slash_joins_address_and_path(base_url: str, url: str) -> None:
    """With or without slashes at its end, or with a query, an address and "/embeddings" are joined by one slash."""
    assert target(base_url=base_url).url == url
    assert target(endpoint=Endpoint(name="x", base_url=base_url)).url == url


@pytest.mark.parametrize("given", [{}, {"endpoint": Endpoint(name="x")}])
@pytest.mark.parametrize("base_url", ["http://[::1", "https://[bad]/v1", 5])
def test_an_address_that_cannot_be_read_is_refused(base_url: Any, given: dict[str, Any]) -> None:
    """An address that is none is a ConfigurationError that shows it, with a known endpoint and without."""
    with pytest.raises(ConfigurationError, match=r"^base_url: expected an http or https address, got "):
        target(base_url=base_url, **given)


def test_the_key_is_not_in_the_repr() -> None:
    """A target that is printed or logged does not show the key."""
    found = target(api_key=KEY)

    assert KEY not in repr(found)
    assert KEY not in str(found)


# What is known


@pytest.mark.parametrize(
    ("model", "dimensions", "expected"),
    [
        (SMALL, None, 1_536),
        (SMALL, 1, 1),
        (SMALL, 512, 512),
        (SMALL, 1_536, 1_536),
        ("text-embedding-3-large", None, 3_072),
        ("text-embedding-3-large", 3_072, 3_072),
        ("text-embedding-ada-002", None, 1_536),
        ("text-embedding-ada-002", 1_536, 1_536),
        ("local", None, 256),
        ("local", 64, 64),
        ("anything", None, None),
        ("anything", 100_000, 100_000),
    ],
)
def test_the_size_of_vectors_is_known_where_it_can_be(model: str, dimensions: int | None, expected: int | None) -> None:
    """dimensions= is taken up to the model's own size, which is the default; of other models nothing is known."""
    assert target(model, api_key=KEY, dimensions=dimensions).dimensions == expected


@pytest.mark.parametrize(
    ("model", "dimensions", "message"),
    [
        (SMALL, 1_537, "dimensions: text-embedding-3-small gives at most 1,536, got 1,537"),
        ("text-embedding-ada-002", 512, "dimensions: text-embedding-ada-002 always gives 1,536, got 512"),
        ("local", 257, "dimensions: local gives at most 256, got 257"),
        ("anything", 0, "dimensions: expected an int of at least 1, got 0"),
        ("anything", -5, "dimensions: expected an int of at least 1, got -5"),
        ("anything", True, "dimensions: expected an int of at least 1, got True"),
        ("anything", 512.0, "dimensions: expected an int of at least 1, got 512.0"),
        ("anything", "512", "dimensions: expected an int of at least 1, got '512'"),
    ],
)
def test_dimensions_that_cannot_be_had_are_refused(model: str, dimensions: Any, message: str) -> None:
    """More than the model gives, another size than its only one, or no count at all: refused, with both numbers."""
    with pytest.raises(ConfigurationError) as raised:
        target(model, api_key=KEY, dimensions=dimensions)
    assert str(raised.value) == message


@pytest.mark.parametrize(("of_endpoint", "expected"), [(None, 8_192), (512, 512), (8_192, 8_192), (32_000, 8_192)])
def test_the_lower_limit_of_endpoint_and_model_wins(of_endpoint: int | None, expected: int) -> None:
    """A server may take less of one text than the model, and not more."""
    endpoint = Endpoint(name="x", base_url="https://a.test", max_input_tokens=of_endpoint)

    assert target(endpoint=endpoint).max_input_tokens == expected


@pytest.mark.parametrize("name", ["max_inputs", "max_input_tokens", "max_request_tokens", "max_request_bytes"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "5", True])
def test_a_cap_is_a_count(name: str, value: Any) -> None:
    """Each of the four caps is an int of at least 1, or refused by its name when the endpoint is made."""
    with pytest.raises(ConfigurationError, match=f"^{name}: expected an int of at least 1, got "):
        Endpoint(name="x", **{name: value})
    assert Endpoint(name="x", **{name: 1}) != Endpoint(name="x")


def test_only_the_cap_of_a_text_may_be_unknown() -> None:
    """max_input_tokens=None leaves it to the model; the caps of a request have no such meaning."""
    assert Endpoint(name="x", max_input_tokens=None) == Endpoint(name="x")
    with pytest.raises(ConfigurationError, match="max_inputs: expected an int of at least 1, got None"):
        Endpoint(name="x", max_inputs=None)  # type: ignore[arg-type]


def test_a_path_begins_with_a_slash() -> None:
    """path="embeddings" would be joined to "…/v1embeddings": it is refused. No path at all is one."""
    with pytest.raises(ConfigurationError, match="path: expected a path that begins with \"/\", got 'embeddings'"):
        Endpoint(name="x", path="embeddings")
    assert target(endpoint=Endpoint(name="x", base_url="https://a.test/embed", path="")).url == "https://a.test/embed"


def test_there_are_two_encodings() -> None:
    """encoding_format is "base64", "float", or None to leave it out."""
    for known in ("base64", "float", None):
        Endpoint(name="x", encoding_format=known)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="expected 'base64', 'float' or None; got 'hex'"):
        Endpoint(name="x", encoding_format="hex")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["max_requests_per_minute", "max_tokens_per_minute"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), "5", [5]])
def test_a_rate_of_an_endpoint_is_a_number(name: str, value: Any) -> None:
    """The quota of its key is a number above 0, or refused by its name; None leaves it to the embedder."""
    with pytest.raises(ConfigurationError, match=f"^{name}: expected a number above 0, got "):
        Endpoint(name="x", **{name: value})
    assert getattr(Endpoint(name="x", **{name: 0.5}), name) == 0.5
    assert getattr(Endpoint(name="x"), name) is None


def test_an_endpoint_may_have_a_key_and_a_model_of_its_own() -> None:
    """Where several are used together each has its key and its name for the model: both win, and the key is hidden."""
    azure = Endpoint(name="azure", base_url="https://a.test", api_key=KEY, model="my-deployment")
    found = target(endpoint=azure, api_key="other", environ={"OPENAI_API_KEY": "third"})

    assert (found.api_key, found.name) == (KEY, "my-deployment")
    assert KEY not in repr(azure) + repr(found)
    plain = target(endpoint=Endpoint(name="x", base_url="https://a.test"), api_key="other")
    assert (plain.api_key, plain.name) == ("other", SMALL)
