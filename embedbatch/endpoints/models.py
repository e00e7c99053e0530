"""What is known about models. Facts with their sources, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, kw_only=True)
class Model:
    """What is known of a model: its vector size, its limit in tokens, and the name of its tokenizer."""

    dimensions: int | None = None
    max_input_tokens: int = 8_192
    tokenizer: str | None = None
    takes_dimensions: bool = True


# tiktoken/model.py for the tokenizers; developers.openai.com/api/docs/models for sizes.
MODELS = MappingProxyType(
    {
        "text-embedding-3-small": Model(dimensions=1_536, tokenizer="cl100k_base"),
        "text-embedding-3-large": Model(dimensions=3_072, tokenizer="cl100k_base"),
        "text-embedding-ada-002": Model(dimensions=1_536, tokenizer="cl100k_base", takes_dimensions=False),
        "local": Model(dimensions=256, tokenizer="local"),
    }
)
UNKNOWN_MODEL = Model()
