"""What the measurements were made on."""

from __future__ import annotations

import gzip
import hashlib
import os
import platform
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

from .lab import can_pin
from .tables import Results


def describe() -> dict[str, str]:
    """The machine, the system, the time."""
    return {
        "processor": _processor(),
        "cores": f"{os.cpu_count()}" + ("" if can_pin() else ", client and server not pinned"),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "load average before": f"{os.getloadavg()[0]:.2f}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def versions(results: Results) -> dict[str, str]:
    """Every package that was named by a process."""
    named = {
        name: version
        for outcomes in results.values()
        for outcome in outcomes
        for name, version in outcome.versions.items()
    }
    return dict(sorted(named.items()))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.0f} GB"
    except (ValueError, OSError):
        return "unknown"


def vocabulary(folder: Path) -> Path:
    """Write the vocabulary that embedbatch carries to where tiktoken looks: nobody downloads it. Return *folder*."""
    from embedbatch.plan.vocabulary import URL

    packed = resources.files("embedbatch.plan").joinpath("cl100k_base.tiktoken.gz").read_bytes()
    name = hashlib.sha1(URL.encode(), usedforsecurity=False).hexdigest()
    (folder / name).write_bytes(gzip.decompress(packed))
    return folder
