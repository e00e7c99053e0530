"""A quota of requests and tokens a minute: known, guessed wrong, told in headers, not told at all, shared."""

from __future__ import annotations

from typing import Any

from embedbatch import Limits
from embedbatch.testing import OtherClient, ProviderSimulator, Quota

from ..measures import between, count, quota_figures, share, texts_answered, time_to_speed, used
from ..scenario import (
    PER_SECOND,
    QUOTA_REQUESTS,
    QUOTA_TOKENS,
    Bar,
    Figures,
    Job,
    Run,
    Scenario,
    at_least,
    at_most,
    told,
)

MINUTE = 60.0
FEW_REQUESTS = 100  # a minute
MOST_INPUTS = Limits().max_batch_inputs
KNOWN = Limits(max_requests_per_minute=QUOTA_REQUESTS, max_tokens_per_minute=QUOTA_TOKENS)
SILENT = {"headers": False, "retry_after": False, "detailed": False}  # tells nothing but the status

OTHER_COMES, OTHER_LEAVES = 2 * MINUTE, 12 * MINUTE


def bars(least_used: float, most_refused: float, *, requests: int = 0) -> tuple[Bar, ...]:
    """The bars of a quota: how much of it has to be used, how much may be refused."""
    return (
        at_least("tokens used / allowed", least_used, "%"),
        at_most("share of 429", most_refused, "%", unless=("requests answered 429", requests) if requests else None),
        told("share of 429 from the start", "%"),
    )


def quota(
    name: str,
    title: str,
    bars: tuple[Bar, ...],
    *,
    known: bool = True,
    counted_from: float = MINUTE,
    counted_for: float = 3 * MINUTE,
    answers: dict[str, Any] | None = None,
    **quota: Any,
) -> Scenario:
    """A scenario in which a quota is all there is; figures count from some moment on."""
    settings = {"requests_per_minute": QUOTA_REQUESTS, "tokens_per_minute": QUOTA_TOKENS, **quota}
    return Scenario(
        name=name,
        title=title,
        servers=lambda seed: {"sim": ProviderSimulator(seed=seed, quota=Quota(**settings), **(answers or {}))},
        job=Job(
            limits=KNOWN if known else Limits(),
            requests_per_minute=QUOTA_REQUESTS,
            tokens_per_minute=QUOTA_TOKENS,
        ),
        horizon=counted_from + counted_for,
        measure=lambda run: quota_figures(run, counted_from),
        bars=bars,
    )


def windows(seconds: float) -> str:
    """A window in words."""
    return f"windows of {seconds:g} s"


KNOWN_QUOTA = [
    *(
        quota(
            f"known-{window:g}s",
            f"1M TPM / 3,000 RPM configured, {windows(window)}; after a minute",
            bars(0.98, 0.001, requests=1),
            window=window,
        )
        for window in (1.0, 5.0, 60.0)
    ),
    quota(
        "known-60s-fixed",
        "the same, fixed windows of 60 s one after the other",
        (told("tokens used / allowed", "%"), told("share of 429", "%")),
        style="fixed",
    ),
    *(
        quota(
            f"noise-{window:g}s",
            f"the server's count differs by ±10 % a request, {windows(window)}; after a minute",
            bars(0.95, 0.005),
            window=window,
            noise=0.1,
        )
        for window in (1.0, 5.0, 60.0)
    ),
    *(
        quota(
            f"drift-{window:g}s",
            f"the server counts 30 % more than we estimate, {windows(window)}; after five minutes",
            bars(0.97, 0.001),
            window=window,
            tokens_per_byte=0.325,
            counted_from=5 * MINUTE,
            counted_for=5 * MINUTE,
        )
        for window in (1.0, 5.0, 60.0)
    ),
    quota(
        "drift-60s-silent",
        "the server counts 30 % more and tells nothing but 429; after five minutes",
        (told("tokens used / allowed", "%"), told("share of 429", "%")),
        tokens_per_byte=0.325,
        counted_from=5 * MINUTE,
        counted_for=5 * MINUTE,
        answers=SILENT,
    ),
]

