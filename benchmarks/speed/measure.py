"""The timed section: wall time, CPU time of this process, and the most memory it had."""

from __future__ import annotations

import gc
import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


class Section:
    """`with Section() as section:` measures the block, in all threads of this process."""

    seconds = cpu = 0.0
    baseline = peak = 0

    def __enter__(self) -> Self:
        gc.collect()
        _forget_peak()
        self.baseline = _memory("VmRSS")
        self._cpu_at = _cpu_seconds()
        self._started_at = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.seconds = time.perf_counter() - self._started_at
        self.cpu = _cpu_seconds() - self._cpu_at
        self.peak = _memory("VmHWM")

    @classmethod
    def total(cls, sections: Sequence[Section]) -> Section:
        """Several sections as one: times are added; memory is from the first baseline to the highest peak."""
        total = cls()
        total.seconds = sum(section.seconds for section in sections)
        total.cpu = sum(section.cpu for section in sections)
        total.baseline = sections[0].baseline
        total.peak = max(section.peak for section in sections)
        return total


def children_cpu_seconds() -> float:
    """User and system time of the child processes that have ended."""
    return _cpu_seconds(resource.RUSAGE_CHILDREN)


def _cpu_seconds(who: int = resource.RUSAGE_SELF) -> float:
    used = resource.getrusage(who)
    return used.ru_utime + used.ru_stime


def _forget_peak() -> None:
    """Let the kernel begin a new high-water mark, so that what was needed before the section does not count."""
    try:
        _CLEAR.write_text("5")
    except OSError:  # no Linux, or not allowed: the peak is that of the whole process, an upper bound
        return


def _memory(name: str) -> int:
    """Bytes, from the kernel's account of this process."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))
