"""The door: texts in, vectors out."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio.lowlevel

from . import local, pipeline
from .assemble.collector import Collector
from .dispatch.account import Account
from .dispatch.limiter import Limiter
from .dispatch.sender import Sender
from .dispatch.transport import Transport
from .endpoints import LOCAL, Endpoint, Model, Target, resolve
from .errors import ConfigurationError, FailedDocumentsError, InvalidInputError, RunStoppedError
from .events import DocumentCut, DocumentRepaired, Event, Observe, observe_nothing
from .pipeline import NoStore, Store
from .plan.chunker import Chunker
from .plan.inputs import Inputs, read_inputs
from .plan.packer import Caps, Packer
from .plan.tokens import LazyTokenizer, Tokenizer, as_tokenizer, cl100k_base
from .results import Results
from .settings import (
    DEFAULT_LIMITS,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT,
    Empty,
    Limits,
    LongInput,
    OnFailure,
    Retries,
    Surrogates,
    check_choice,
)
from .stats import Stats, Tally
from .values import Content, Cut, Document, Embeddings, Id, Vector
from .wire.request import RequestTemplate

if TYPE_CHECKING:
    import httpx
    import tiktoken

__all__ = ["Embedder"]


class Embedder:
    """
    Embeds texts at one endpoint with one model, as fast as its limits allow.

    *base_url*, *api_key*, *dimensions*, *user*, *timeout*, *default_headers*, *extra_body* and *http_client* mean
    what they mean in the openai package; without them ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` are used.
    ``model="local"`` needs neither: it is the embedded model.

    *limits* and *retries* say how much and how patiently. *long_input* decides about documents above the model's
    limit: ``"split"`` (the token-weighted mean of the parts' vectors, scaled to length 1), ``"truncate"``,
    ``"chunks"`` (one vector per part) or ``"error"``. *empty* is ``"error"`` or ``"skip"``; *surrogates*
    ``"replace"`` or ``"error"``. *count_tokens* asks for every document's exact token count.

    *endpoint* describes a server that is not known by its address. *tokenizer* is a ``tiktoken.Encoding`` or a
    :class:`Tokenizer` for models whose tokenizer is not known. *transport* (an ``httpx.AsyncBaseTransport``),
    *store*, *observe* and *rng* are seams.

    Use it in one event loop (asyncio or trio), from as many tasks as you like; close it, or use ``async with``.

    Raises :class:`ConfigurationError` for settings that cannot work.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        dimensions: int | None = None,
        user: str | None = None,
        timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
        default_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, object] | None = None,
        http_client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        endpoint: Endpoint | None = None,
        limits: Limits = DEFAULT_LIMITS,
        retries: Retries = DEFAULT_RETRIES,
        long_input: LongInput = "split",
        empty: Empty = "error",
        surrogates: Surrogates = "replace",
        count_tokens: bool = False,
        max_input_tokens: int | None = None,
        tokenizer: tiktoken.Encoding | Tokenizer | None = None,
        store: Store | None = None,
        observe: Observe = observe_nothing,
        rng: Random | None = None,
    ) -> None:
        self.model = model
        self.long_input = long_input
        target = resolve(model, base_url=base_url, api_key=api_key, endpoint=endpoint, dimensions=dimensions)
        self.endpoint = target.endpoint
        self.base_url = target.base_url
        self.dimensions = target.dimensions
        self._chunker = Chunker(
            max_input_tokens=target.max_input_tokens if max_input_tokens is None else max_input_tokens,
            tokenizer=_tokenizer(tokenizer, target.model),
            long_input=long_input,
            empty=empty,
            surrogates=surrogates,
            token_arrays=target.endpoint.token_arrays,
            count_tokens=count_tokens,
        )
        self._limits = limits
        self._limiter = Limiter(limits, rng := rng or Random())
        self._store = store or NoStore()
        self._tally = Tally()
        self._observers = (self._tally.observe, observe)
        self._template = RequestTemplate(model, target.endpoint.encoding_format, dimensions, user, extra_body or {})
        self._transport = _connect(target, default_headers or {}, timeout, limits, http_client, transport)
        self._sender = Sender(
            name=target.endpoint.name,
            transport=self._transport,
            template=self._template,
            limiter=self._limiter,
            retries=retries,
            dimensions=target.dimensions,
            rng=rng,
            observe=self._observe,
        )
        self._loop: object = None  # where it was first used, and stays

    async def embed(
        self,
        inputs: Inputs,
        *,
        on_failure: OnFailure = "raise",
        max_spend_tokens: int | None = None,
    ) -> Embeddings:
        """
        Embed *inputs*: a text, a token array, a document, or an iterable of any of these.

        Returns :class:`Embeddings`, whose ``vectors`` are float32 of shape (documents, dimensions), in order. A
        run stops before it could spend more than *max_spend_tokens* tokens.

        Raises ``TypeError`` before anything is sent if something in *inputs* is no document;
        :class:`FailedDocumentsError` when everything is done and some documents failed (with
        ``on_failure="collect"`` they are only listed in ``failures``); :class:`RunStoppedError` when going on
        could not help. Both errors carry the result, with all that was paid for, as ``.embeddings``.
        """
        check_choice("on_failure", on_failure, OnFailure)
        documents = read_inputs(inputs)
        return await self._embed(documents, Account(max_spend_tokens=max_spend_tokens), on_failure, self._chunker)

    async def embed_one(self, text: Content) -> Vector:
        """
        Embed one text, such as a query, ahead of bulk work on the same embedder.

        Returns its vector: float32, shape (dimensions,). Raises the document's own error if it fails; with
        ``long_input="chunks"`` a text that would have several vectors is too long.
        """
        chunker = self._chunker
        if chunker.long_input == "chunks":
            chunker = replace(chunker, long_input="error")
        embeddings = await self._embed([text], Account(urgent=True), "collect", chunker)
        if embeddings.failures:
            raise embeddings.failures[0].error
        vector: Vector = embeddings.vectors[0]
        return vector

    async def _embed(
        self, documents: list[Any], account: Account, on_failure: OnFailure, chunker: Chunker
    ) -> Embeddings:
        row_per_chunk = chunker.long_input == "chunks"
        collector = Collector(_ids(documents), dimensions=self.dimensions, row_per_chunk=row_per_chunk)
        reports = _Reports(self._observe)
        stopped: RunStoppedError | None = None
        parts = self._parts(account, chunker, reports.observe, ordered=row_per_chunk)
        async with pipeline.run(documents, parts) as blocks:
            try:
                async for block in blocks:
                    collector.add(block)
            except RunStoppedError as error:
                stopped = error
        embeddings = collector.result(cut=reports.cut, repaired=reports.repaired, usage=account.usage)
        if stopped is not None:
            stopped.embeddings = embeddings
            raise stopped
        errors = [failure for failure in embeddings.failures if not failure.skipped]
        if errors and on_failure == "raise":
            raise FailedDocumentsError(
                f"{len(errors):,} of {len(documents):,} documents failed; the rest is in .embeddings. "
                f"The first, {errors[0].id!r}: {errors[0].error}",
                embeddings,
            )
        return embeddings

    @asynccontextmanager
    async def stream(
        self,
        documents: Iterable[Content | Document] | AsyncIterable[Content | Document],
        *,
        ordered: bool = True,
        max_spend_tokens: int | None = None,
    ) -> AsyncIterator[Results]:
        """
        Embed any iterable or async iterable, in memory bounded by ``limits``.

        The block's value iterates over an :class:`Embedding` or a :class:`Failure` for every document: in order,
        or as each is done with ``ordered=False``. Something that is no document becomes a failure. A slow reader
        slows the run down; leaving the block cancels it.

        The iteration raises :class:`RunStoppedError` after the last result when going on could not help, and
        what *documents* itself raised once everything before is embedded.
        """
        if isinstance(documents, str | bytes | Mapping):
            raise InvalidInputError(f"expected an iterable of documents, got {type(documents).__name__}")
        account = Account(max_spend_tokens=max_spend_tokens)
        parts = self._parts(account, self._chunker, self._observe, ordered=ordered)
        async with pipeline.run(documents, parts) as blocks:
            yield Results(blocks, account)

    def stats(self) -> Stats:
        """What this embedder has done so far."""
        return self._tally.stats(in_flight=self._limiter.in_flight, waiting=self._limiter.waiting)

    async def aclose(self) -> None:
        """Close the connections. An ``http_client`` that was handed in stays open."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<Embedder {self.model!r} at {self.endpoint.name}, {self._limiter!r}>"

    def _parts(self, account: Account, chunker: Chunker, observe: Observe, *, ordered: bool) -> pipeline.Parts:
        self._settle_in_loop()
        if account.remaining is not None:
            # By their bytes alone texts would seem to cost four times as much, and the run would end early.
            chunker = replace(chunker, count_tokens=True)
        return pipeline.Parts(
            chunker=chunker,
            packer=Packer(partial(self._caps, account)),
            send=self._sender.send,
            account=account,
            limits=self._limits,
            ordered=ordered,
            store=self._store,
            observe=observe,
        )

    def _settle_in_loop(self) -> None:
        """Connections belong to the event loop that made them."""
        loop = anyio.lowlevel.current_token()
        self._loop = self._loop or loop
        if self._loop != loop:
            raise ConfigurationError("this Embedder belongs to another event loop; make one for each loop")
        if self._transport.is_closed:
            raise ConfigurationError("this Embedder, or the http_client it was given, is closed")

    def _caps(self, account: Account) -> Caps:
        """What a batch may hold now: the least of what is set, what the endpoint takes, what may go and be spent."""
        limits, endpoint = self._limits, self.endpoint
        max_tokens = min(limits.max_batch_tokens, endpoint.max_request_tokens)
        if account.remaining is not None:
            max_tokens = min(max_tokens, account.remaining)
        max_bytes = min(limits.max_batch_bytes, endpoint.max_request_bytes) - self._template.overhead
        if limits.max_tokens_per_minute is not None:
            burst = limits.max_tokens_per_minute / 60 * limits.burst
            max_bytes = min(max_bytes, int(burst / self._sender.ratio.value))
        return Caps(
            max_inputs=min(limits.max_batch_inputs, endpoint.max_inputs),
            max_tokens=max_tokens,
            max_bytes=max_bytes,
        )

    def _observe(self, event: Event) -> None:
        for observe in self._observers:
            observe(event)


class _Reports:
    """Keeps what a run reports of its documents, and passes every event on."""

    def __init__(self, observe: Observe) -> None:
        self.cut: list[Cut] = []
        self.repaired: list[Id] = []
        self._observe = observe

    def observe(self, event: Event) -> None:
        if isinstance(event, DocumentCut):
            self.cut.append(event.cut)
        elif isinstance(event, DocumentRepaired):
            self.repaired.append(event.id)
        self._observe(event)


def _ids(documents: list[Any]) -> list[Id]:
    return [
        document.id if isinstance(document, Document) and document.id is not None else position
        for position, document in enumerate(documents)
    ]


def _tokenizer(given: object, model: Model) -> Tokenizer | None:
    if given is not None:
        return as_tokenizer(given)
    if model.tokenizer == "cl100k_base":
        return cl100k_base()
    if model.tokenizer == "local":
        return LazyTokenizer("local", lambda: local.load().tokenizer, overhead=1)
    return None


def _connect(
    target: Target,
    headers: Mapping[str, str],
    timeout: float | httpx.Timeout | None,
    limits: Limits,
    http_client: httpx.AsyncClient | None,
    transport: httpx.AsyncBaseTransport | None,
) -> Transport:
    in_process = target.endpoint is LOCAL and not (http_client or transport)
    return Transport(
        target.url,
        headers,
        api_key=target.api_key,
        timeout=timeout,
        max_connections=limits.max_concurrent_requests,
        http_client=http_client,
        transport=transport,
        app=local.LocalApp() if in_process else None,
    )
