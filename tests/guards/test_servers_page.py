"""The page about servers has the presets as they are."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from embedbatch.endpoints import PRESETS, Endpoint

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "servers.md"


@pytest.fixture
def script() -> ModuleType:
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("servers", ROOT / "scripts" / "servers.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_those_of_the_presets(script: Any) -> None:
    """
    The page is what scripts/servers.py makes of the presets and of what was measured: run it after a change.
    """
    page = PAGE.read_text(encoding="utf-8")

    assert script.with_tables(page, script.measured()) == page


def test_every_preset_has_its_row_and_its_source(script: Any) -> None:
    """
    None is left out.
    """
    page = PAGE.read_text(encoding="utf-8")

    for name, preset in PRESETS.items():
        assert f"| `{name}` | " in page
        assert preset.source in page


def test_every_field_of_an_endpoint_is_explained() -> None:
    """
    The table of fields names each of them, but for the one that says where it is all known from.
    """
    page = PAGE.read_text(encoding="utf-8")

    assert [name for name in Endpoint.__dataclass_fields__ if f"`{name}`" not in page] == ["source"]


def test_what_was_measured_has_its_column(script: Any) -> None:
    """
    One server beside the other, and a row for each finding; what was not found out is a dash.
    """
    found = {"usage": {"value": "tokens", "words": "w"}, "inputs": {"value": {"accepted": 2048, "refused": 2049}}}
    facts = {
        "x": {"server": "X 1.2", "measured": "2026-11-23", "found": found},
        "y": {"server": "Y 3", "measured": "2026-11-24", "found": {"empty": {"value": False, "words": "400"}}},
    }
    rows = script.with_tables(PAGE.read_text(encoding="utf-8"), facts).splitlines()

    assert "- **x**: X 1.2, 2026-11-23" in rows
    assert "| | x | y |" in rows
    assert "| usage counts | tokens | – |" in rows
    assert "| inputs of a request | 2,048 taken, 2,049 refused | – |" in rows
    assert "| empty text | – | refused |" in rows
