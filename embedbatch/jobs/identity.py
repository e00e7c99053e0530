"""What a job is bound to: run again with something else, it would mix vectors that do not belong together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """
    What a source held: its *bytes* and their *digest*, 128 bits.

    *stamp* changes when it is written to: where it is the same, the source is not read again to be compared.
    """

    bytes: int
    digest: str
    stamp: str


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not the same in two identities, in words."""
    names = [*before, *(name for name in now if name not in before)]
    return [
        f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
        for name in names
        if before.get(name) != now.get(name)
    ]
