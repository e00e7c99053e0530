"""`embedbatch check` at real servers: what it finds is what is known of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from embedbatch import Embedder
from embedbatch.check import Check, preset

from .starting import KEY, RealServer

pytestmark = pytest.mark.anyio

# What was measured when this was written, where it is not what the contract has: see docs/data/measured-servers.json.
CONTRACT = {
    "norm": 1.0,
    "order": "index",
    "text": True,
    "token_arrays": True,
    "float": "honoured",
    "base64": "honoured",
    "fewer_dimensions": "scaled",
    "more_dimensions": "refused",
    "inputs": {"accepted": 2_048, "refused": None},
    "long_text": "refused",
    "empty": False,
    "blank": True,
    "empty_beside": False,
    "usage": "tokens",
    "rate_headers": [],
    "model": "checked",
    "key": "checked",
}
TAKES_ALL = {"long_text": "cut", "empty": True, "empty_beside": True, "token_arrays": False}
NO_DIMENSIONS = {"fewer_dimensions": "ignored", "more_dimensions": "ignored"}
KNOWN: dict[str, dict[str, Any]] = {
    "served": {},
    "gateway": {},
    "infinity": {**TAKES_ALL, "fewer_dimensions": "cut", "usage": "characters", "model": "any", "key": "any"},
    "litellm": {**TAKES_ALL, **NO_DIMENSIONS, "usage": "characters"},
    "llama": {
        **TAKES_ALL,
        **NO_DIMENSIONS,
        "norm": [6.2104, 6.7352],
        "base64": "ignored",
        "inputs": {"accepted": 256, "refused": None},
        "model": "any",
        "key": "any",
    },
}
LONGEST_WORDS = 160  # characters that are recorded; some servers echo what they were sent, and where they are installed


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """What was measured, by server; written into the file that ``--record`` names, beside what stands there."""
    measured: dict[str, Any] = {}
    yield measured
    path = request.config.getoption("--record")
    if path is not None and measured:
        file = Path(path)
        before = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        file.parent.mkdir(parents=True, exist_ok=True)
        written = json.dumps(dict(sorted({**before, **measured}.items())), indent=1, ensure_ascii=False)
        file.write_text(written + "\n", encoding="utf-8")


def describe(real: RealServer, given: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of the preset that is *given*: nothing that is only of this run."""
    fields = {name: value for name, value in given.items() if name not in ("base_url", "notes")}
    found = {name: {**note, "words": note["words"][:LONGEST_WORDS]} for name, note in given["notes"].items()}
    today = datetime.now(UTC).date().isoformat()
    return {"server": real.about, "measured": today, "preset": fields, "found": found}


async def test_what_is_found_is_what_is_known(real: RealServer, record: dict[str, Any]) -> None:
    """Each server is as it was; where one has changed with its version, this table and the recorded data change."""

    def connect(**given: Any) -> Embedder:
        return Embedder(real.model, **{"base_url": real.base_url, "api_key": KEY, **given})

    check = Check(connect=connect, max_inputs=2_048 if real.texts == 2_000 else 256)
    findings = await check.run()

    assert check.requests <= check.at_most().requests
    given = preset(findings, check.answers, name=real.name, base_url=check.base_url)
    if real.name != "gateway":  # that is written after a gateway, and shows nothing about one
        record[real.name] = describe(real, given)
    expected = {**CONTRACT, **KNOWN[real.name]}
    found = {finding.name: finding.value for finding in findings}
    assert {name: found[name] for name in expected} == expected
