"""``embedbatch bench``: a sweep, shown in the terminal and drawn."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import anyio
from rich.console import Console

from ..embedder import Embedder
from ..errors import ConfigurationError, RunStoppedError
from ..jobs.sources import open_source
from ..models import UNKNOWN_MODEL, known_model
from ..sweep import Budget, Grid, Measurement, Sweep, Texts, bound_for, generate, repeat
from ..version import VERSION
from .bench_report import describe_step, show
from .running import check, check_folder
from .shown import telling

_MOST_ROWS = 100_000  # of a corpus are read; more than any sweep sends


def bench(
    model: str,
    *,
    options: Mapping[str, Any],
    batch_sizes: Sequence[int],
    in_flight: Sequence[int],
    max_requests: int,
    max_tokens: int,
    text_bytes: int,
    source: Path | None,
    text_column: str,
    seed: int | None,
    plot: Path | None,
    json_file: Path | None,
) -> None:
    """Sweep, and show what was found. *options* are for ``Embedder``."""
    check(model, options)
    _check_files(plot, json_file)
    seed = Random().getrandbits(32) if seed is None else seed
    texts = _texts(model, text_bytes, source, text_column, seed)
    sweep = Sweep(
        connect=partial(Embedder, model, **options),
        texts=texts,
        budget=Budget(max_requests=max_requests, max_tokens=max_tokens),
        grid=Grid(batch_sizes, in_flight),
        cpu_clock=time.process_time,
    )
    kind = f"texts of {source}" if source else f"made-up texts (--seed {seed})"
    title = f"{model} at {sweep.base_url}"
    print(f"{title}, with {kind} of about {texts.mean_bytes:,.0f} bytes")
    print(f"At most {sweep.at_most.max_requests:,} requests and {sweep.at_most.max_tokens:,} tokens will be sent.")
    try:
        with telling("opening a connection") as tell:
            sweep.on_step = lambda step: tell(describe_step(step, sweep))
            anyio.run(sweep.run)
    except RunStoppedError as error:
        sweep.ended = str(error)
        if sweep.measured:
            _publish(sweep, title, plot, json_file, seed=seed, texts=texts, source=source)
        raise
    except KeyboardInterrupt:
        sweep.ended = "interrupted"
        show(sweep, Console())
        raise
    _publish(sweep, title, plot, json_file, seed=seed, texts=texts, source=source)


def _publish(
    sweep: Sweep,
    title: str,
    plot: Path | None,
    json_file: Path | None,
    *,
    seed: int,
    texts: Texts,
    source: Path | None,
) -> None:
    show(sweep, Console())
    if json_file is not None:
        about = {"seed": None if source else seed, "source": source and str(source), "mean_bytes": texts.mean_bytes}
        json_file.write_text(json.dumps(report(sweep, title, about), indent=2, allow_nan=False) + "\n")
        print(f"The numbers are in {json_file}")
    if plot is not None and sweep.verdict() is not None:
        from .bench_chart import draw

        draw(sweep, title, plot)
        print(f"The curves are in {plot}")


def _texts(model: str, nbytes: int, source: Path | None, text_column: str, seed: int) -> Texts:
    if source is None:
        return Texts(generate(nbytes, Random(seed)), bound_for(model))
    rows = islice(open_source(source, text_column=text_column, id_column=None).rows(), _MOST_ROWS)
    known = known_model(model) or UNKNOWN_MODEL
    max_bytes = known.max_input_tokens - max(1, known.special_tokens)  # so long a text is proven to be one input
    texts = repeat((row.content for row in rows if isinstance(row.content, str)), max_bytes)
    try:
        return Texts(texts, bound_for(model))
    except ConfigurationError as error:
        raise ConfigurationError(f"--source {source}: {error}") from error


def read_numbers(flag: str, text: str) -> list[int]:
    """The numbers in *text*, which are separated by commas."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or min(numbers) < 1:
        raise ConfigurationError(f"{flag}: expected numbers with commas between them, such as 1,16,64; got {text!r}")
    return numbers


def _check_files(plot: Path | None, json_file: Path | None) -> None:
    """Raise for what could not be written, before anything is sent."""
    for flag, path in (("--plot", plot), ("--json", json_file)):
        check_folder(flag, path)
    if plot is None:
        return
    if plot.suffix.lower() != ".png":
        raise ConfigurationError(f"--plot: expected a .png file, got {plot.name!r}")
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigurationError(
            "--plot needs the package matplotlib. Install it with: pip install 'embedbatch[bench]'"
        ) from None


def report(sweep: Sweep, title: str, texts: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known, as it goes into a JSON file. What is not known is null."""
    verdict = sweep.verdict()
    quota = sweep.quota
    return {
        "embedbatch": VERSION,
        "endpoint": title,
        "texts": dict(texts),
        "budget": {"max_requests": sweep.at_most.max_requests, "max_tokens": sweep.at_most.max_tokens},
        "spent": {"requests": sweep.ledger.requests, "tokens": sweep.ledger.tokens},
        "quota": {
            "requests_per_second": _number(quota.requests_per_second),
            "tokens_per_second": _number(quota.tokens_per_second),
        },
        "points": [_point(each) for each in sweep.measured.values()],
        "not_measured": [
            {"batch_inputs": point.batch_inputs, "in_flight": point.in_flight, "reason": reason.value}
            for point, reason in sweep.not_measured.items()
        ],
        "best": _point(verdict.best) if verdict else None,
        "knee": _point(verdict.knee) if verdict else None,
        "recommended": {
            "max_batch_inputs": verdict.limits.max_batch_inputs,
            "max_concurrent_requests": verdict.limits.max_concurrent_requests,
        }
        if verdict
        else None,
        "notes": list(verdict.notes) if verdict else [],
        "ended": sweep.ended,
    }


def _point(measurement: Measurement) -> dict[str, Any]:
    point = measurement.point
    facts = {name: _number(getattr(measurement, name)) for name in measurement.__slots__ if name != "point"}
    asked = {"batch_inputs": point.batch_inputs, "in_flight": point.in_flight}
    reached = {"in_flight_reached": facts.pop("in_flight")}
    return asked | reached | facts


def _number(value: Any) -> Any:
    """JSON has no infinity, and nothing that is not a number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
