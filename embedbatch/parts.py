"""What the flow of one run is made of: handed to it whole, so that a test can put anything in its place."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio
import anyio.to_thread

from .dispatch.account import Account
from .dispatch.work import Answer
from .events import Observe
from .plan.chunker import Chunker
from .plan.packer import Packer
from .settings import Limits
from .store import Store
from .values import Batch, RowsFor, no_rows


@dataclass(frozen=True, kw_only=True)
class Parts:
    """
    The rooms of one run, and how it goes.

    *rows_for* tells where vectors may be written as they come.
    """

    chunker: Chunker
    packer: Packer
    send: Callable[[Batch, Account, RowsFor], Awaitable[Answer]]
    account: Account
    limits: Limits
    workers: int
    ordered: bool
    store: Store
    observe: Observe
    rows_for: RowsFor = no_rows
    in_thread: Callable[..., Awaitable[Any]] = functools.partial(anyio.to_thread.run_sync, abandon_on_cancel=True)
