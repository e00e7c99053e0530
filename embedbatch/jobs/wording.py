"""Numbers and names for people: the same in the terminal and in a report. Pure."""

from __future__ import annotations

from .timeline import RATE_LIMITED, Bin

_MINUTE, _HOUR, _DAY = 60, 3_600, 86_400
_FAULTS = {
    RATE_LIMITED: "429",
    "Server": "5xx",
    "AttemptTimeout": "timeout",
    "ConnectionFailed": "no connection",
    "ConnectionLost": "connection lost",
    "RequestRefused": "refused",
    "InvalidReply": "unusable reply",
    "MalformedReply": "unusable reply",
    "Dimensions": "wrong dimensions",
    "Authentication": "key refused",
    "ModelNotFound": "no such model",
    "QuotaExhausted": "no credit",
}


def duration(seconds: float) -> str:
    """A time in two units at most: ``420 ms``, ``4.2 s``, ``4 min 12 s``, ``3 h 5 min``."""
    if seconds < 0.9995:
        return f"{seconds * 1_000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1_000:.2g} ms" if seconds > 0 else "0 s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < _HOUR - 0.5:
        return _two(round(seconds), _MINUTE, "min", "s")
    if seconds < _DAY - _MINUTE / 2:
        return _two(round(seconds / _MINUTE), _HOUR // _MINUTE, "h", "min")
    return _two(round(seconds / _HOUR), _DAY // _HOUR, "d", "h")


def clock(seconds: float) -> str:
    """A time in whole seconds, as a clock shows it that goes on: ``4 s``, ``4 min 12 s``."""
    return f"{round(seconds)} s" if seconds < _MINUTE - 0.5 else duration(seconds)


def _two(small: int, each: int, name: str, small_name: str) -> str:
    large, small = divmod(small, each)
    return " ".join(f"{number:,} {unit}" for number, unit in ((large, name), (small, small_name)) if number)


def rate(number: float) -> str:
    """What goes per second: whole where it is many, with a digit where it is few."""
    if number >= 9.95 or number == int(number):
        return f"{number:,.0f}"
    return f"{number:.1f}" if number >= 0.95 else f"{number:.2g}"


def money(amount: float) -> str:
    """Dollars, with as many digits as tell something."""
    if 0 < amount < 0.000_05:
        return "under $0.0001"
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


def share(part: float) -> str:
    """A part of 1 in per cent. It is 100 % only when nothing is missing."""
    return "100 %" if part >= 1 else f"{min(99.9, 100 * part):.1f} %" if part >= 0.99 else f"{100 * part:.0f} %"


def fault(kind: str) -> str:
    """The kind of a fault, such as ``RateLimited``, in a word or two."""
    return _FAULTS.get(kind, kind)


def faults(counts: Bin) -> list[str]:
    """How many of each kind of fault there are."""
    return [f"{counts.faults[kind]:,} × {fault(kind)}" for kind in counts.kinds]


def cost(tokens: int | None, price: float | None) -> float | None:
    """Dollars for *tokens* at *price* dollars per million; ``None`` if one of them is not known."""
    return None if tokens is None or price is None else tokens * price / 1_000_000
