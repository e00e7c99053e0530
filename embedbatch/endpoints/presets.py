"""The servers that are known. Facts with their sources, no behaviour."""

from __future__ import annotations

from .endpoint import Endpoint

# OpenAI's OpenAPI document, CreateEmbeddingRequest: at most 2,048 inputs, 8,192 tokens each, 300,000 in one
# request. The last is reported to be counted as 0.25 token per UTF-8 byte (timescale/pgai#730), so a body stays
# below 1.2 MB too.
OPENAI = Endpoint(
    name="openai",
    base_url="https://api.openai.com/v1",
    needs_key=True,
    max_request_bytes=1_200_000,
    token_arrays=True,
)

# The embedded model: see embedbatch.local.
LOCAL = Endpoint(name="local", base_url="http://embedbatch.local/v1", max_input_tokens=8_192)

# A server nothing is known of: the wire contract, without what many servers lack (contract: token arrays).
UNKNOWN = Endpoint(name="openai-compatible")
