"""``embedbatch check``: what an endpoint accepts, as a table and as a preset."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..check import Check, Cost, Finding, preset
from ..embedder import Embedder
from ..endpoints import UNKNOWN, as_mapping
from ..prices import Price, price_of
from ..version import VERSION
from .running import check as check_options
from .running import check_folder
from .shown import shortened, telling

_MUCH_MONEY = 0.10  # US dollars
_MUCH = 1_000_000  # tokens, where the price is not known
_LONGEST_WORDS = 300  # characters of an answer: some servers echo what they were sent


def check(model: str, *, options: Mapping[str, Any], max_batch: int, json_file: Path | None, yes: bool = False) -> None:
    """Ask, and show what was found. *options* are for ``Embedder``."""
    check_options(model, options)
    check_folder("--json", json_file)
    asking = Check(connect=lambda **given: Embedder(model, **{**options, **given}), max_inputs=max_batch)
    cost = asking.at_most()
    price = price_of(model, asking.base_url)
    print(f"{model} at {asking.base_url}")
    print(f"At most {cost.requests:,} requests and {cost.tokens:,} tokens will be sent{_in_dollars(cost, price)}.")
    if not yes and is_much(cost, price) and sys.stdin.isatty():
        typer.confirm("Go on?", abort=True)
    try:
        with telling("opening a connection") as tell:
            asking.on_probe = lambda probe: tell(f"{asking.requests + 1}: {probe.name.replace('_', ' ')}")
            findings = anyio.run(asking.run)
    except KeyboardInterrupt:
        if asking.answers:
            show(asking.findings(), Console())
        raise
    show(findings, Console())
    print(f"{asking.requests:,} requests were sent.")
    if json_file is not None:
        known = {name: value for name, value in as_mapping(asking.endpoint).items() if name != "hosts"}
        if asking.endpoint.name == UNKNOWN.name:
            known["name"] = urlsplit(asking.base_url).hostname or "endpoint"
        found = {**known, **preset(findings, asking.answers, name=known["name"], base_url=asking.base_url)}
        about = {"by": f"embedbatch {VERSION}", "on": datetime.now(UTC).date().isoformat(), "model": model}
        found["notes"] = {"checked": about, **found["notes"]}
        json_file.write_text(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
        print(f"The preset is in {json_file}")


def show(findings: Sequence[Finding], console: Console) -> None:
    """A row for each finding."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        table.add_row(Text(finding.topic), Text(shortened(finding.words, _LONGEST_WORDS)))
    console.print(table)


def _in_dollars(cost: Cost, price: Price | None) -> str:
    return "" if price is None else f", which cost at most ${price.cost(cost.tokens):.4f}"


def is_much(cost: Cost, price: Price | None) -> bool:
    """True if a person at a terminal should be asked."""
    return cost.tokens > _MUCH if price is None else price.cost(cost.tokens) > _MUCH_MONEY
