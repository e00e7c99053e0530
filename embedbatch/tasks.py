"""A task group whose errors come out as they are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.abc import TaskGroup


@asynccontextmanager
async def task_group() -> AsyncIterator[TaskGroup]:
    """
    A task group of anyio. What one of its tasks, or the block, raises is raised as it is, not in a group.

    So is the first of several that are alike: a full disk fails whatever is written. Its own cause and context stay.
    """
    failed: BaseException | None = None
    try:
        async with anyio.create_task_group() as tasks:
            yield tasks
    except BaseExceptionGroup as group:
        first = group.exceptions[0]
        failed = first if all(type(each) is type(first) for each in group.exceptions) else group
    if failed is not None:
        raise failed  # outside of the handler, which would become its context
