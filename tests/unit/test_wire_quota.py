"""Rate limits are read from headers and messages as servers write them, and what cannot be so is not believed."""

from __future__ import annotations

import math

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from embedbatch.wire.quota import (
    Allowance,
    Overrun,
    QuotaHeaders,
    parse_duration,
    read_number,
    read_overrun,
    read_quota,
)


def headers(
    resource: str, limit: str | None = None, remaining: str | None = None, reset: str | None = None
) -> dict[str, str]:
    """The three headers of a resource, without those that are None."""
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"x-ratelimit-{name}-{resource}": value for name, value in values.items() if value is not None}


# Durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        # OpenAI's rate limit guide
        ("1s", 1.0),
        ("6m0s", 360.0),
        # openai community 104084: seconds without a unit
        ("59.70", 59.7),
        ("60", 60.0),
        ("0", 0.0),
        # openai community, contract A4
        ("12ms", 0.012),
        ("0s", 0.0),
        # Groq, documented and in groq-python issues
        ("2m59.56s", 179.56),
        ("50.597142857s", 50.597142857),
        ("9m38.016s", 578.016),
        # Go's time.Duration, which is what all of these are
        ("1h2m3.5s", 3723.5),
        ("250µs", 0.00025),
        ("250μs", 0.00025),
        ("250us", 0.00025),
        ("1500ns", 0.0000015),
        ("1d2h", 93_600.0),
        ("1m1ms", 60.001),
        (" 20s ", 20.0),
    ],
)
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    """Days to nanoseconds, one after the other, and bare numbers, which are seconds."""
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "-1",
            "-5s",
            "nan",
            "inf",
            "Infinity",
            "1e3",
            "s",
            "5x",
            "1s1s",
            "3s2m",
            "6m 0s",
            "1,5s",
            ".5s",
            "5.s",
        ),
        *("1.5.5s", "٣s", "１s", "soon", "5, 5", "2026-10-21T12:00:00Z", "Wed, 21 Oct 2026 12:00:30 GMT"),
        *("9" * 400, "9" * 400 + "d"),
    ],
)
def test_what_is_no_duration_is_not_read(text: str) -> None:
    """Negative and endless values, dates, words and units out of order are None."""
    assert parse_duration(text) is None


@given(st.integers(0, 9), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59_999_999_999))
def test_a_duration_that_is_written_is_read_back(days: int, hours: int, minutes: int, nanoseconds: int) -> None:
    """Written as days, hours, minutes and decimal seconds, with zeros left out or not, it is the same duration."""
    fraction = f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"
    whole = [f"{amount}{unit}" for amount, unit in ((days, "d"), (hours, "h"), (minutes, "m"), (fraction, "s"))]
    short = [part for part in whole[:3] if not part.startswith("0")] + [fraction.rstrip("0").rstrip(".") + "s"]
    seconds = days * 86_400 + hours * 3_600 + minutes * 60 + nanoseconds / 1e9

    assert parse_duration("".join(whole)) == pytest.approx(seconds)
    assert parse_duration("".join(short)) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1000000", 1e6),
        ("1,000,000", 1e6),
        ("150000.000000", 150_000.0),
        (" 5 ", 5.0),
        ("0", 0.0),
        ("10,00", None),
        ("5, 5", None),
        ("5,5", None),
        ("1e6", None),
        ("-1", None),
        ("1000000000001", None),
        ("", None),
        ("٣", None),
    ],
)
def test_a_number_has_its_thousands_apart_or_not(text: str, number: float | None) -> None:
    """Plain, with a fraction, or in groups of three; two headers joined by a comma are no number."""
    assert read_number(text) == number


# Headers


