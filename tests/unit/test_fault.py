"""Status, headers and body decide what a bad reply means and what to do about it."""

from __future__ import annotations

import pytest

from embedbatch.endpoints import Meaning
from embedbatch.errors import (
    AttemptTimeoutError,
    AuthenticationError,
    MalformedReplyError,
    ModelNotFoundError,
    QuotaExhaustedError,
    RateLimitedError,
    RequestError,
    RequestRefusedError,
    ServerError,
)
from embedbatch.wire.fault import (
    Action,
    Trouble,
    judge,
)

from .judging import (
    FAILURE,
    GROWTH,
    NONE,
    OVERLOAD,
    RATE,
    REFUSE,
    SLOWNESS,
    SPLIT,
    STOP,
    UNNAMED,
    WAIT,
    ask,
    openai,
    verdict,
)

# What servers say, and what it means, whether or not the endpoint has answered before

ALWAYS = [
    # OpenAI (contract A5): billing is never waited for, whatever the status
    (429, openai("insufficient_quota", "insufficient_quota"), STOP, QuotaExhaustedError, NONE),
    (429, openai(None, "insufficient_quota"), STOP, QuotaExhaustedError, NONE),
    (429, openai("credit_balance_exhausted", "insufficient_quota"), STOP, QuotaExhaustedError, NONE),
    (429, openai("credit_balance_exhausted"), STOP, QuotaExhaustedError, NONE),
    (429, openai("organization_spend_limit_exceeded"), STOP, QuotaExhaustedError, NONE),
    (429, openai("project_spend_limit_exceeded"), STOP, QuotaExhaustedError, NONE),
    (429, openai("organization_usage_limit_exceeded"), STOP, QuotaExhaustedError, NONE),
    (400, openai("billing_hard_limit_reached"), STOP, QuotaExhaustedError, NONE),
    (403, openai("billing_not_active"), STOP, QuotaExhaustedError, NONE),
    (500, openai("Insufficient_Quota"), STOP, QuotaExhaustedError, NONE),
    # OpenRouter
    (402, b"", STOP, QuotaExhaustedError, NONE),
    (402, openai(402, message="Insufficient credits"), STOP, QuotaExhaustedError, NONE),
    # one-api, new-api (B3.5)
    (403, openai("insufficient_user_quota", "one_api_error"), STOP, QuotaExhaustedError, NONE),
    (403, openai("pre_consume_token_quota_failed", "new_api_error"), STOP, QuotaExhaustedError, NONE),
    (401, openai(None, "one_api_error", "该令牌额度已用尽"), STOP, QuotaExhaustedError, NONE),
    (429, openai("token_concurrency_limit_reached", "new_api_error"), WAIT, RateLimitedError, OVERLOAD),
    (400, openai(message="no text about 该令牌额度已用尽, please"), SPLIT, RequestRefusedError, NONE),
    # rate limits
    (429, openai("rate_limit_exceeded", "tokens"), WAIT, RateLimitedError, RATE),
    (429, openai("slow_down", "rate_limit_error"), WAIT, RateLimitedError, GROWTH),
    (429, b"", WAIT, RateLimitedError, UNNAMED),
    (429, openai(None, "server_error"), WAIT, RateLimitedError, UNNAMED),
    (429, b'{"message": "Model is overloaded", "code": 429, "type": "overloaded"}', WAIT, RateLimitedError, OVERLOAD),
    (429, openai(429, message="当前分组上游负载已饱和，请稍后再试"), WAIT, RateLimitedError, OVERLOAD),
    (503, openai("slow_down"), WAIT, RateLimitedError, GROWTH),
    (400, openai(None, "rate_limit_error"), WAIT, RateLimitedError, RATE),
    (429, openai(None, None, "Rate limit reached on requests per min. Limit: 60 / min."), WAIT, RateLimitedError, RATE),
    # timeouts, conflicts, failures
    (408, b"", WAIT, AttemptTimeoutError, SLOWNESS),
    (409, openai(), WAIT, ServerError, FAILURE),
    (424, b'{"message":"inference failed","code":424,"type":"backend"}', WAIT, ServerError, FAILURE),
    (425, b"", WAIT, ServerError, FAILURE),
    (500, openai(None, "server_error"), WAIT, ServerError, FAILURE),
    (500, b"<html><body>Internal Server Error</body></html>", WAIT, ServerError, FAILURE),
    (500, b"", WAIT, ServerError, FAILURE),
    (502, b"<html><head><title>502 Bad Gateway</title></head></html>", WAIT, ServerError, FAILURE),
    (503, b"", WAIT, ServerError, OVERLOAD),
    (503, openai("server_is_overloaded", "service_unavailable_error"), WAIT, ServerError, OVERLOAD),
    (504, b"error code: 504", WAIT, ServerError, FAILURE),
    (524, b"<!DOCTYPE html>", WAIT, ServerError, FAILURE),
    (524, openai("bad_response_status_code", "upstream_error", ""), WAIT, ServerError, FAILURE),
    (529, openai(None, "overloaded_error"), WAIT, ServerError, OVERLOAD),
    (599, b"", WAIT, ServerError, FAILURE),
    # this request will never be accepted, a part of it may be
    (400, openai("max_tokens_per_request", "max_tokens_per_request"), SPLIT, RequestRefusedError, NONE),
    (400, openai(None, "invalid_request_error"), SPLIT, RequestRefusedError, NONE),
    (400, b'{"object":"error","message":"Too many inputs in request","type":"x"}', SPLIT, RequestRefusedError, NONE),
    (400, b'{"code":20015,"message":"The parameter is invalid."}', SPLIT, RequestRefusedError, NONE),
    (400, b"", SPLIT, RequestRefusedError, NONE),
    (405, b"", SPLIT, RequestRefusedError, NONE),
    (413, b"length limit exceeded", SPLIT, RequestRefusedError, NONE),
    (415, b"", SPLIT, RequestRefusedError, NONE),
    (422, b'{"message":"too many inputs","code":422,"type":"Validation"}', SPLIT, RequestRefusedError, NONE),
    (422, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', SPLIT, RequestRefusedError, NONE),
    (
        500,
        openai(500, message="input is too large to process. increase the physical batch size"),
        SPLIT,
        RequestRefusedError,
        NONE,
    ),
    (500, openai(message="batch size 33 > maximum allowed batch size 32"), SPLIT, RequestRefusedError, NONE),
    (502, b"<html>413 Request Entity Too Large</html>", SPLIT, RequestRefusedError, NONE),
    # another address
    (301, b"", STOP, RequestRefusedError, NONE),
    (307, b"<html>moved</html>", STOP, RequestRefusedError, NONE),
    (308, b"", STOP, RequestRefusedError, NONE),
    # a 200 that is an error (B3.1)
    (200, openai(None, "upstream_error"), WAIT, MalformedReplyError, FAILURE),
    (200, openai("bad_response_status_code", "upstream_error", ""), WAIT, MalformedReplyError, FAILURE),
    (200, b'{"error": "no words"}', WAIT, MalformedReplyError, FAILURE),
    (200, openai("insufficient_user_quota"), STOP, QuotaExhaustedError, NONE),
    (200, openai(402), STOP, QuotaExhaustedError, NONE),
    (200, openai("429"), WAIT, RateLimitedError, UNNAMED),
    (200, openai(429), WAIT, RateLimitedError, UNNAMED),
    (200, openai("rate_limit_exceeded"), WAIT, RateLimitedError, RATE),
    (200, openai(None, "rate_limit_error"), WAIT, RateLimitedError, RATE),
    (200, openai(502), WAIT, ServerError, FAILURE),
    (200, openai(503), WAIT, ServerError, OVERLOAD),
    # an encoding that is refused, whatever the status; and what only mentions one
    (500, openai(message="base64 is not supported by this backend"), SPLIT, RequestRefusedError, NONE),
    (200, openai(message="Unsupported parameter: encoding_format"), SPLIT, RequestRefusedError, NONE),
    (500, openai(message="cannot embed 'how base64 works': out of memory"), WAIT, ServerError, FAILURE),
    (200, openai(529), WAIT, ServerError, OVERLOAD),
    (200, openai(429, message="The engine is overloaded."), WAIT, RateLimitedError, OVERLOAD),
    (200, openai(400), SPLIT, RequestRefusedError, NONE),
    (200, openai(408), WAIT, AttemptTimeoutError, SLOWNESS),
    (200, openai(200), WAIT, MalformedReplyError, FAILURE),
    (200, openai(20015), WAIT, MalformedReplyError, FAILURE),
    (200, openai(-429), WAIT, MalformedReplyError, FAILURE),
    (200, openai("4²9"), WAIT, MalformedReplyError, FAILURE),
    (200, openai("9" * 5_000), WAIT, MalformedReplyError, FAILURE),
]

# What is final before the endpoint has answered once, and may be a gateway's upstream after that (B3.2, B3.4)
UNTIL_PROVEN = [
    (401, openai("invalid_api_key", "invalid_request_error"), AuthenticationError),
    (401, openai(None, "new_api_error", "无效的令牌"), AuthenticationError),
    (401, b"", AuthenticationError),
    (403, openai("unsupported_country_region_territory"), AuthenticationError),
    (403, openai(None, "one_api_error", "该令牌无权使用模型"), AuthenticationError),
    (404, openai("model_not_found", "invalid_request_error"), ModelNotFoundError),
    (404, b"404 page not found", ModelNotFoundError),
    (400, openai("model_not_found"), ModelNotFoundError),
    (403, openai("model_not_found"), ModelNotFoundError),
    (503, openai("model_not_found", "new_api_error", "当前分组 default 下对于模型 x 无可用渠道"), ModelNotFoundError),
    (503, openai(None, "one_api_error", "当前分组 default 下对于模型 x 无可用渠道"), ModelNotFoundError),
    (503, openai(message="No available channel for model x under group default (distributor)"), ModelNotFoundError),
    (200, openai("model_not_found"), ModelNotFoundError),
    (200, openai(401), AuthenticationError),
    (200, openai(404), ModelNotFoundError),
]


@pytest.mark.parametrize("proven", [False, True])
@pytest.mark.parametrize(("status", "body", "action", "error", "trouble"), ALWAYS, ids=range(len(ALWAYS)))
def test_servers_words_decide(
    status: int, body: bytes, action: Action, error: type[RequestError], trouble: Trouble, proven: bool
) -> None:
    """Each line of the table has its action, its error and its trouble, before the first success and after it."""
    fault = ask(status, body, proven=proven)

    assert verdict(fault) == (action, error, trouble)
    assert fault.retry_after is None  # nobody said how long


@pytest.mark.parametrize(("status", "body", "error"), UNTIL_PROVEN, ids=range(len(UNTIL_PROVEN)))
def test_a_refused_key_or_model_is_final_until_one_reply_was_good(
    status: int, body: bytes, error: type[RequestError]
) -> None:
    """Before a success the run stops at once; after one it is tried again, as a failure that pauses nobody."""
    assert verdict(ask(status, body, proven=False)) == (STOP, error, NONE)
    assert verdict(ask(status, body, proven=True)) == (WAIT, error, FAILURE)
    assert ask(status, body, proven=True).retry_after is None


@pytest.mark.parametrize(
    ("meaning", "before", "after", "error", "trouble"),
    [
        ("rate", WAIT, WAIT, RateLimitedError, RATE),
        ("overload", WAIT, WAIT, RateLimitedError, OVERLOAD),
        ("quota", STOP, STOP, QuotaExhaustedError, NONE),
        ("key", STOP, WAIT, AuthenticationError, FAILURE),
        ("model", STOP, WAIT, ModelNotFoundError, FAILURE),
        ("request", SPLIT, SPLIT, RequestRefusedError, NONE),
        ("failure", WAIT, WAIT, ServerError, FAILURE),
    ],
)
def test_an_endpoint_may_mean_something_of_its_own(
    meaning: Meaning, before: Action, after: Action, error: type[RequestError], trouble: Trouble
) -> None:
    """SambaNova's insufficient_quota is a rate: what an endpoint's refusals mean goes before codes and statuses."""
    for words in (openai("Insufficient_Quota"), openai(None, "x", "Sorry: insufficient_quota, you know")):
        for proven, action in ((False, before), (True, after)):
            fault = judge(429, {}, words, proven=proven, meanings={"insufficient_quota": meaning})
            assert verdict(fault) == (action, error, trouble if action is WAIT else NONE)


@pytest.mark.parametrize(
    ("status", "body", "said", "action"),
    [
        (500, b"", "false", REFUSE),
        (429, openai("rate_limit_exceeded"), "false", REFUSE),
        (429, openai("rate_limit_exceeded"), "False", REFUSE),
        (400, b"", "true", WAIT),
        (422, b"", "TRUE", WAIT),
        (400, b"", "false", SPLIT),
        (500, b"", "true", WAIT),
        (500, b"", "maybe", WAIT),
        (400, b"", "", SPLIT),
        (429, openai("insufficient_quota"), "true", STOP),
        (402, b"", "true", STOP),
        (401, b"", "true", STOP),
        (404, b"", "false", STOP),
        (301, b"", "true", STOP),
    ],
)
def test_x_should_retry_wins_where_nothing_is_final(status: int, body: bytes, said: str, action: Action) -> None:
    """ "true" makes wait of split, "false" makes refuse of wait: no part of it is sent; what stops a run stays."""
    fault = ask(status, body, x_should_retry=said)

    assert fault.action is action
    assert fault.trouble is ask(status, body).trouble  # what it says about the endpoint is the same
