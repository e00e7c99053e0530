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


def _measured(facts: Mapping[str, Any]) -> Iterator[str]:
    yield "## Measured"
    yield ""
    if not facts:
        yield "No figures of real servers are recorded yet."
        return
    yield "| server | measured | what it answered |"
    yield "|---|---|---|"
    for name, entry in facts.items():
        about, on, found = name, "–", entry
        if isinstance(entry, Mapping) and "found" in entry:
            about, on = entry.get("server", name), entry.get("measured", "–")
            found = {finding: _value(told) for finding, told in entry["found"].items()}
        yield f"| {_cell(about)} | {on} | {_cell('; '.join(_facts(found)))} |"


def _value(told: Any) -> Any:
    """What was found, without the words for people."""
    return told["value"] if isinstance(told, Mapping) and "value" in told else told


def _facts(found: Any) -> Iterator[str]:
    if not isinstance(found, Mapping):
        yield _text(found)
        return
    for name, value in found.items():
        inner = ", ".join(_facts(value)) if isinstance(value, Mapping) else _text(value)
        yield f"{name.replace('_', ' ')}: {inner}"


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "unknown"}[value]
    if isinstance(value, list):
        return ", ".join(map(_text, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "/").split())


def _sources() -> Iterator[str]:
    yield "## Sources"
    yield ""
    for endpoint in PRESETS.values():
        yield f"- `{endpoint.name}`: {endpoint.source}."


if __name__ == "__main__":
    main()
