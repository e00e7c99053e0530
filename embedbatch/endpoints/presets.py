"""
The servers that are known: facts with their sources, no behaviour.

*source* begins with the server's own name. What no source says is left as it is for an unknown server, and learned.
Read in August to November 2026; nothing here was tried against a live service, but see docs/servers.md for what real
servers answered.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

from .endpoint import Endpoint

# OpenAI's OpenAPI document, CreateEmbeddingRequest: at most 2,048 inputs, 8,192 tokens each, 300,000 in one
# request. The last is reported to be counted as 0.25 token per UTF-8 byte (timescale/pgai#730), so a body stays
# below 1.2 MB too.
OPENAI = Endpoint(
    name="openai",
    base_url="https://api.openai.com/v1",
    root="/v1",
    hosts=("api.openai.com", "eu.api.openai.com", "us.api.openai.com"),
    needs_key=True,
    max_request_bytes=1_200_000,
    token_arrays=True,
    normalised=True,
    source="OpenAI: openai-openapi f85dbe2; guides on embeddings, rate limits and error codes",
)

# The embedded model: see embedbatch.local.
LOCAL = Endpoint(
    name="local", base_url="http://embedbatch.local/v1", max_input_tokens=8_192, normalised=True, source="this package"
)

# A server nothing is known of: the wire contract, without what many servers lack (contract: token arrays).
UNKNOWN = Endpoint(name="openai-compatible", source="any server: the wire contract; what it refuses is learned")

_AZURE: dict[str, Any] = {
    "needs_key": True,
    "key_variable": "AZURE_OPENAI_API_KEY",
    "url_variable": "AZURE_OPENAI_ENDPOINT",
    # Keys go in a header of their own; tokens of Microsoft Entra in the usual one.
    "auth": "api-key: {key}",
    "token_auth": "Authorization: Bearer {key}",
    "max_request_bytes": 1_200_000,
    "token_arrays": True,
    "normalised": True,
}
AZURE = Endpoint(
    name="azure",
    root="/openai/v1",
    hosts=("*.openai.azure.com", "*.services.ai.azure.com", "*.cognitiveservices.azure.com"),
    source="Azure OpenAI: learn.microsoft.com, Azure OpenAI in Foundry Models v1 API; the model is the deployment",
    **_AZURE,
)
AZURE_DEPLOYMENTS = Endpoint(
    name="azure-deployments",
    root="/openai/deployments/{model}",
    query={"api-version": "2024-10-21"},  # the last that is generally available
    source="Azure OpenAI, deployment URLs: learn.microsoft.com, Azure OpenAI REST API reference 2024-10-21",
    **_AZURE,
)

# A gateway passes on what its channels send: their headers describe an account of its own, token arrays are dropped
# without a word for Ali, Baidu, Gemini, Ollama, Tencent and Zhipu.
_GATEWAY: dict[str, Any] = {"root": "/v1", "max_request_bytes": 1_200_000, "rate_headers": False}
ONE_API = Endpoint(
    name="one-api",
    source="one-api: songquanpeng/one-api 8df4a26, relay/adaptor/openai/main.go, controller/relay.go",
    **_GATEWAY,
)
NEW_API = Endpoint(
    name="new-api",
    source="new-api: Calcium-Ion/new-api ef8ae4d, relay-openai.go, distributor.go; QuantumNous/new-api types/error.go",
    **_GATEWAY,
)
LITELLM = Endpoint(
    name="litellm",
    source="LiteLLM proxy: BerriAI/litellm#42421 (floats for base64, dimensions dropped by some backends)",
    **_GATEWAY,
)
OPENROUTER = Endpoint(
    name="openrouter",
    base_url="https://openrouter.ai/api/v1",
    hosts=("openrouter.ai",),
    needs_key=True,
    key_variable="OPENROUTER_API_KEY",
    encoding_format="float",  # base64 can bring a 200 without data
    source="OpenRouter: plastic-labs/honcho#932, mem0ai/mem0#4057, langchain#35204",
    **{**_GATEWAY, "root": "/api/v1"},
)

# Servers of one's own.
VLLM = Endpoint(
    name="vllm",
    root="/v1",
    token_arrays=True,
    source="vLLM: entrypoints/openai/protocol.py and serving_embedding.py; vllm-project/vllm#5734, #6174",
)
TEI = Endpoint(
    name="tei",
    root="/v1",
    max_inputs=32,  # --max-client-batch-size
    max_request_bytes=2_000_000,  # --payload-limit
    token_arrays=True,
    normalised=True,
    source="Text Embeddings Inference: huggingface/text-embeddings-inference 0d124dc, router/src/http/server.rs",
)
INFINITY = Endpoint(
    name="infinity",  # url_prefix is empty, so there is no /v1
    normalised=False,  # fewer dimensions are cut off and not scaled: measured
    source="infinity: michaelfeil/infinity fcb951c, fastapi_schemas/pymodels.py, env.py",
)
OLLAMA = Endpoint(
    name="ollama",
    base_url="http://localhost:11434/v1",
    root="/v1",
    normalised=True,
    source="Ollama: ollama/ollama fb30760, server/routes.go, middleware/openai.go",
)
LLAMA_CPP = Endpoint(
    name="llama.cpp",
    root="/v1",
    token_arrays=True,
    dimensions_field=None,
    source="llama.cpp server: tools/server/server-common.cpp; ggml-org/llama.cpp#12295, #12836",
)
LLAMA_CPP_PYTHON = Endpoint(
    name="llama-cpp-python",
    root="/v1",
    encoding_format="float",  # base64 is ignored, as dimensions are
    dimensions_field=None,
    normalised=False,
    source="llama-cpp-python: the server of 0.3.36, measured",
)
LOCALAI = Endpoint(
    name="localai",
    root="/v1",
    token_arrays=True,
    source="LocalAI: mudler/LocalAI 82c191a, core/http/endpoints/openai/embeddings.go; #9135",
)
LM_STUDIO = Endpoint(
    name="lm-studio",
    base_url="http://localhost:1234/v1",
    root="/v1",
    encoding_format="float",  # base64 is ignored
    source="LM Studio: lmstudio-ai/lmstudio-bug-tracker#756; danny-avila/rag_api#115 (token arrays refused)",
)

# Vendors.
TOGETHER = Endpoint(
    name="together",
    base_url="https://api.together.xyz/v1",
    root="/v1",
    hosts=("api.together.xyz", "api.together.ai"),
    needs_key=True,
    key_variable="TOGETHER_API_KEY",
    encoding_format=None,
    dimensions_field=None,
    source="Together: docs.together.ai, create-embedding (model and input, nothing else); rig's client",
)
FIREWORKS = Endpoint(
    name="fireworks",
    base_url="https://api.fireworks.ai/inference/v1",
    root="/inference/v1",
    hosts=("api.fireworks.ai",),
    needs_key=True,
    key_variable="FIREWORKS_API_KEY",
    encoding_format=None,
    source="Fireworks: docs.fireworks.ai, create embeddings (2,048 inputs, dimensions; no encoding_format)",
)
DEEPINFRA = Endpoint(
    name="deepinfra",
    base_url="https://api.deepinfra.com/v1/openai",
    root="/v1/openai",
    hosts=("api.deepinfra.com",),
    needs_key=True,
    key_variable="DEEPINFRA_TOKEN",
    max_inputs=1_024,
    source="DeepInfra: docs.deepinfra.com, OpenAI embeddings; langchainjs (1,024 inputs); hindsight#434",
)
MISTRAL = Endpoint(
    name="mistral",
    base_url="https://api.mistral.ai/v1",
    root="/v1",
    hosts=("api.mistral.ai",),
    needs_key=True,
    key_variable="MISTRAL_API_KEY",
    max_inputs=256,
    max_request_tokens=16_000,
    dimensions_field="output_dimension",
    normalised=True,
    source="Mistral: docs.mistral.ai, embeddings; rig (257 inputs: 400); langchain (16,000 tokens a request)",
)
JINA = Endpoint(
    name="jina",
    base_url="https://api.jina.ai/v1",
    root="/v1",
    hosts=("api.jina.ai",),
    needs_key=True,
    key_variable="JINA_API_KEY",
    max_inputs=512,
    encoding_field="embedding_type",
    source="Jina: api.jina.ai, embeddings; weaviate adcffc5 and dify-official-plugins#1997 (512 inputs)",
)
VOYAGE = Endpoint(
    name="voyage",
    base_url="https://api.voyageai.com/v1",
    root="/v1",
    hosts=("api.voyageai.com",),
    needs_key=True,
    key_variable="VOYAGE_API_KEY",
    max_inputs=1_000,
    max_request_tokens=120_000,  # of the models with the lowest limit
    dimensions_field="output_dimension",
    extra_body={"truncation": False},  # without it texts are cut in silence
    normalised=True,
    source="Voyage: docs.voyageai.com, embeddings API; hindsight#925 (encoding_format is base64 or absent)",
)
NOMIC = Endpoint(
    name="nomic",
    base_url="https://api-atlas.nomic.ai/v1",
    root="/v1",
    path="/embedding/text",
    hosts=("api-atlas.nomic.ai",),
    needs_key=True,
    key_variable="NOMIC_API_KEY",
    max_inputs=50,
    encoding_format=None,
    input_field="texts",
    dimensions_field="dimensionality",
    extra_body={"task_type": "search_document"},
    source="Nomic: docs.nomic.ai, embedding API: texts in, embeddings out; nomic's own client (50 texts)",
)
NIM = Endpoint(
    name="nim",
    base_url="https://integrate.api.nvidia.com/v1",
    root="/v1",
    hosts=("integrate.api.nvidia.com",),
    key_variable="NVIDIA_API_KEY",
    extra_body={"input_type": "passage", "truncate": "NONE"},
    source="NVIDIA NIM: docs.nvidia.com, NeMo Retriever text embedding, reference 1.9 and 2.0",
)
GEMINI = Endpoint(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com/v1beta/openai",
    root="/v1beta/openai",
    hosts=("generativelanguage.googleapis.com",),
    needs_key=True,
    key_variable="GEMINI_API_KEY",
    max_inputs=100,
    encoding_format="float",
    normalised=False,  # only at full size
    source="Gemini: ai.google.dev, OpenAI compatibility; geldata/gel#9032 (100 inputs); hindsight#925 (no base64)",
)
VERTEX = Endpoint(
    name="vertex",
    hosts=("*-aiplatform.googleapis.com",),
    needs_key=True,
    key_variable=None,  # a token, which a callable gives
    url_variable=None,
    max_inputs=250,
    max_request_tokens=20_000,
    encoding_format="float",
    source="Vertex AI: cloud.google.com, text embeddings; timescale/pgai; onyx#2343 (250 inputs, 20,000 tokens)",
)
COHERE = Endpoint(
    name="cohere",
    base_url="https://api.cohere.ai/compatibility/v1",
    root="/compatibility/v1",
    hosts=("api.cohere.ai", "api.cohere.com"),
    needs_key=True,
    key_variable="CO_API_KEY",
    max_inputs=96,
    source="Cohere: docs.cohere.com, compatibility API; cohere-python config.py (96 inputs)",
)
CLOUDFLARE = Endpoint(
    name="cloudflare",  # …/client/v4/accounts/ACCOUNT/ai/v1
    hosts=("api.cloudflare.com",),
    needs_key=True,
    key_variable="CLOUDFLARE_API_TOKEN",
    url_variable=None,
    max_inputs=100,
    source="Cloudflare Workers AI: developers.cloudflare.com, OpenAI compatible endpoints; cloudflare-docs#11316",
)
DASHSCOPE = Endpoint(
    name="dashscope",
    base_url="https://dashscope.aliyuncs.com/compatible-mode/v1",
    root="/compatible-mode/v1",
    hosts=("dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com", "*.maas.aliyuncs.com"),
    needs_key=True,
    key_variable="DASHSCOPE_API_KEY",
    max_inputs=10,
    encoding_format="float",
    source="DashScope: help.aliyun.com, OpenAI-compatible embedding (10 inputs, only float); memobase#142",
)
SILICONFLOW = Endpoint(
    name="siliconflow",
    base_url="https://api.siliconflow.cn/v1",
    root="/v1",
    hosts=("api.siliconflow.cn", "api.siliconflow.com", "api.ap.siliconflow.com"),
    needs_key=True,
    key_variable="SILICONFLOW_API_KEY",
    max_inputs=32,
    source="SiliconFlow: docs.siliconflow.cn, create embeddings (32 inputs, float or base64)",
)
SAMBANOVA = Endpoint(
    name="sambanova",
    base_url="https://api.sambanova.ai/v1",
    root="/v1",
    hosts=("api.sambanova.ai",),
    needs_key=True,
    key_variable="SAMBANOVA_API_KEY",
    refusals={"insufficient_quota": "rate"},
    source="SambaNova: docs.sambanova.ai, error codes: insufficient_quota is ordinary rate limiting",
)

_ALL = (
    *(OPENAI, AZURE, AZURE_DEPLOYMENTS),
    *(ONE_API, NEW_API, LITELLM, OPENROUTER),
    *(VLLM, TEI, INFINITY, OLLAMA, LLAMA_CPP, LLAMA_CPP_PYTHON, LOCALAI, LM_STUDIO),
    *(TOGETHER, FIREWORKS, DEEPINFRA, MISTRAL, JINA, VOYAGE, NOMIC, NIM, GEMINI, VERTEX, COHERE, CLOUDFLARE),
    *(DASHSCOPE, SILICONFLOW, SAMBANOVA),
)
PRESETS = MappingProxyType({preset.name: preset for preset in _ALL})
