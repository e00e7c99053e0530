"""The floors of the house and its "only place for" rules: the import contracts in pyproject.toml, one test each."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


@pytest.mark.parametrize("contract", [pytest.param(contract, id=contract["id"]) for contract in CONTRACTS])
def test_an_import_contract_is_kept(contract: dict[str, object]) -> None:
    """
    No import in the package, at the top of a module or inside a function, breaks this contract.
    """
    lint = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache", "--contract", str(contract["id"])],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "120"},
        capture_output=True,
        text=True,
        check=False,
    )

    if lint.returncode:
        pytest.fail(f"Broken: {contract['name']}\n\n{lint.stdout}{lint.stderr}", pytrace=False)


@pytest.mark.parametrize("rule", ["floors", "dispatch", "cycles", "pure", "tiktoken", "httpx", "tenacity"])
def test_a_rule_of_the_house_has_a_contract(rule: str) -> None:
    """
    The contracts cannot be dropped unnoticed: each of the rules has one.
    """
    assert rule in [contract["id"] for contract in CONTRACTS]
