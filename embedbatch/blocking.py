"""The same door for scripts, threads and notebooks: one call, behind a background event loop."""

from __future__ import annotations

from typing import Any

from anyio.from_thread import BlockingPortalProvider

from .embedder import Embedder
from .plan.inputs import Inputs
from .settings import OnFailure, OnOutage
from .values import Embeddings

__all__ = ["embed"]

# One loop for all threads that embed at the moment; it ends with the last of them, so nothing outlives the call.
_LOOP = BlockingPortalProvider()


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
    with _LOOP as portal:
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
