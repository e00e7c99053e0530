"""What the tests of fault share."""

from __future__ import annotations

import json
import math

from embedbatch.errors import (
    RequestError,
)
from embedbatch.wire.fault import (
    Action,
    Fault,
    Trouble,
    judge,
)

WAIT, SPLIT, REFUSE, STOP = Action.WAIT, Action.SPLIT, Action.REFUSE, Action.STOP
NONE, FAILURE, SLOWNESS = Trouble.NONE, Trouble.FAILURE, Trouble.SLOWNESS
RATE, GROWTH, OVERLOAD, UNNAMED = Trouble.RATE, Trouble.GROWTH, Trouble.OVERLOAD, Trouble.UNNAMED


def openai(code: str | int | None = None, type: str | None = None, message: str = "Words.") -> bytes:
    """OpenAI's error body."""
    return json.dumps({"error": {"message": message, "type": type, "param": None, "code": code}}).encode()


def ask(status: int, body: bytes = b"", *, proven: bool = False, max_wait: float = math.inf, **headers: str) -> Fault:
    """The verdict; in the names of *headers* "_" stands for "-"."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge(status, sent, body, proven=proven, max_wait=max_wait)


def verdict(fault: Fault) -> tuple[Action, type[RequestError], Trouble]:
    return fault.action, type(fault.error), fault.trouble
