"""The peers, each as its own documentation says, with the concurrency it offers or a semaphore where it offers none."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pybase64

from ..case import Case
from . import Client

KEY = "unused"


class Baseten(Client):
    """
    baseten-performance-client: one call for all, batches and concurrency inside.

    Its own ``.numpy()`` takes numbers only. Asked for base64 it hands out the texts, and the caller decodes them.
    """

    def __init__(self, case: Case, base_url: str) -> None:
        from baseten_performance_client import PerformanceClient, RequestProcessingPreference

        self._by_hand = case.client == "baseten-base64"
        self._client = PerformanceClient(base_url.removesuffix("/v1"), KEY)
        self._preference = RequestProcessingPreference(
            batch_size=case.batch,
            max_concurrent_requests=case.in_flight,
            max_chars_per_request=256_000,  # its most; the default makes requests of 35 of these texts
            hedge_budget_pct=0.0,
            **dict(case.settings),
        )

    async def embed(self, texts: Sequence[str]) -> Any:
        response = await self._client.async_embed(
            input=texts,
            model="bench",
            encoding_format="base64" if self._by_hand else None,
            preference=self._preference,
        )
        if not self._by_hand:
            return response.numpy()
        rows = [np.frombuffer(pybase64.b64decode(each.embedding, validate=True), "<f4") for each in response.data]
        return np.stack(rows)


class OpenAI(Client):
    """openai-python: `gather` and a semaphore, one call for a batch."""

    def __init__(self, case: Case, base_url: str) -> None:
        from openai import AsyncOpenAI

        self._client = AsyncOpenAI(api_key=KEY, base_url=base_url, max_retries=0)
        self._case = case

    async def embed(self, texts: Sequence[str]) -> Any:
        async def one(batch: Sequence[str]) -> list[list[float]]:
            reply = await self._client.embeddings.create(model="bench", input=list(batch))
            return [each.embedding for each in reply.data]

        return await _gather(one, texts, self._case)

    async def embed_one(self, text: str) -> Any:
        return (await self._client.embeddings.create(model="bench", input=text)).data[0].embedding

    async def aclose(self) -> None:
        await self._client.close()


class LangChain(Client):
    """langchain-openai: sends one batch after the other, so `gather` over calls of one batch."""

    def __init__(self, case: Case, base_url: str) -> None:
        from langchain_openai import OpenAIEmbeddings

        self._client = OpenAIEmbeddings(
            model="bench",
            api_key=KEY,
            base_url=base_url,
            chunk_size=case.batch,
            check_embedding_ctx_length=False,
            max_retries=0,
        )
        self._case = case

    async def embed(self, texts: Sequence[str]) -> Any:
        async def one(batch: Sequence[str]) -> list[list[float]]:
            return await self._client.aembed_documents(list(batch))

        return await _gather(one, texts, self._case)


class LlamaIndex(Client):
    """llama-index: `num_workers` requests at a time."""

    def __init__(self, case: Case, base_url: str) -> None:
        from llama_index.embeddings.openai import OpenAIEmbedding

        self._client = OpenAIEmbedding(
            model_name="bench",
            api_key=KEY,
            api_base=base_url,
            embed_batch_size=case.batch,
            num_workers=case.in_flight,
            max_retries=0,
        )

    async def embed(self, texts: Sequence[str]) -> Any:
        return await self._client.aget_text_embedding_batch(list(texts))


class LiteLLM(Client):
    """litellm: `gather` and a semaphore, one call for a batch."""

    def __init__(self, case: Case, base_url: str) -> None:
        import litellm

        self._embed = litellm.aembedding
        self._base_url = base_url
        self._case = case

    async def embed(self, texts: Sequence[str]) -> Any:
        async def one(batch: Sequence[str]) -> list[list[float]]:
            reply = await self._embed(
                model="openai/bench", input=list(batch), api_base=self._base_url, api_key=KEY, num_retries=0
            )
            return [each["embedding"] for each in reply.data]

        return await _gather(one, texts, self._case)


async def _gather(
    one: Callable[[Sequence[str]], Awaitable[list[list[float]]]], texts: Sequence[str], case: Case
) -> list[list[float]]:
    """Embed *texts* in batches, as many at once as the case says."""
    places = asyncio.Semaphore(case.in_flight)

    async def in_turn(batch: Sequence[str]) -> list[list[float]]:
        async with places:
            return await one(batch)

    starts = range(0, len(texts), case.batch)
    replies = await asyncio.gather(*(in_turn(texts[start : start + case.batch]) for start in starts))
    return [vector for reply in replies for vector in reply]


_CLASSES = {
    "baseten": Baseten,
    "baseten-base64": Baseten,
    "langchain": LangChain,
    "litellm": LiteLLM,
    "llama-index": LlamaIndex,
    "openai": OpenAI,
}


def make(case: Case, base_url: str) -> Any:
    return _CLASSES[case.client](case, base_url)
