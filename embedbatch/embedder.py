"""The door: texts in, vectors out."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from os import PathLike
from random import Random
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio.lowlevel
import msgspec

from . import pipeline
from .assemble.collector import Collector
from .assemble.reports import Reports, ids_of
from .dispatch.account import Account
from .dispatch.limiter import Limiter
from .endpoints import ApiKey, Endpoint, public_url
from .errors import ConfigurationError, FailedDocumentsError, InvalidInputError, RunStoppedError
from .events import Event, Observe, observe_nothing
from .inside import Inside
from .models import Model
from .parts import Parts
from .plan.chunker import Chunker
from .plan.inputs import Inputs, read_input, read_inputs, refuse_table
from .plan.packer import Caps, Packer
from .plan.tokens import Tokenizer
from .results import Results
from .roles import Roles, Voice
from .settings import (
    DEFAULT_LIMITS,
    DEFAULT_RETRIES,
    DEFAULT_TIMEOUT,
    Empty,
    Limits,
    LongInput,
    OnFailure,
    OnOutage,
    Retries,
    Surrogates,
    TransportName,
    check_choice,
)
from .singles import Singles
from .stats import Stats, Tally
from .store import NoStore, Store
from .stores import Stores
from .values import Content, Document, Embeddings, Vector
from .wiring import Wiring, find_shape, find_targets, find_tokenizer, input_limits

if TYPE_CHECKING:
    import httpx
    import tiktoken

    from .cache import Cache

__all__ = ["Embedder"]


class Embedder:
    """
    Embeds texts at one endpoint with one model, as fast as its limits allow.

    *base_url*, *api_key*, *dimensions*, *user*, *timeout*, *default_headers*, *extra_body* and *http_client* mean
    what they mean in the openai package; without them ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` are used.
    ``model="local"`` needs neither: it is the embedded model.

    *truncate_dimensions* keeps the first numbers of every vector, scaled to length 1, where a server does not take
    *dimensions*; *normalize* scales whole vectors.

    *limits* and *retries* say how much and how patiently. *long_input* decides about documents above the model's
    limit: ``"split"`` (the token-weighted mean of the parts' vectors, scaled to length 1), ``"truncate"``,
    ``"chunks"`` (one vector per part) or ``"error"``. *empty* is ``"error"`` or ``"skip"``; *surrogates*
    ``"replace"`` or ``"error"``. *count_tokens* asks for every document's exact token count.

    *endpoint* describes a server that is not known by its address, or is the name of a known one, such as ``"tei"``.
    Several *endpoints* are used together: each has its own limits, a batch goes to the first that is ready, and one
    that fails is done without until it is back. Embedders for the same endpoint, key and model share one *limiter*:
    ``Embedder(…, limiter=other.limiter)``.

    *tokenizer*, for models whose own is not known, is the path of a ``tokenizer.json`` (with ``embedbatch[hf]``), a
    ``tiktoken.Encoding`` or a :class:`Tokenizer`. *model_info* says what is to be known of a model instead of what is.
    *role* is what the texts are for, such as ``"document"``: the model is told as it was taught, by a prefix that goes
    before every part, or by a field of the request.

    *transport* is ``"httpx"``, ``"aiohttp"`` (the faster one, of ``embedbatch[fast]``) or an
    ``httpx.AsyncBaseTransport``; without it aiohttp is used where it is installed, on asyncio and without a proxy in
    the environment.

    *cache*, a :class:`~embedbatch.cache.Cache` or the name of its directory, remembers vectors from one run to the
    next. A *store* is one of your own: texts of a role that is told by a field of the request, and is not the
    embedder's, go past it. *http_client*, *observe* and *rng* are seams, too.

    Use it in one event loop (asyncio or trio), from as many tasks as you like; close it, or use ``async with``.

    Raises :class:`ConfigurationError` for settings that cannot work.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: ApiKey | None = None,
        dimensions: int | None = None,
        truncate_dimensions: int | None = None,
        normalize: bool = False,
        user: str | None = None,
        timeout: float | httpx.Timeout | None = DEFAULT_TIMEOUT,
        default_headers: Mapping[str, str] | None = None,
        extra_body: Mapping[str, object] | None = None,
        http_client: httpx.AsyncClient | None = None,
        transport: httpx.AsyncBaseTransport | TransportName | None = None,
        endpoint: Endpoint | str | None = None,
        endpoints: Sequence[Endpoint | str] | None = None,
        limiter: Limiter | None = None,
        limits: Limits = DEFAULT_LIMITS,
        retries: Retries = DEFAULT_RETRIES,
        long_input: LongInput = "split",
        empty: Empty = "error",
        surrogates: Surrogates = "replace",
        count_tokens: bool = False,
        max_input_tokens: int | None = None,
        tokenizer: tiktoken.Encoding | Tokenizer | str | PathLike[str] | None = None,
        model_info: Model | None = None,
        role: str | None = None,
        store: Store | None = None,
        cache: Cache | str | PathLike[str] | None = None,
        observe: Observe = observe_nothing,
        rng: Random | None = None,
    ) -> None:
        self.model, self.long_input = model, long_input
        targets = find_targets(model, base_url, api_key, endpoint, endpoints, dimensions, model_info)
        first = targets[0]
        self._shape = find_shape(first, truncate_dimensions, normalize=normalize)
        self._whole = first.dimensions  # the size of the vectors as they come, where it is known
        self.dimensions = truncate_dimensions or self._whole
        self.endpoint, self.base_url = first.endpoint, first.base_url
        policies: dict[str, Any] = {"long_input": long_input, "empty": empty, "surrogates": surrogates}
        policies |= {"count_tokens": count_tokens, **input_limits(targets, max_input_tokens)}
        self._extra_body = dict(extra_body or {})
        chunker = Chunker(tokenizer=find_tokenizer(tokenizer, first.model), **policies)
        self._roles = Roles(first.model, called=model, own=role, chunker=chunker, extra_body=self._extra_body)
        self._chunker = self._roles.voice.chunker
        self._limits, self._retries, self._tally = limits, retries, Tally()
        self._observers = self._tally.observe, observe
        http: dict[str, Any] = {"timeout": timeout, "http_client": http_client, "transport": transport}
        what: dict[str, Any] = {"dimensions": dimensions, "user": user, "extra_body": self._extra_body}
        how: dict[str, Any] = {"limits": limits, "retries": retries, "rng": rng or Random(), "observe": self._observe}
        wiring = Wiring(headers=default_headers or {}, shape=self._shape, room=self._roles.room, **http, **what, **how)
        self._sender = wiring.connect(targets, limiter, chunker.as_text)
        self._router = self._sender.router
        self._loop: object = None  # where it was first used, and stays
        self._singles: dict[tuple[str, bytes], Singles] = {}  # by how they are put
        self._stores = Stores(store, cache, own=self._roles.voice.fields, recipe_of=self._recipe_of)

    @property
    def recipe(self) -> dict[str, Any]:
        """What the vectors depend on besides the texts: vectors with another recipe do not belong together."""
        return self._recipe_of(self._roles.voice.fields)

    def _recipe_of(self, fields: bytes) -> dict[str, Any]:
        chunker, of_role = self._chunker, msgspec.json.decode(fields) if fields else {}
        return {
            "model": self.model,
            "dimensions": self._whole,
            "truncate_dimensions": self._shape.dimensions,
            "normalize": self._shape.normalize or None,
            "endpoint": self.endpoint.name,
            "base_url": public_url(self.base_url),
            "extra_body": {**self.endpoint.extra_body, **self._extra_body, **of_role},
            "prefix": chunker.prefix or None,
            "long_input": chunker.long_input,
            "max_input_tokens": chunker.max_input_tokens,
            "tokenizer": chunker.tokenizer.name if chunker.tokenizer else None,
            "empty": chunker.empty,
            "surrogates": chunker.surrogates,
            "count_tokens": chunker.count_tokens,
        }

    @property
    def inside(self) -> Inside:
        """What it is made of."""
        store = self._stores.of(self._roles.voice.fields)
        return Inside(self._chunker, self._router, self._roles, self._shape, self._limits, store)

    @property
    def limiter(self) -> Limiter:
        """The limiter of the first endpoint, to be shared with another embedder for the same."""
        return self._router.routes[0].limiter

    @property
    def lessons(self) -> dict[str, dict[str, object]]:
        """
        What was learned of each endpoint by being refused, by model and address; as JSON can carry it, without keys.

        With :meth:`recall` another embedder begins with it, so that no lesson is paid for twice.
        """
        return {route.key: learned for route in self._router.routes if (learned := route.learned())}

    def recall(self, lessons: Mapping[str, Mapping[str, object]]) -> None:
        """Begin with the *lessons* of an earlier embedder, where they are about the same model and address."""
        for route in self._router.routes:
            route.recall(lessons.get(route.key))

    async def embed(
        self,
        inputs: Inputs,
        *,
        role: str | None = None,
        on_failure: OnFailure = "raise",
        on_outage: OnOutage = "stop",
        max_spend_tokens: int | None = None,
    ) -> Embeddings:
        """
        Embed *inputs*: a text, a token array, a document, or an iterable of any of these.

        *role* is what they are for, if it is not that of the embedder.

        Returns :class:`Embeddings`, whose ``vectors`` are float32 of shape (documents, dimensions), in order. A
        run stops before it could spend more than *max_spend_tokens* tokens. When the endpoint answers nothing but
        faults, a run stops too, or with ``on_outage="wait"`` waits until it is back.

        Raises ``TypeError`` before anything is sent if something in *inputs* is no document;
        :class:`FailedDocumentsError` when everything is done and some documents failed (with
        ``on_failure="collect"`` they are only listed in ``failures``); :class:`RunStoppedError` when going on
        could not help. Both errors carry the result, with all that was paid for, as ``.embeddings``.
        """
        check_choice("on_failure", on_failure, OnFailure)
        voice = self._roles.voice_of(role)
        account = self._account(max_spend_tokens=max_spend_tokens, on_outage=on_outage, fields=voice.fields)
        return await self._embed(read_inputs(inputs), account, on_failure, voice.chunker)

    async def embed_one(self, text: Content, *, role: str | None = None) -> Vector:
        """
        Embed one text, such as a query, ahead of bulk work on the same embedder.

        A lone call goes at once. Calls that come while others are under way share the next request, and equal texts
        one place in it; a call waits for that no longer than 0.05 s, unless there is no capacity. Cancelling one call
        does not disturb the others.

        *role* is what it is for. Without one, it is a ``"query"`` where the embedder's role is ``"document"``, and else
        what the embedder's are.

        Returns its vector: float32, shape (dimensions,). Raises the document's own error if it fails, and
        :class:`RunStoppedError` when going on could not help; with ``long_input="chunks"`` a text that would have
        several vectors is too long.
        """
        self._settle_in_loop()
        voice = self._roles.voice_of(self._roles.of_one if role is None else role)
        if voice.key not in self._singles:
            self._singles[voice.key] = Singles(partial(self._urgent_parts, voice), dimensions=self.dimensions)
        return await self._singles[voice.key].embed(read_input(text))

    async def _embed(
        self, documents: list[Any], account: Account, on_failure: OnFailure, chunker: Chunker
    ) -> Embeddings:
        row_per_chunk = chunker.long_input == "chunks"
        collector = Collector(ids_of(documents), dimensions=self.dimensions, row_per_chunk=row_per_chunk)
        reports = Reports(self._observe)
        stopped: RunStoppedError | None = None
        parts = self._parts(account, chunker, reports.observe, ordered=row_per_chunk)
        if isinstance(parts.store, NoStore):  # another may keep what it is given, and the result is the caller's
            parts = replace(parts, rows_for=collector.rows_for)
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
        role: str | None = None,
        on_outage: OnOutage = "stop",
        max_spend_tokens: int | None = None,
        store: Store | None = None,
    ) -> AsyncIterator[Results]:
        """
        Embed any iterable or async iterable, in memory bounded by ``limits``.

        The block's value iterates over an :class:`Embedding` or a :class:`Failure` for every document: in order,
        or as each is done with ``ordered=False``. Something that is no document becomes a failure. A slow reader
        slows the run down; leaving the block cancels it. *role*, *on_outage* and *max_spend_tokens* are those
        of :meth:`embed`; *store* stands in for that of the embedder.

        The iteration raises :class:`RunStoppedError` after the last result when going on could not help, and
        what *documents* itself raised once everything before is embedded.
        """
        if isinstance(documents, str | bytes | Mapping):
            raise InvalidInputError(f"expected an iterable of documents, got {type(documents).__name__}")
        refuse_table(documents)
        voice = self._roles.voice_of(role)
        options: dict[str, Any] = {"max_spend_tokens": max_spend_tokens, "on_outage": on_outage}
        account = self._account(streams=True, fields=voice.fields, **options)
        parts = self._parts(account, voice.chunker, self._observe, ordered=ordered, store=store)
        async with pipeline.run(documents, parts) as blocks:
            yield Results(blocks, account)

    def stats(self) -> Stats:
        """What this embedder has done so far."""
        return self._tally.stats(tuple(route.capacity() for route in self._router.routes))

    async def aclose(self) -> None:
        """End single calls, and close the connections. An ``http_client`` that was handed in stays open."""
        if self._loop == anyio.lowlevel.current_token():  # elsewhere nothing of it can be waited for
            for singles in self._singles.values():
                await singles.aclose()
        for route in self._router.routes:
            await route.transport.aclose()
        self._stores.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        names = ", ".join(route.name for route in self._router.routes)
        return f"<Embedder {self.model!r} at {names} over {self._router.routes[0].transport.name}, {self.limiter!r}>"

    def _account(self, *, on_outage: OnOutage = "stop", **options: Any) -> Account:
        check_choice("on_outage", on_outage, OnOutage)
        return Account(on_outage=on_outage, retries=self._retries, **options)

    def _parts(
        self, account: Account, chunker: Chunker, observe: Observe, *, ordered: bool, store: Store | None = None
    ) -> Parts:
        self._settle_in_loop()
        if store is None:
            store = self._stores.of(account.fields)
        if account.remaining is not None:
            # By their bytes alone texts would seem to cost four times as much, and the run would end early.
            chunker = replace(chunker, count_tokens=True)
        return Parts(
            chunker=chunker,
            packer=Packer(partial(self._caps, account)),
            send=self._sender.send,
            account=account,
            limits=self._limits,
            # One waits for a place, so it shows whether there are enough. While a store takes its time, others send.
            workers=self._router.places * (1 if isinstance(store, NoStore) else 2) + 1,
            ordered=ordered,
            store=store,
            observe=observe,
        )

    def _urgent_parts(self, voice: Voice) -> Parts:
        chunker = voice.chunker
        if chunker.long_input == "chunks":
            chunker = replace(chunker, long_input="error")
        return self._parts(self._account(urgent=True, fields=voice.fields), chunker, self._observe, ordered=False)

    def _settle_in_loop(self) -> None:
        """Connections belong to the event loop that made them."""
        loop = anyio.lowlevel.current_token()
        self._loop = self._loop or loop
        if self._loop != loop:
            raise ConfigurationError("this Embedder belongs to another event loop; make one for each loop")
        if any(route.transport.is_closed for route in self._router.routes):
            raise ConfigurationError("this Embedder, or the http_client it was given, is closed")

    def _caps(self, account: Account) -> Caps:
        """What a batch may hold now: the least of what is set, what the endpoints take, what may go and be spent."""
        caps = self._router.caps()
        if account.remaining is not None:
            caps = replace(caps, max_tokens=min(caps.max_tokens, account.remaining))
        return caps

    def _observe(self, event: Event) -> None:
        for observe in self._observers:
            observe(event)
