"""What a refusal says about size is known by the words of the servers that send it, and believed when it can be so."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedbatch.wire.refusal import NamedCap, Unit, is_overload, is_size_in_disguise, read_cap

INPUTS = 3_000
SIZE = 5_000_000


def cap(
    message: str,
    status: int = 400,
    code: str | None = None,
    type: str | None = None,
    *,
    inputs: int = INPUTS,
    size: int = SIZE,
) -> NamedCap | None:
    """What the refusal of a large request names; of 3,000 inputs and 5 MB, if not told otherwise."""
    return read_cap(status, message, code, type, inputs=inputs, size=size)


CAPS: list[tuple[int, str, Unit, int | None]] = [
    # text-embeddings-inference 0d124dc; SiliconFlow: apecloud/ApeRAG#716
    (422, "batch size 33 > maximum allowed batch size 32", "inputs", 32),
    (413, "batch size 33 > maximum allowed batch size 32", "inputs", 32),
    (413, "input batch size 136 > maximum allowed batch size 64", "inputs", 64),
    # Gemini: geldata/gel#9032
    (400, "* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch\n", "inputs", 100),
    # DashScope: memodb-io/memobase#142, langchain4j#1140
    (
        400,
        "<400> InternalError.Algo.InvalidParameter: Value error, batch size is invalid, it should not be larger than"
        " 10.: input.contents",
        "inputs",
        10,
    ),
    (400, "batch size is invalid, it should not be larger than 25.: payload.input.contents", "inputs", 25),
    # OpenAI: its error for arrays, and the one that cognee#4954 has
    (
        400,
        "Invalid 'input': array too long. Expected an array with maximum length 2048, but got an array with length"
        " 2049 instead.",
        "inputs",
        2_048,
    ),
    (400, "Invalid 'input': array length must be 2048 or less.", "inputs", 2_048),
    # Azure in 2023: cgillum/azure-functions-openai-extension#23, openai-cookbook#252
    (400, "Too many inputs. The max number of inputs is 16.", "inputs", 16),
    (400, "Too many inputs for model None. The max number of inputs is 1.  We hope to increase", "inputs", 1),
    # Cohere: langchain4j#1442
    (400, "invalid request: total number of texts must be at most 96 - received 280", "inputs", 96),
    # Vertex: onyx#2343, vercel/ai#19950
    (400, "_VertexAIError: 400 250 instance(s) is allowed per prediction. Actual: 512", "inputs", 250),
    (
        400,
        "Unable to submit request because it has a batchSize value of 251 but the supported range is from 1"
        " (inclusive) to 251 (exclusive).",
        "inputs",
        250,
    ),
    # Jina: langgenius/dify-official-plugins#1997
    (
        400,
        "[RID: ec42] Validation error: 'body -> jina-embeddings-v4' Each input list can contain at most 512 items..",
        "inputs",
        512,
    ),
    # pydantic 2 and 1, as behind infinity (fcb951c, at most 2,048 items)
    (422, "List should have at most 2048 items after validation, not 2049", "inputs", 2_048),
    (422, "ensure this value has at most 2048 items", "inputs", 2_048),
    # Bedrock
    (400, "Malformed input request: #/texts: expected maximum item count: 96, found: 97, please", "inputs", 96),
    # Zhipu, in both languages
    (400, "input数组最大不得超过64条", "inputs", 64),
    (400, "input array max 64", "inputs", 64),
    # not seen: what others might well say
    (400, "The batch size limit is 1,000. Your batch size is 1,001.", "inputs", 1_000),
    (400, "Batch size (2100) exceeds the maximum of 2048", "inputs", 2_048),
    (400, "at most 96 inputs per request", "inputs", 96),
    (400, "Maximum number of inputs per request is 8", "inputs", 8),
    # Mistral: edgequake-llm#74, chroma#5597, semantic-router#297
    (400, "Too many inputs in request, split into more batches.", "inputs", None),
    (422, "too many inputs", "inputs", None),
    (400, "Too many tokens overall, split into more batches.", "tokens", None),
    (400, "Too many tokens in batch. Max is 16384 got 17555", "tokens", 16_384),
    # OpenAI: OpenDataBox/CrackSQL#27; the number was 600,000 before (timescale/pgai#481)
    (400, "Requested 453357 tokens, max 300000 tokens per request", "tokens", 300_000),
    (400, "Requested 629204 tokens, max 600000 tokens per request", "tokens", 600_000),
    # Voyage: sigoden/aichat#825
    (
        400,
        "Request to model 'voyage-code-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has"
        " 124417 tokens after truncation. Please lower the number of tokens in the batch.",
        "tokens",
        120_000,
    ),
    # Vertex, in several repositories; 500 in its older documentation
    (
        400,
        "Unable to submit request because the input token count is 34708 but the model supports up to 20000. Reduce",
        "tokens",
        20_000,
    ),
    (500, "the input token count is 34708 but the model supports up to 20000", "tokens", 20_000),
    # GitHub Models: nlweb-ai/NLWeb#164
    (413, "Request body too large for text-embedding-3-small model. Max size: 64000 tokens.", "tokens", 64_000),
    # Groq and OpenAI: more than a minute's tokens at once (ha-groq-cloud-api#27, agent-zero#711)
    (
        413,
        "Request too large for model m in organization org_x service tier on_demand on tokens per minute (TPM): Limit"
        " 6000, Requested 12328, please reduce your message size and try again.",
        "tokens",
        6_000,
    ),
    (429, "Request too large for m on tokens per min (TPM): Limit 30000, Requested 36055.", "tokens", 30_000),
    # 413: text-embeddings-inference, nginx, Express, Flask, Google, nothing
    (413, "Failed to buffer the request body: length limit exceeded", "bytes", 2_000_000),
    (413, "<html><head><title>413 Request Entity Too Large</title></head></html>", "bytes", None),
    (413, "<center>nginx/1.18.0</center>", "bytes", None),
    (413, "request entity too large", "bytes", None),
    (413, "", "bytes", None),
    (413, "{'message': 'Request content too large (5000000). Must be smaller than: 10000'}", "bytes", 10_000),
    (413, "Maximum request body size 1048576 exceeded, actual body size 5000000", "bytes", 1_048_576),
    (413, "Payload of 5000000 bytes exceeds the limit of 2,000,000 bytes", "bytes", 2_000_000),
    (413, "The body must not be above 2 MB", "bytes", 2_000_000),
    (413, "limit: 1MiB", "bytes", 1 << 20),
    (413, "limit: 512kb", "bytes", 512_000),
    (413, "limit: 1,500.5 kB", "bytes", 1_500_500),
    (413, "limit: 1500.5 GB", "bytes", None),
    (413, "limit: 1,500 inputs", "bytes", None),
    (413, "At most 64 files, at most 10 GB", "bytes", None),
    (400, "Request payload size exceeds the limit: 4194304 bytes.", "bytes", 4_194_304),
    (500, "PayloadTooLargeError: request entity too large", "bytes", None),
]


@pytest.mark.parametrize(("status", "message", "unit", "number"), CAPS, ids=range(len(CAPS)))
def test_a_refusal_names_the_cap_of_a_request(status: int, message: str, unit: Unit, number: int | None) -> None:
    """Each wording has its unit and its number, or none where the server gives none."""
    assert cap(message, status) == NamedCap(unit, number)


def test_a_code_names_a_cap_without_words() -> None:
    """OpenAI's code or type alone says which cap it was; a number has to be in the words."""
    assert cap("no", code="max_tokens_per_request") == NamedCap("tokens", None)
    assert cap("no", type="max_tokens_per_request") == NamedCap("tokens", None)
    assert cap("no", code="tokens_limit_reached", status=413) == NamedCap("tokens", None)
    assert cap("no", code="array_above_max_length") == NamedCap("inputs", None)
    assert cap("no", code="array_above_max_length", inputs=1) is None
    assert cap("no", type="request_too_large") == NamedCap("bytes", None)
    assert cap("Requested 7 tokens, max 5 tokens per request", code="max_tokens_per_request") == NamedCap(
        "tokens", None
    )


