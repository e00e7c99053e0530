"""
What every test runs under.

Time is virtual: an async test runs on trio with a clock of its own, which jumps to the next deadline as soon as
every task waits. `await anyio.sleep(3600)` takes no time and is exact. Under Hypothesis the examples of one test
share its clock, which goes on from where it was. Two ways out of virtual time:

    @pytest.mark.anyio
    async def test_that_holds_on_every_loop(both_backends): ...          # asyncio, then trio, in real time

    @pytest.mark.anyio
    @pytest.mark.parametrize("anyio_backend", ["asyncio"])               # threads work: the virtual clock would
    async def test_that_needs_threads(): ...                             # jump while they do
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
import trio.testing
from hypothesis import settings

from embedbatch.endpoints import PRESETS

# In CI the examples are the same every time: a red build is about the change, not about luck.
settings.register_profile("house", deadline=None, max_examples=60, derandomize="CI" in os.environ)
settings.load_profile("house")

# What the package, and httpx for it, takes from the environment when it is not told otherwise.
READ_FROM_THE_ENVIRONMENT = (
    *("OPENAI_API_KEY", "OPENAI_BASE_URL", "AZURE_OPENAI_ENDPOINT", "TIKTOKEN_CACHE_DIR"),
    *(endpoint.key_variable for endpoint in PRESETS.values() if endpoint.key_variable not in (None, "OPENAI_API_KEY")),
    *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"),
)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> object:
    """Trio in virtual time, with a clock that starts anew for every test."""
    for name in ("both_backends", "every_transport"):
        if name in request.fixturenames:
            return request.getfixturevalue(name)
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.fixture(params=["asyncio", "trio"])
def both_backends(request: pytest.FixtureRequest) -> object:
    """Run the test that asks for this on asyncio and on trio, in real time. The value is the backend's name."""
    return request.param


@pytest.fixture(autouse=True)
def clean_environment() -> Iterator[None]:
    """No test sees the key, the endpoint or the files of whoever runs it."""
    saved = {name: os.environ.pop(name) for name in READ_FROM_THE_ENVIRONMENT if name in os.environ}
    yield
    for name in READ_FROM_THE_ENVIRONMENT:
        os.environ.pop(name, None)
    os.environ.update(saved)