@pytest.mark.parametrize(
    ("limit", "remaining", "reset", "window"),
    [
        # OpenAI, text-embedding-3-small, tiers 1 and 5: the time until full, of a bucket that takes a minute to fill
        ("3000", "2999", "20ms", 60.0),
        ("5000", "4999", "12ms", 60.0),
        ("1000000", "998000", "120ms", 60.0),
        ("10000000", "2000000", "48s", 60.0),
        # OpenAI, free: 200 requests a day
        ("200", "199", "7m12s", 86_400.0),
        # Groq's documentation: requests per day, tokens per minute
        ("14400", "14370", "2m59.56s", 86_400.0),
        ("18000", "17997", "10ms", 60.0),
        # OpenAI's guide: requests agree with a minute, tokens (6m0s) with nothing
        ("60", "59", "1s", 60.0),
        ("150000", "149984", "6m0s", 60.0),
        # per second and per hour
        ("100", "90", "100ms", 1.0),
        ("100", "90", "6m", 3_600.0),
        # a quarter off is near enough, more is not
        ("100", "90", "7m29s", 3_600.0),
        ("100", "90", "7m31s", 60.0),
        # a fixed minute that ends in 36 s, at the start of a run: neither an hour nor a day
        ("30000", "29700", "36", 60.0),
        ("3000", "2999", "36", 60.0),
        # nothing to tell it by: Azure sends no reset; a bucket that is full
        ("3000", "2999", None, 60.0),
        ("3000", None, "20ms", 60.0),
        ("3000", "3000", "20ms", 60.0),
        ("3000", "2999", "0s", 60.0),
    ],
)
def test_the_reset_tells_the_window(limit: str, remaining: str | None, reset: str | None, window: float) -> None:
    """The window is the nearest of a second, a minute, an hour and a day, and a minute where none is near."""
    allowance = read_quota(headers("requests", limit, remaining, reset)).requests

    assert allowance is not None
    assert allowance.window == window
    assert allowance.per_second == pytest.approx(float(limit) / window)


@pytest.mark.parametrize("limit", [None, "", "0", "-1", "0.5", "-5000", "nan", "inf", "many", "1e6", "1000000000001"])
def test_a_limit_that_cannot_be_is_no_allowance(limit: str | None) -> None:
    """Missing, zero, −1 and unreadable limits are the same as none: Azure sends 0, others −1 (contract A4, B1)."""
    for resource in ("requests", "tokens", "project-tokens"):
        assert read_quota(headers(resource, limit, "5", "1s")) == QuotaHeaders(None, None)


@pytest.mark.parametrize(
    ("remaining", "reset", "expected"),
    [
        ("4000", "12ms", Allowance(5_000, 4_000, 0.012)),
        ("5000", "0s", Allowance(5_000, 5_000, 0)),
        # more remains than the limit: openai community 104084
        ("5001", "12ms", None),
        # a remainder that is not said
        ("-1", "12ms", Allowance(5_000, None, 0.012)),
        ("", "12ms", Allowance(5_000, None, 0.012)),
        ("nan", "12ms", Allowance(5_000, None, 0.012)),
        # a reset that cannot be: gone by, in days, an epoch in milliseconds, a date
        ("4000", "-1s", Allowance(5_000, 4_000, None)),
        ("4000", "2d", Allowance(5_000, 4_000, None)),
        ("4000", "1789000000000", Allowance(5_000, 4_000, None)),
        ("4000", "2026-10-21T12:00:00Z", Allowance(5_000, 4_000, None)),
        ("4000", "24h", Allowance(5_000, 4_000, 86_400)),
        # used up, and zeros for "unknown"
        ("0", "12ms", Allowance(5_000, 0, 0.012)),
        ("0", None, Allowance(5_000, None, None)),
        ("0", "0", Allowance(5_000, None, None)),
    ],
)
def test_what_cannot_be_is_not_said(remaining: str, reset: str | None, expected: Allowance | None) -> None:
    """A remainder above the limit spoils the allowance; a bad remainder or reset is only left out."""
    assert read_quota(headers("tokens", "5000", remaining, reset)).tokens == expected


@pytest.mark.parametrize(
    ("organization", "project", "expected"),
    [
        (("1000000", "900000"), ("500000", "500000"), (500_000, 450_000)),
        (("1000000", "900000"), ("2000000", "2000000"), (1_000_000, 900_000)),
        # as large, but less is left
        (("1000000", "900000"), ("1000000", "100000"), (1_000_000, 100_000)),
        # nearly used up by other projects: of the lower limit as large a share is left
        (("3000000", "300000"), ("1000000", "1000000"), (1_000_000, 100_000)),
        # only one of them can be believed
        (("1000000", "900000"), ("0", "0"), (1_000_000, 900_000)),
        (("-1", "-1"), ("1000000", "1000000"), (1_000_000, 1_000_000)),
        (("1000000", "1000001"), ("9000000", "9000000"), (9_000_000, 9_000_000)),
    ],
)
def test_of_two_token_quotas_the_lower_limit_and_the_smaller_share_count(
    organization: tuple[str, str], project: tuple[str, str], expected: tuple[float, float]
) -> None:
    """Which of the two is nearer to its end changes from reply to reply; the limit does not change with that."""
    both = headers("tokens", *organization) | headers("project-tokens", *project)

    assert read_quota(both).tokens == Allowance(*map(float, expected), None)


