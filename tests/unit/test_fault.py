"""Status, headers and body decide what a bad reply means and what to do about it."""

from __future__ import annotations

import pytest

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
)

from .judging import REFUSE, STOP, WAIT, ask, openai, verdict

# What servers say, and what it means, whether or not the endpoint has answered before

ALWAYS = [
    # OpenAI (contract A5): billing is never waited for, whatever the status
    (429, openai("insufficient_quota", "insufficient_quota"), STOP, QuotaExhaustedError, False),
    (429, openai(None, "insufficient_quota"), STOP, QuotaExhaustedError, False),
    (429, openai("credit_balance_exhausted", "insufficient_quota"), STOP, QuotaExhaustedError, False),
    (429, openai("credit_balance_exhausted"), STOP, QuotaExhaustedError, False),
    (429, openai("organization_spend_limit_exceeded"), STOP, QuotaExhaustedError, False),
    (429, openai("project_spend_limit_exceeded"), STOP, QuotaExhaustedError, False),
    (429, openai("organization_usage_limit_exceeded"), STOP, QuotaExhaustedError, False),
    (400, openai("billing_hard_limit_reached"), STOP, QuotaExhaustedError, False),
    (403, openai("billing_not_active"), STOP, QuotaExhaustedError, False),
    (500, openai("Insufficient_Quota"), STOP, QuotaExhaustedError, False),
    # OpenRouter
    (402, b"", STOP, QuotaExhaustedError, False),
    (402, openai(402, message="Insufficient credits"), STOP, QuotaExhaustedError, False),
    # one-api, new-api (B3.5)
    (403, openai("insufficient_user_quota", "one_api_error"), STOP, QuotaExhaustedError, False),
    (403, openai("pre_consume_token_quota_failed", "new_api_error"), STOP, QuotaExhaustedError, False),
    # rate limits
    (429, openai("rate_limit_exceeded", "tokens"), WAIT, RateLimitedError, True),
    (429, openai("slow_down", "rate_limit_error"), WAIT, RateLimitedError, True),
    (429, b"", WAIT, RateLimitedError, True),
    (429, openai(None, "server_error"), WAIT, RateLimitedError, True),
    (429, b'{"message": "Model is overloaded", "code": 429, "type": "overloaded"}', WAIT, RateLimitedError, True),
    (429, openai(429, message="当前分组上游负载已饱和，请稍后再试"), WAIT, RateLimitedError, True),
    (503, openai("slow_down"), WAIT, RateLimitedError, True),
    (400, openai(None, "rate_limit_error"), WAIT, RateLimitedError, True),
    # timeouts, conflicts, failures
    (408, b"", WAIT, AttemptTimeoutError, False),
    (409, openai(), WAIT, ServerError, False),
    (424, b'{"message":"inference failed","code":424,"type":"backend"}', WAIT, ServerError, False),
    (425, b"", WAIT, ServerError, False),
    (500, openai(None, "server_error"), WAIT, ServerError, False),
    (500, b"<html><body>Internal Server Error</body></html>", WAIT, ServerError, False),
    (500, b"", WAIT, ServerError, False),
    (502, b"<html><head><title>502 Bad Gateway</title></head></html>", WAIT, ServerError, False),
    (503, openai("server_is_overloaded", "service_unavailable_error"), WAIT, ServerError, False),
    (504, b"error code: 504", WAIT, ServerError, False),
    (524, b"<!DOCTYPE html>", WAIT, ServerError, False),
    (524, openai("bad_response_status_code", "upstream_error", ""), WAIT, ServerError, False),
    (529, openai(None, "overloaded_error"), WAIT, ServerError, False),
    (599, b"", WAIT, ServerError, False),
    # this request will never be accepted
    (400, openai("max_tokens_per_request", "max_tokens_per_request"), REFUSE, RequestRefusedError, False),
    (400, openai(None, "invalid_request_error"), REFUSE, RequestRefusedError, False),
    (400, b'{"object":"error","message":"Too many inputs in request","type":"x"}', REFUSE, RequestRefusedError, False),
    (400, b'{"code":20015,"message":"The parameter is invalid."}', REFUSE, RequestRefusedError, False),
    (400, b"", REFUSE, RequestRefusedError, False),
    (405, b"", REFUSE, RequestRefusedError, False),
    (413, b"length limit exceeded", REFUSE, RequestRefusedError, False),
    (415, b"", REFUSE, RequestRefusedError, False),
    (422, b'{"message":"too many inputs","code":422,"type":"Validation"}', REFUSE, RequestRefusedError, False),
    (422, b'{"detail":[{"loc":["body"],"msg":"field required"}]}', REFUSE, RequestRefusedError, False),
    # another address
    (301, b"", STOP, RequestRefusedError, False),
    (307, b"<html>moved</html>", STOP, RequestRefusedError, False),
    (308, b"", STOP, RequestRefusedError, False),
    # a 200 that is an error (B3.1)
    (200, openai(None, "upstream_error"), WAIT, MalformedReplyError, False),
    (200, openai("bad_response_status_code", "upstream_error", ""), WAIT, MalformedReplyError, False),
    (200, b'{"error": "no words"}', WAIT, MalformedReplyError, False),
    (200, openai("insufficient_user_quota"), STOP, QuotaExhaustedError, False),
    (200, openai(402), STOP, QuotaExhaustedError, False),
    (200, openai("429"), WAIT, RateLimitedError, True),
    (200, openai(429), WAIT, RateLimitedError, True),
    (200, openai("rate_limit_exceeded"), WAIT, RateLimitedError, True),
    (200, openai(None, "rate_limit_error"), WAIT, RateLimitedError, True),
    (200, openai(503), WAIT, ServerError, False),
    (200, openai(400), REFUSE, RequestRefusedError, False),
    (200, openai(408), WAIT, AttemptTimeoutError, False),
    (200, openai(200), WAIT, MalformedReplyError, False),
    (200, openai(20015), WAIT, MalformedReplyError, False),
    (200, openai(-429), WAIT, MalformedReplyError, False),
    (200, openai("4²9"), WAIT, MalformedReplyError, False),
    (200, openai("9" * 5_000), WAIT, MalformedReplyError, False),
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
    (200, openai("model_not_found"), ModelNotFoundError),
    (200, openai(401), AuthenticationError),
    (200, openai(404), ModelNotFoundError),
]


