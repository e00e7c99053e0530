"""What is done to long documents before anything is sent. Each gives back what can be checked, and its chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..case import Case
from . import Client

MAX_TOKENS = 8_192
SLAB = 500_000  # characters that are planned at once, as in a run


class Splitter(Client):
    """Splits documents; *chunks* says how many parts there were, 0 for who does not cut."""

    chunks = 0

    async def split(self, documents: Sequence[str]) -> Any:
        """The timed work."""
        raise NotImplementedError

    def check(self, documents: Sequence[str], got: Any) -> None:
        """Raise unless *got* holds everything that is in *documents*."""
        raise NotImplementedError


class Tiktoken(Splitter):
    """tiktoken alone: every document tokenized, in the fastest way that it has."""

    def __init__(self) -> None:
        import tiktoken

        self._encoding = tiktoken.get_encoding("cl100k_base")

    async def split(self, documents: Sequence[str]) -> Any:
        encode = self._encoding.encode_to_numpy
        return [encode(document, disallowed_special=()) for document in documents]

    def check(self, documents: Sequence[str], got: Any) -> None:
        assert [self._encoding.decode(tokens) for tokens in got] == list(documents)


class Plan(Splitter):
    """embedbatch: the chunker as a run uses it, slab by slab; nothing is packed or sent."""

    def __init__(self) -> None:
        from embedbatch.plan.chunker import Chunker
        from embedbatch.plan.tokens import cl100k_base

        self._tokenizer = cl100k_base()
        self._chunker = Chunker(tokenizer=self._tokenizer, max_input_tokens=MAX_TOKENS)

    async def split(self, documents: Sequence[str]) -> Any:
        from embedbatch.plan.documents import Source

        plans = []
        slab: list[Source] = []
        effort = 0
        for position, document in enumerate(documents):
            slab.append(Source(position, position, document))
            effort += self._chunker.effort(document)
            if effort >= SLAB or position + 1 == len(documents):
                plans.append(self._chunker.plan(slab))
                slab, effort = [], 0
        return plans

    def check(self, documents: Sequence[str], got: Any) -> None:
        spans: dict[int, Any] = {}
        for plan in got:
            assert not plan.failures
            spans |= {position: part.spans for position, part in plan.parts.items()}
            self.chunks += len(plan.chunks)
        for position, document in enumerate(documents):
            ends = spans.get(position, ((0, len(document)),))
            parts = [document[start:end] for start, end in ends]
            assert "".join(parts) == document
            assert all(self._tokenizer.count(part) <= MAX_TOKENS for part in parts)


class Whole(Splitter):
    """embedbatch: the whole of `embed()`, against the load server."""

    def __init__(self, case: Case, base_url: str) -> None:
        from embedbatch import Embedder
        from embedbatch.plan.tokens import cl100k_base

        self._embedder = Embedder("bench", base_url=base_url, tokenizer=cl100k_base(), max_input_tokens=MAX_TOKENS)

    async def split(self, documents: Sequence[str]) -> Any:
        return await self._embedder.embed(documents)

    def check(self, documents: Sequence[str], got: Any) -> None:
        assert len(got.vectors) == len(documents)
        assert not got.failures
        for cut in got.cut:
            document = documents[cut.position]
            assert "".join(document[start:end] for start, end in cut.spans) == document
            self.chunks += len(cut.spans) - 1
        self.chunks += len(documents)

    async def aclose(self) -> None:
        await self._embedder.aclose()


class LangChain(Splitter):
    """langchain-openai: what it does to the texts of a call before it sends them."""

    def __init__(self, base_url: str) -> None:
        from langchain_openai import OpenAIEmbeddings

        self._client = OpenAIEmbeddings(model="text-embedding-3-small", api_key="unused", base_url=base_url)

    async def split(self, documents: Sequence[str]) -> Any:
        return self._client._tokenize(list(documents), self._client.chunk_size)

    def check(self, documents: Sequence[str], got: Any) -> None:
        import tiktoken

        _, tokens, positions, _ = got
        self.chunks = len(tokens)
        encoding = tiktoken.get_encoding("cl100k_base")
        together: list[list[int]] = [[] for _ in documents]
        for position, part in zip(positions, tokens, strict=True):
            together[position] += part
        assert [encoding.decode(part) for part in together] == list(documents)


def make(case: Case, base_url: str) -> Splitter:
    match case.client:
        case "tiktoken":
            return Tiktoken()
        case "embedbatch-plan":
            return Plan()
        case "embedbatch-long":
            return Whole(case, base_url)
    return LangChain(base_url)
