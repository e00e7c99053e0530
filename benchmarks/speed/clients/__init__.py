"""
The clients: a name for each, what it is called in a table, and the environment it lives in.

A client module has ``make(case, base_url)``; it is imported in the process that measures, never here.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..case import Case

OURS = "ours"
PEERS = "peers"


class Client:
    """Embeds texts with what a user of that library would write."""

    def prepare(self, count: int) -> None:
        """Get ready for *count* texts, before the time runs. Only the limits do."""

    async def embed(self, texts: Sequence[str], /) -> Any:
        """One vector for each text, in order: an array, or a list of lists of floats as the library gives them."""
        raise NotImplementedError

    async def embed_one(self, text: str, /) -> Any:
        """The vector of one text."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close the connections, where the library has a way; else they end with the process."""


@dataclass(frozen=True)
class Known:
    """A client: its title, its module here, and its environment."""

    title: str
    module: str
    home: str
    packages: tuple[str, ...]  # whose versions are named
    gives_vectors: bool = True


_EMBEDBATCH = ("embedbatch", "httpx", "msgspec", "pybase64", "numpy")
_OPENAI = ("openai", "httpx", "numpy")

CLIENTS = {
    "raw-discard": Known("blocking socket, replies discarded", "raw", OURS, (), gives_vectors=False),
    "raw-decode": Known("blocking socket, decoding", "raw", OURS, ("msgspec", "pybase64", "numpy")),
    "raw-many": Known("several sockets, replies discarded", "raw", OURS, (), gives_vectors=False),
    "embedbatch-fast": Known("embedbatch [fast]", "ours", OURS, (*_EMBEDBATCH, "aiohttp", "httpx-aiohttp")),
    "embedbatch-fast-uvloop": Known("embedbatch [fast], uvloop", "ours", OURS, ("uvloop",)),
    "embedbatch-fast-stream": Known("embedbatch [fast], stream()", "ours", OURS, ("embedbatch",)),
    "embedbatch": Known("embedbatch, default httpx", "ours", OURS, _EMBEDBATCH),
    "baseten": Known("baseten-performance-client", "peers", PEERS, ("baseten-performance-client", "numpy")),
    "baseten-base64": Known(
        "baseten, base64, caller decodes",
        "peers",
        PEERS,
        ("baseten-performance-client", "pybase64", "numpy"),
    ),
    "langchain": Known("langchain-openai", "peers", PEERS, ("langchain-openai", *_OPENAI)),
    "openai": Known("openai-python", "peers", PEERS, _OPENAI),
    "llama-index": Known("llama-index OpenAIEmbedding", "peers", PEERS, ("llama-index-embeddings-openai", *_OPENAI)),
    "litellm": Known("litellm aembedding", "peers", PEERS, ("litellm", *_OPENAI)),
    "tiktoken": Known("tiktoken alone", "splitters", OURS, ("tiktoken",)),
    "embedbatch-plan": Known("embedbatch, planning alone", "splitters", OURS, ("embedbatch", "tiktoken")),
    "embedbatch-long": Known("embedbatch, whole embed()", "splitters", OURS, ("embedbatch", "tiktoken")),
    "langchain-split": Known("langchain-openai's splitting", "splitters", PEERS, ("langchain-openai", "tiktoken")),
}


def make(case: Case, base_url: str) -> Client:
    """The client of a case. Imports its library."""
    module = importlib.import_module(f".{CLIENTS[case.client].module}", __package__)
    made: Client = module.make(case, base_url)
    return made
