"""
Write the tables of docs/servers.md: the presets, what real servers answered (docs/data/measured-servers.json, if it is
there), and the sources. A test holds the page against this.

    python scripts/servers.py
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from embedbatch.endpoints import PRESETS, UNKNOWN, Endpoint  # noqa: E402

PAGE = ROOT / "docs" / "servers.md"
MEASURED = ROOT / "docs" / "data" / "measured-servers.json"
_AZURE = ("azure", "azure-deployments")
_AS_OPENAI = {
    "max_inputs": ("openai", *_AZURE, "infinity", "fireworks"),
    "max_request_tokens": ("openai", *_AZURE),
}
BEGIN = "<!-- what follows is written by scripts/servers.py -->"


def main() -> None:
    """Write the page anew."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), measured()), encoding="utf-8")


def measured() -> Mapping[str, Any]:
    """What real servers answered, by the names of presets or others; nothing where nobody has asked them."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else {}


def with_tables(page: str, facts: Mapping[str, Any]) -> str:
    """The page with its tables as they should be."""
    head, found, _ = page.partition(BEGIN)
    assert found, f"{PAGE} has no line {BEGIN!r}"
    return "\n".join([head + BEGIN, "", *_presets(), "", *_measured(facts), "", *_sources(), ""])


def _presets() -> Iterator[str]:
    columns = ("`endpoint=`", "known by its host", "key from", "inputs", "tokens", "asked for", "size of vectors")
    yield f"| {' | '.join((*columns, 'arrays', 'length 1', 'rate headers'))} |"
    yield "|---" * 10 + "|"
    for endpoint in (UNKNOWN, *PRESETS.values()):
        yield f"| {' | '.join(_row(endpoint))} |"


def _row(endpoint: Endpoint) -> Iterator[str]:
    yield "–" if endpoint is UNKNOWN else f"`{endpoint.name}`"
    yield ", ".join(endpoint.hosts) or "–"
    yield f"`{endpoint.key_variable}`" if endpoint.key_variable else "–"
    for name in ("max_inputs", "max_request_tokens"):
        cap = getattr(endpoint, name)
        yield f"{cap:,}" if cap != getattr(UNKNOWN, name) or endpoint.name in _AS_OPENAI[name] else "–"
    yield endpoint.encoding_format or "nothing"
    yield f"`{endpoint.dimensions_field}`" if endpoint.dimensions_field else "–"
    yield "yes" if endpoint.token_arrays else "–"
    yield {True: "yes", False: "not always", None: "–"}[endpoint.normalised]
    yield "believed" if endpoint.rate_headers else "not believed"


# What is shown of what `embedbatch check` found, in this order, and what it is called.
FINDINGS = {
    "order": "order of the reply",
    "float": "float",
    "base64": "base64",
    "token_arrays": "token arrays",
    "fewer_dimensions": "fewer `dimensions` than it has",
    "more_dimensions": "more `dimensions`",
    "inputs": "inputs of a request",
    "long_text": "text that is too long",
    "empty": "empty text",
    "usage": "usage counts",
    "norm": "length of vectors",
    "rate_headers": "rate headers",
    "model": "unknown model",
    "key": "wrong key",
    "errors": "errors",
}


def _measured(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Measured"
    yield ""
    if not facts:
        yield "No figures of real servers are recorded yet."
        return
    yield "What real servers answered to `embedbatch check`, in the tests:"
    yield ""
    yield from (f"- **{name}**: {entry['server']}, {entry['measured']}" for name, entry in facts.items())
    yield ""
    yield "| | " + " | ".join(facts) + " |"
    yield "|---" * (len(facts) + 1) + "|"
    for finding, label in FINDINGS.items():
        cells = (_cell(finding, entry["found"].get(finding)) for entry in facts.values())
        yield f"| {label} | " + " | ".join(cells) + " |"


def _cell(finding: str, found: Mapping[str, Any] | None) -> str:
    value = None if found is None else found["value"]
    match finding, value:
        case _, None:
            return "–"
        case _, bool() | "any" | "checked":
            return "taken" if value in (True, "any") else "refused"
        case "inputs", {"accepted": int(taken), "refused": refused}:
            return f"{taken:,} taken" + ("" if refused is None else f", {refused:,} refused")
        case "errors", Mapping():
            shapes = dict.fromkeys(str(shape).partition(", ")[2] for shape in value.values())
            return "; ".join(f"`{shape}`" for shape in shapes) or "–"
        case _, list():
            return ", ".join(map(str, value)) or "none"
    return str(value)


def _sources() -> Iterator[str]:
    yield "## Sources"
    yield ""
    for endpoint in PRESETS.values():
        yield f"- `{endpoint.name}`: {endpoint.source}."


if __name__ == "__main__":
    main()