def test_requests_and_tokens_are_apart() -> None:
    """One set of headers says nothing about the other; other headers say nothing at all."""
    requests = headers("requests", "5000", "4999", "12ms")

    assert read_quota(requests) == QuotaHeaders(Allowance(5_000, 4_999, 0.012), None)
    assert read_quota({"retry-after": "5", "x-ratelimit-limit": "5", "content-type": "x"}) == QuotaHeaders(None, None)
    assert read_quota({}) == QuotaHeaders(None, None)


# Messages

OPENAI = "Rate limit reached for text-embedding-3-small in organization org-x on "
GROQ = "Rate limit reached for model `m` in organization `org_x` service tier `on_demand` on "


@pytest.mark.parametrize(
    ("message", "overrun"),
    [
        # OpenAI: VectorInstitute/health-rec#103, garrytan/gbrain#3796, Elliott-Chong/chatpdf-yt#39
        (
            OPENAI + "tokens per min (TPM): Limit 1000000, Used 976163, Requested 70716. Please try again in 2.812s."
            " Visit https://platform.openai.com/account/rate-limits to learn more.",
            Overrun("tokens", 1e6, 976_163, 70_716, 60, 2.812),
        ),
        (
            OPENAI + "tokens per min (TPM): Limit 1000000, Used 998000, Requested 4333. Please try again in 193ms.",
            Overrun("tokens", 1e6, 998_000, 4_333, 60, 0.193),
        ),
        (
            OPENAI + "requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s. Visit",
            Overrun("requests", 3, 3, 1, 60, 20),
        ),
        (
            OPENAI + "requests per day (RPD): Limit 200, Used 200, Requested 1. Please try again in 7m12s.",
            Overrun("requests", 200, 200, 1, 86_400, 432),
        ),
        (
            OPENAI + "tokens per min (TPM): Limit 1,000,000, Used 1,000,000, Requested 312. Please try again in 6m0s",
            Overrun("tokens", 1e6, 1e6, 312, 60, 360),
        ),
        # OpenAI: agent0ai/agent-zero#711
        (
            "Request too large for gpt-5 in organization org-x on tokens per min (TPM): Limit 30000, Requested 36055."
            " The input or output tokens must be reduced in order to run successfully.",
            Overrun("tokens", 30_000, None, 36_055, 60, None),
        ),
        # OpenAI in 2023: daveshap/Medical_Intake#9
        (
            "Rate limit reached for 10KTPM-200RPM in organization org-x on tokens per min. Limit: 10000 / min."
            " Please try again in 6ms. Contact us through our help center",
            Overrun("tokens", 10_000, None, None, 60, 0.006),
        ),
        (
            OPENAI + "tokens per min. Limit: 150000.000000 / min. Current: 160000.000000 / min. Contact support",
            Overrun("tokens", 150_000, 160_000, None, 60, None),
        ),
        # Groq: continuedev/continue#10920, danielmiessler/Fabric#364
        (
            GROQ + "tokens per day (TPD): Limit 100000, Used 97050, Requested 3619. Please try again in 9m38.016s.",
            Overrun("tokens", 100_000, 97_050, 3_619, 86_400, 578.016),
        ),
        (
            GROQ + "tokens per minute (TPM): Limit 7000, Used 0, Requested ~12903. Please try again in 50.597142857s.",
            Overrun("tokens", 7_000, 0, 12_903, 60, 50.597142857),
        ),
        # LiteLLM puts its own words around them
        (
            "litellm.RateLimitError: OpenAIException - " + OPENAI + "requests per min (RPM): Limit 500, Used 500",
            Overrun("requests", 500, 500, None, 60, None),
        ),
    ],
)
def test_a_429_names_the_limit(message: str, overrun: Overrun) -> None:
    """Resource, limit, used, requested, window and time to wait, as far as the words go."""
    assert read_overrun(message) == overrun