@pytest.mark.parametrize("proven", [False, True])
@pytest.mark.parametrize(("status", "body", "action", "error", "pauses"), ALWAYS, ids=range(len(ALWAYS)))
def test_servers_words_decide(
    status: int, body: bytes, action: Action, error: type[RequestError], pauses: bool, proven: bool
) -> None:
    """Each line of the table has its action, its error and its pause, before the first success and after it."""
    assert verdict(ask(status, body, proven=proven)) == (action, error, pauses)


@pytest.mark.parametrize(("status", "body", "error"), UNTIL_PROVEN, ids=range(len(UNTIL_PROVEN)))
def test_a_refused_key_or_model_is_final_until_one_reply_was_good(
    status: int, body: bytes, error: type[RequestError]
) -> None:
    """Before a success the run stops at once; after one it is tried again, and the key's others do not wait."""
    assert verdict(ask(status, body, proven=False)) == (STOP, error, False)
    assert verdict(ask(status, body, proven=True)) == (WAIT, error, False)


@pytest.mark.parametrize(
    ("status", "body", "said", "action"),
    [
        (500, b"", "false", REFUSE),
        (429, openai("rate_limit_exceeded"), "false", REFUSE),
        (429, openai("rate_limit_exceeded"), "False", REFUSE),
        (400, b"", "true", WAIT),
        (422, b"", "TRUE", WAIT),
        (400, b"", "false", REFUSE),
        (500, b"", "true", WAIT),
        (500, b"", "maybe", WAIT),
        (400, b"", "", REFUSE),
        (429, openai("insufficient_quota"), "true", STOP),
        (402, b"", "true", STOP),
        (401, b"", "true", STOP),
        (404, b"", "false", STOP),
        (301, b"", "true", STOP),
    ],
)
def test_x_should_retry_wins_where_nothing_is_final(status: int, body: bytes, said: str, action: Action) -> None:
    """The server's "true" or "false" turns refuse and wait around; what stops a run stays."""
    assert ask(status, body, x_should_retry=said).action is action
