"""The same door for scripts, threads and notebooks: one call, behind a background event loop."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from .embedder import Embedder
from .plan.inputs import Inputs
from .settings import OnFailure, OnOutage
from .values import Embeddings

if TYPE_CHECKING:
    from anyio.from_thread import BlockingPortalProvider

__all__ = ["embed"]


@functools.cache
def _loop() -> BlockingPortalProvider:
    """One loop for all threads that embed at the moment. It ends with the last of them: nothing outlives the call."""
    from anyio.from_thread import BlockingPortalProvider

    return BlockingPortalProvider(backend_options=loop_options())


def loop_options() -> dict[str, bool]:
    """How a loop of our own is started: uvloop saves httpx's transport a sixth of its time."""
    return {"use_uvloop": find_spec("uvloop") is not None}


def embed(
    inputs: Inputs,
    model: str,
    *,
    on_failure: OnFailure = "raise",
    on_outage: OnOutage = "stop",
    max_spend_tokens: int | None = None,
    **options: Any,
) -> Embeddings:
    """
    Embed *inputs* and wait for the result. Works in scripts, in threads, and inside a running notebook loop.

    Arguments and errors are those of :meth:`Embedder.embed`; *options* are those of :class:`Embedder`. Ctrl-C
    cancels what is in flight.
    """
    embedder = Embedder(model, **options)
    with _loop() as portal:
        run = portal.start_task_soon(_embed, embedder, inputs, on_failure, on_outage, max_spend_tokens)
        try:
            return run.result()
        except BaseException:
            run.cancel()  # Ctrl-C reaches this thread only; a run that has ended is not disturbed
            raise


async def _embed(
    embedder: Embedder, inputs: Inputs, on_failure: OnFailure, on_outage: OnOutage, max_spend_tokens: int | None
) -> Embeddings:
    async with embedder:
        return await embedder.embed(
            inputs, on_failure=on_failure, on_outage=on_outage, max_spend_tokens=max_spend_tokens
        )