@pytest.mark.parametrize("inputs", [1, 2, 31, 32])
def test_a_cap_on_inputs_is_believed_only_below_what_was_sent(inputs: int) -> None:
    """At most 32 is no reason to refuse 32, and too many are more than one."""
    assert cap("batch size 33 > maximum allowed batch size 32", inputs=inputs) is None
    assert cap("batch size 33 > maximum allowed batch size 32", inputs=33) == NamedCap("inputs", 32)
    assert cap("batch size 1 > maximum allowed batch size 0", inputs=inputs) is None
    assert cap("Too many inputs in request", inputs=1) is None


def test_a_number_of_bytes_is_believed_only_below_what_was_sent() -> None:
    """A limit above the body is not its limit; that the body was too large stays true."""
    assert cap("limit: 2000000 bytes", 413, size=2_000_000) == NamedCap("bytes", None)
    assert cap("limit: 2000000 bytes", 413, size=2_000_001) == NamedCap("bytes", 2_000_000)
    assert cap("length limit exceeded", 413, size=1_000_000) == NamedCap("bytes", None)
    assert cap("limit: 1 byte", 413) == NamedCap("bytes", None)


# What other refusals say, and what is said of one input (contract A1, A5, B1, B3, and test_fault_words.py)

OF_ONE_INPUT = [
    # OpenAI, vLLM
    "This model's maximum context length is 8192 tokens, however you requested 14026 tokens (14026 in your prompt; 0"
    " for the completion). Please reduce your prompt; or completion length.",
    "Invalid 'input[22]': maximum input length is 8192 tokens.",
    "The prompt (length 600) is longer than the maximum model length of 512.",
    # text-embeddings-inference, and its issue 394
    "Input validation error: `inputs` must have less than 512 tokens. Given: 600",
    "Input validation error: `inputs` must have less than 32000 characters. Given: 67337",
    # Ollama, llama.cpp, llama-box, llama-cpp-python, LLamaSharp
    "the input length exceeds the context length",
    "input length exceeds maximum context length",
    "the request exceeds the available context size. try increasing the context size or enable context shift",
    "request (131168 tokens) exceeds the available context size (131072 tokens), try increasing it",
    '{"type":"exceed_context_size_error","n_prompt_tokens":1407,"n_ctx":256}',
    "input (992 tokens) is too large to process. increase the physical batch size (current batch size: 512)",
    "input is too large to process, please increase the physical batch size",
    "input is larger than the max context size. skipping",
    "input prompt is too big compared to KV size, please increase KV size",
    "Requested tokens (516) exceed context window of 512",
    "Input contains more tokens than configured batch size (Parameter 'batch')",
    # others
    "at most 512 tokens per input",
    "text is too long: 600 tokens, at most 512 tokens per text",
]
OF_ONE_VERTEX_INPUT = "the input token count is 3011 but the model supports up to 2048"
ORDINARY = [
    "Words.",
    "no message",
    "'$.input' is invalid. Please check the API reference: https://platform.openai.com/docs/api-reference.",
    "The parameter is invalid. Please check again.",
    "field required",
    "invalid input type",
    "Input cannot be an empty string",
    "input should be a valid string",
    "dimensions must be less than or equal to 1536",
    "Must be less than or equal to 1536",
    "embedding contains NaN or Inf values",
    "encoding_format must be one of float, base64",
    "You do not have access to model x",
    "The model `x` does not exist",
    "无效的令牌",
    "该令牌额度已用尽",
    "该令牌无权使用模型",
    "当前分组 default 下对于模型 x 无可用渠道",
    "user quota is not enough",
    "Insufficient credits",
    "Malformed input request: #/texts/0: expected maxLength: 2048, actual: 19882, please reformat your input",
    "<html><body>Internal Server Error</body></html>",
    "<html><head><title>502 Bad Gateway</title></head></html>",
    "error code: 504",
    "inference failed",
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "upstream response body too large",
    "at most 100 requests per minute",
    "Too many inputs per minute",
    "404 page not found",
    "moved",
    "",
]
BUSY = [
    (429, "Model is overloaded", "overloaded"),  # text-embeddings-inference
    (429, "no", "overloaded"),
    (503, "server busy, please try again.  maximum pending requests exceeded", None),  # Ollama
    (503, "Server overloaded, please retry shortly (ref: aaa65c70)", None),  # ollama/ollama#15934
    (503, "unexpected server status: llm busy - no slots available", None),  # ollama/ollama#4159
    (429, "当前分组上游负载已饱和，请稍后再试", None),  # one-api, new-api
    (429, "the upstream load of the current group is saturated, please try again later", None),
    (429, "您当前使用该API的并发数过高", None),  # Zhipu
    (503, "The server is currently overloaded with other requests.", "service_unavailable_error"),  # OpenAI
    (503, "The model is overloaded. Please try again later.", None),  # Gemini
    (429, "Service tier capacity exceeded for this model.", None),  # Mistral
    (529, "Overloaded", "overloaded_error"),
    (503, "queue full", None),
    (503, "The queue is full", None),
    (429, "Too many concurrent requests", None),
    (429, "no", "token_concurrency_limit_reached"),  # new-api
    (503, "Overloaded, see https://example.com/docs/rate-limits", None),
]
RATES = [
    "Rate limit reached for m on tokens per min (TPM): Limit 1000000, Used 998000, Requested 4333. Try again in 193ms.",
    "Rate limit reached for m on requests per day (RPD): Limit 200, Used 200, Requested 1.",
    # Azure, DashScope, SiliconFlow, Gemini, Voyage, GitHub Models
    "have exceeded call rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds.",
    "Requests rate limit exceeded, please try again later.",
    "Request was rejected due to rate limiting. Details: TPM limit reached.",
    "Resource has been exhausted (e.g. check quota).",
    "You exceeded your current quota, please check your plan and billing details.",
    "You have reduced rate limits of 3 RPM and 10K TPM.",
    "Rate limit of 15 per 60s exceeded for UserByModelByMinute.",
    # busy, it says, but by a rate
    "Server busy: 100 requests per minute",
    "The server is overloaded: 40 API calls / minute",
    "请求频率过高，服务繁忙",
    "Too Many Requests",
]


