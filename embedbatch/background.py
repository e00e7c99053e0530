"""
A task that belongs to nobody who waits for it.

anyio has tasks only in a group that somebody entered and will leave. What several callers share must outlive the one
that began it, so this asks the event loop itself, asyncio's or trio's, and is the only place that does.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import Context
from typing import TYPE_CHECKING, Any

import anyio

if TYPE_CHECKING:
    import asyncio

_tasks: set[asyncio.Task[None]] = set()  # asyncio keeps weak references only


def start(function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
    """
    Run *function* in a task of its own, which is cancelled when the event loop ends. It must not raise.

    It runs in an empty context: what the caller has in its context variables is not that of the others.
    """
    import asyncio  # which takes long, where it is not running yet

    if anyio.get_cancelled_exc_class() is asyncio.CancelledError:
        # Not by `context=`, which not every task factory takes.
        task = Context().run(asyncio.get_running_loop().create_task, function(*args))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
    else:
        import trio  # whose loop is running

        trio.lowlevel.spawn_system_task(function, *args)