@pytest.mark.parametrize(
    "message",
    [
        "",
        "Model is overloaded",
        # Azure: assafelovic/gpt-researcher#936
        "Requests to the Embeddings_Create Operation under Azure OpenAI API version 2024-02-15-preview have exceeded"
        " call rate limit of your current OpenAI S0 pricing tier. Please retry after 86400 seconds.",
        # Groq, without the resource: bklieger-groq/stockbot-on-groq#46
        "Rate limit reached for model `m` in organization `org_x` on : Limit 500000, Used 500370, Requested 252.",
        # Gemini: continuedev/continue#11926
        "Quota exceeded for metric: generate_content_free_tier_requests, limit: 0. Please retry in 17.3s.",
        # incoherent
        OPENAI + "tokens per min (TPM): Limit 0, Used 0, Requested 1.",
        OPENAI + "tokens per min (TPM): Limit -1, Used 0, Requested 1.",
        OPENAI + "tokens per min (TPM): Limit 9999999999999, Used 0, Requested 1.",
        OPENAI + "tokens per min (TPM): Limit NaN, Used 0, Requested 1.",
        "当前分组上游负载已饱和，请稍后再试",
    ],
)
def test_a_message_without_a_limit_names_none(message: str) -> None:
    """Words of other servers, and numbers that cannot be a limit, are None."""
    assert read_overrun(message) is None


def test_a_number_that_cannot_be_is_left_out_of_an_overrun() -> None:
    """A wait of more than a day and an absurd number used are not said; the limit still is."""
    message = OPENAI + "tokens per min (TPM): Limit 500, Used 9999999999999, Requested 5. Please try again in 9d."

    assert read_overrun(message) == Overrun("tokens", 500, None, 5, 60, None)


# Laws

numbers = st.sampled_from(["0", "-1", "1", "5000", "4999", "1e9", "nan", "inf", "9" * 400, "1,000", "5, 5"])
durations = st.sampled_from(["12ms", "6m0s", "1d2h", "-1s", "0", "59.70", "9" * 400 + "s", "1789000000000"])
names = st.sampled_from(
    [f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")]
    + [f"x-ratelimit-{what}-project-tokens" for what in ("limit", "remaining", "reset")]
)
words = st.text(max_size=12) | numbers | durations | st.integers(0, 10**7).map(str)


@given(st.dictionaries(names, words))
def test_no_headers_raise_or_make_an_incoherent_allowance(sent: dict[str, str]) -> None:
    """Whatever the headers, an allowance has a limit, no more than that remaining, and a rate that can be paced."""
    for allowance in read_quota(sent):
        if allowance is not None:
            assert 1 <= allowance.limit <= 1e12
            assert allowance.remaining is None or 0 <= allowance.remaining <= allowance.limit
            assert allowance.reset_after is None or 0 <= allowance.reset_after <= 90_000
            assert allowance.window in (1, 60, 3_600, 86_400)
            assert 0 < allowance.per_second <= allowance.limit


@given(st.floats(1, 1e9), st.sampled_from([60.0, 3_600.0, 86_400.0]), st.floats(0.01, 0.99))
def test_a_bucket_that_refills_steadily_tells_its_window(limit: float, window: float, used: float) -> None:
    """The time until full, of a bucket of any size, gives its window back once it is above a minute, or is a minute."""
    reset = window * used
    assume(window == 60 or reset > 60)

    assert Allowance(limit, limit * (1 - used), reset).window == window


@given(st.text(max_size=60) | st.lists(words | st.sampled_from(["Limit ", "tokens per min "])).map("".join))
@example("requests per min limit 5")
@example("9" * 5_000)
def test_no_text_raises_or_makes_an_incoherent_overrun(text: str) -> None:
    """Whatever the text, durations and numbers are finite and not negative, and an overrun has a limit."""
    duration, number, overrun = parse_duration(text), read_number(text), read_overrun(text)

    assert duration is None or 0 <= duration < math.inf
    assert number is None or 0 <= number <= 1e12
    if overrun is not None:
        assert 1 <= overrun.limit <= 1e12
        for optional in (overrun.used, overrun.requested, overrun.retry_after):
            assert optional is None or 0 <= optional <= 1e12