@pytest.mark.parametrize("message", OF_ONE_INPUT)
def test_a_limit_of_one_input_is_no_cap_of_a_request(message: str) -> None:
    """The context length of a model and its like say nothing about how much goes into a request, not even with 413."""
    for status in (400, 413, 422, 500):
        assert cap(message, status) is None


def test_vertex_says_the_same_of_one_text_as_of_all() -> None:
    """What one text can have is no cap on all of them."""
    assert cap(OF_ONE_VERTEX_INPUT) is None


@pytest.mark.parametrize("message", ORDINARY + RATES + [message for _, message, _ in BUSY])
def test_other_refusals_name_no_cap(message: str) -> None:
    """Bad parameters, keys, models, credit, rates and failures are not about size."""
    for status in (200, 400, 401, 403, 404, 422, 429, 500, 503):
        assert cap(message, status, "invalid_request_error", "invalid_request_error") is None


def test_a_rate_is_no_cap() -> None:
    """A 429 is about a cap only if more was requested than the limit is; then no waiting helps."""
    rate = "on tokens per min (TPM): Limit 30000, Used 29000, Requested 30000"

    assert cap(rate, 429) is None
    assert cap(rate, 413) is None
    assert cap("on requests per min (RPM): Limit 3, Requested 3000", 429) is None
    assert cap("at most 96 inputs per request", 429) is None