UNKNOWN_QUOTA = [
    *(
        quota(
            f"headers-{window:g}s",
            f"limits unknown, headers present, {windows(window)}; after two minutes",
            bars(0.97, 0.002),
            known=False,
            window=window,
            counted_from=2 * MINUTE,
            counted_for=4 * MINUTE,
        )
        for window in (1.0, 5.0, 60.0)
    ),
    quota(
        "silent-60s",
        "limits unknown, no headers, 1M TPM, windows of 60 s; after ten minutes",
        bars(0.85, 0.02),
        known=False,
        requests_per_minute=None,
        counted_from=10 * MINUTE,
        counted_for=10 * MINUTE,
        answers=SILENT,
    ),
    quota(
        "silent-60s-fixed",
        "the same, fixed windows one after the other",
        (told("tokens used / allowed", "%"), told("share of 429", "%")),
        known=False,
        requests_per_minute=None,
        style="fixed",
        counted_from=10 * MINUTE,
        counted_for=10 * MINUTE,
        answers=SILENT,
    ),
]


def request_figures(run: Run) -> Figures:
    """What is used of a quota of requests, after ten minutes: as many as it has, each as full as it may be."""
    server, start, end = run.server, 10 * MINUTE, run.scenario.horizon
    answered = count(between(server, start, end), 200)
    return {
        "texts answered / most": texts_answered(server, start, end) / (FEW_REQUESTS / MINUTE * MOST_INPUTS),
        "requests used / allowed": answered / (FEW_REQUESTS / MINUTE * (end - start)),
        "share of 429": share(server, 429, start, end),
    }


def silent_requests(name: str, title: str, bars: tuple[Bar, ...], **quota: Any) -> Scenario:
    """Nothing is limited but requests, and nobody says so."""
    granted = Quota(requests_per_minute=FEW_REQUESTS, **quota)
    return Scenario(
        name=name,
        title=title,
        servers=lambda seed: {"sim": ProviderSimulator(seed=seed, quota=granted, **SILENT)},
        job=Job(requests_per_minute=FEW_REQUESTS, tokens_per_minute=1e12, batch=MOST_INPUTS),
        horizon=20 * MINUTE,
        measure=request_figures,
        bars=bars,
    )


SILENT_REQUESTS = [
    silent_requests(
        f"silent-requests-{name}",
        f"limits unknown, no headers, {FEW_REQUESTS} RPM and no limit of tokens, {title}; after ten minutes",
        (at_least("texts answered / most", 0.8, "%"), told("requests used / allowed", "%"), told("share of 429", "%")),
        **quota,
    )
    for name, title, quota in (
        ("1s", windows(1.0), {"window": 1.0}),
        ("60s", windows(60.0), {"window": 60.0}),
        ("fixed", "fixed windows of 60 s one after the other", {"window": 60.0, "style": "fixed"}),
    )
]


def other_figures(run: Run) -> Figures:
    """What happens while half of the quota is somebody else's, and how soon that half is used afterwards."""
    server = run.server
    end = run.scenario.horizon
    return {
        "share of 429 meanwhile": share(server, 429, OTHER_COMES, OTHER_LEAVES),
        "requests answered 429": count(between(server, OTHER_COMES, OTHER_LEAVES), 429),
        "time to use the freed half": time_to_speed(server, OTHER_LEAVES, end, 0.9 * PER_SECOND),
        "tokens used / what is left": used(server, OTHER_COMES + MINUTE, OTHER_LEAVES, PER_SECOND / 2),
    }


def other(name: str, limits: Limits, title: str) -> Scenario:
    """A second client takes half of the limit for ten minutes, then leaves."""
    client = OtherClient(start=OTHER_COMES, end=OTHER_LEAVES, tokens_per_minute=QUOTA_TOKENS / 2)
    granted = Quota(requests_per_minute=QUOTA_REQUESTS, tokens_per_minute=QUOTA_TOKENS)
    return Scenario(
        name=name,
        title=f"a second client takes half of the limit for 10 minutes, then leaves; {title}",
        servers=lambda seed: {"sim": ProviderSimulator(seed=seed, quota=granted, others=[client])},
        job=Job(limits=limits, requests_per_minute=QUOTA_REQUESTS, tokens_per_minute=QUOTA_TOKENS),
        horizon=OTHER_LEAVES + 2 * MINUTE,
        measure=other_figures,
        bars=(
            at_most("share of 429 meanwhile", 0.02, "%"),
            at_most("time to use the freed half", 10.0, "s"),
            told("tokens used / what is left", "%"),
        ),
    )


SCENARIOS = [
    *KNOWN_QUOTA,
    *UNKNOWN_QUOTA,
    *SILENT_REQUESTS,
    other("other-known", KNOWN, "the limit is configured"),
    other("other-headers", Limits(), "the limit is known from the headers"),
]