# 5xx


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("message", [*OF_ONE_INPUT, *(message for status, message, _, _ in CAPS if status != 413)])
def test_a_size_error_is_seen_through_its_status(status: int, message: str) -> None:
    """A request or an input that is too large is so with a 5xx too: llama.cpp sends 500, and gateways do."""
    assert is_size_in_disguise(status, message)


@pytest.mark.parametrize("message", ORDINARY + RATES + [message for _, message, _ in BUSY])
def test_a_plain_5xx_is_not_about_size(message: str) -> None:
    """Failures, gateways' pages and busy servers are no size errors."""
    assert not is_size_in_disguise(500, message)
    assert not is_size_in_disguise(503, message)


@pytest.mark.parametrize("status", [200, 400, 413, 422, 429, 600])
def test_only_a_5xx_is_a_disguise(status: int) -> None:
    """A 4xx says what it is."""
    assert not is_size_in_disguise(status, OF_ONE_INPUT[0])


# Overload


@pytest.mark.parametrize(("status", "message", "type"), BUSY)
def test_a_busy_server_is_told_from_a_rate(status: int, message: str, type: str | None) -> None:
    """These servers say that too much is in flight; with another status the same words are not taken for that."""
    assert is_overload(status, message, type)
    assert not is_overload(400, message, type)


@pytest.mark.parametrize("message", RATES + ORDINARY)
@pytest.mark.parametrize("type", [None, "rate_limit_error", "requests", "server_error"])
def test_a_rate_or_a_quota_is_no_overload(message: str, type: str | None) -> None:
    """What is limited per minute, day or key will not come back sooner for fewer requests at once."""
    assert not is_overload(429, message, type)
    assert not is_overload(503, message, type)


# Laws

fragments = st.sampled_from(
    [
        *("batch size ", " > maximum allowed batch size ", "at most ", " inputs per request", "too many inputs "),
        *("Requested 9 tokens, max ", " tokens per request", "tokens per min Limit ", "limit: ", " MB", " bytes"),
        *("batchSize value of 2 but the supported range is from 1 (inclusive) to ", " (exclusive)"),
        *("9" * 400, "1,000", "0", "1", "600", "20.5"),
    ]
)
texts = st.text(max_size=60) | st.lists(fragments | st.integers(0, 10**7).map(str), max_size=8).map("".join)
names = st.none() | st.sampled_from(["max_tokens_per_request", "array_above_max_length", "overloaded"]) | st.text()


@given(st.integers(100, 999), texts, names, names, st.integers(0, 5_000), st.integers(0, 10**8))
@example(413, "limit: " + "9" * 5_000 + " GB", None, None, 2, 10**8)
def test_no_refusal_raises_or_teaches_a_cap_that_cannot_be(
    status: int, message: str, code: str | None, type: str | None, inputs: int, size: int
) -> None:
    """Whatever it says, inputs and bytes are below those that were sent, and tokens not below 512."""
    found = read_cap(status, message, code, type, inputs=inputs, size=size)
    is_overload(status, message, type)
    is_size_in_disguise(status, message)

    if found is not None and found.unit == "inputs":
        assert inputs > 1
        assert found.number is None or 1 <= found.number < inputs
    elif found is not None and found.number is not None:
        assert found.number < size if found.unit == "bytes" else 512 <= found.number <= 10**12


@given(st.integers(1, 5_000), st.integers(1, 5_000))
def test_any_number_of_inputs_is_read(limit: int, inputs: int) -> None:
    """The number in the words is the number in the cap, if more than that were sent."""
    found = cap(f"batch size {inputs} > maximum allowed batch size {limit:,}", 422, inputs=inputs)

    assert found == (NamedCap("inputs", limit) if limit < inputs else None)
