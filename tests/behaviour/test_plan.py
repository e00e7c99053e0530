"""Before a job: what is forecast is what the job then sends and what the endpoint then counts."""

from __future__ import annotations

import gzip
import random
from pathlib import Path
from typing import Any

import anyio
import pyarrow as pa
import pytest

from embedbatch import Embedder, Endpoint, Limits, jobs
from embedbatch.errors import ConfigurationError, SourceError
from embedbatch.jobs import PlanProgress, plan
from embedbatch.plan.tokens import cl100k_base
from embedbatch.prices import Price
from embedbatch.testing import ScriptedServer

from .conftest import MakeEmbedder
from .corpora import PIECES, mixed_texts, write_jsonl

# Counting is done in threads, during which virtual time would jump: these run on both loops in real time.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("both_backends")]

MODEL = "text-embedding-3-small"


@pytest.fixture
def counting_server(server: ScriptedServer) -> ScriptedServer:
    """A server that counts as OpenAI does: cl100k_base for texts, one for each id of a token array."""
    count = cl100k_base().count

    def tell(request: Any, body: dict[str, Any]) -> dict[str, Any]:
        tokens = sum(count(given) if isinstance(given, str) else len(given) for given in request.inputs)
        return {**body, "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}

    server.edit(tell)
    return server


def corpus(path: Path) -> Path:
    """Documents of all kinds: short, long, equal ones, token arrays, empty ones, and what is no document."""
    texts: list[Any] = [text[:3_000] for text in mixed_texts(100)]
    texts += [" ".join(random.Random(seed).choices(PIECES, k=600)) for seed in range(3)]
    texts += [[15339, 1917], list(range(900)), [1.5], None, 7, "", "  \n ", "a \ud800 b", {"a": 1}]
    texts += texts[30:70] + texts[-12:]
    random.Random(3).shuffle(texts)
    return write_jsonl(path, ({"id": f"d{number}", "text": text} for number, text in enumerate(texts)))


@pytest.mark.parametrize(
    ("long_input", "dedupe", "count_tokens"),
    [
        ("split", True, True),
        ("split", True, False),
        ("split", False, True),
        ("truncate", True, True),
        ("error", True, False),
    ],
)
async def test_what_is_forecast_is_what_happens(
    tmp_path: Path,
    make_embedder: MakeEmbedder,
    counting_server: ScriptedServer,
    long_input: str,
    dedupe: bool,
    count_tokens: bool,
) -> None:
    """Tokens, requests, inputs and the fate of every document: the same numbers before and after."""
    source = corpus(tmp_path / "corpus.jsonl")
    options: dict[str, Any] = {
        "long_input": long_input,
        "count_tokens": count_tokens,
        "max_input_tokens": 500,
        "limits": Limits(max_batch_inputs=40, max_batch_tokens=3_000, max_batch_bytes=12_000),
        "endpoint": Endpoint(name="test", base_url="http://test/v1", token_arrays=True),
    }

    async with make_embedder(MODEL, base_url=None, dimensions=8, **options) as embedder:
        forecast = await plan(source, embedder, dedupe=dedupe)
        sent_for_it = len(counting_server.received)
        summary = await jobs.run(source, tmp_path / "v.npy", embedder, dedupe=dedupe)
        cut = embedder.stats().cut

    assert sent_for_it == 0
    assert forecast.tokens == summary.usage.total_tokens
    assert forecast.requests == summary.usage.requests
    assert forecast.inputs == sum(len(request.inputs) for request in counting_server.received)
    assert forecast.documents == summary.documents == len(source.read_text().splitlines())
    assert forecast.sent + forecast.duplicates == summary.embedded
    assert forecast.empty + forecast.invalid + forecast.refused == summary.failures
    assert forecast.too_long == cut + forecast.refused
    assert (forecast.refused > 0) is (long_input == "error")
    assert (forecast.duplicates > 0) is dedupe


async def test_duplicates_save_what_they_would_have_cost(
    tmp_path: Path, make_embedder: MakeEmbedder, counting_server: ScriptedServer
) -> None:
    """The tokens with and without them differ by just that; an empty document is no duplicate of another."""
    source = corpus(tmp_path / "corpus.jsonl")

    async with make_embedder(MODEL) as embedder:
        once = await plan(source, embedder)
        often = await plan(source, embedder, dedupe=False)

    assert once.tokens is not None and often.tokens is not None
    assert once.saved_tokens == often.tokens - once.tokens > 0
    assert once.duplicates == often.sent - once.sent
    assert (once.empty, once.invalid) == (often.empty, often.invalid)


async def test_the_embedded_model_counts_with_its_own_tokenizer(tmp_path: Path) -> None:
    """Its forecast is what it tells in `usage`; and it costs nothing."""
    source = write_jsonl(tmp_path / "c.jsonl", ({"text": text} for text in mixed_texts(50)))

    async with Embedder("local", count_tokens=True) as embedder:
        forecast = await plan(source, embedder)
        summary = await jobs.run(source, tmp_path / "v.npy", embedder)

    assert (forecast.tokens, forecast.requests) == (summary.usage.total_tokens, summary.usage.requests)
    assert (forecast.tokenizer, forecast.cost) == ("local", 0)


async def test_without_a_tokenizer_there_is_an_estimate_and_a_bound(
    tmp_path: Path, make_embedder: MakeEmbedder, counting_server: ScriptedServer
) -> None:
    """Nothing is called exact: four bytes a token are an estimate, one byte a token is never exceeded."""
    texts = [*mixed_texts(50), "word " * 4_000]
    source = write_jsonl(tmp_path / "c.jsonl", ({"text": text} for text in texts))

    async with make_embedder("some-model") as embedder:
        forecast = await plan(source, embedder, price=0.5)
        with pytest.warns(UserWarning, match="the tokenizer of this model is not known"):
            summary = await jobs.run(source, tmp_path / "v.npy", embedder)

    tokens = summary.usage.total_tokens
    assert tokens is not None
    assert (forecast.tokens, forecast.tokenizer) == (None, None)
    assert forecast.max_tokens >= tokens
    assert 0.25 * tokens < forecast.estimated_tokens < 4 * tokens
    assert forecast.requests == summary.usage.requests
    assert forecast.cost == pytest.approx(forecast.estimated_tokens / 2e6)
    assert forecast.max_cost == pytest.approx(forecast.max_tokens / 2e6)


async def test_a_tokenizer_of_the_callers_is_asked_by_one_thread_at_a_time(
    tmp_path: Path, make_embedder: MakeEmbedder
) -> None:
    """It need not bear more. Its counts are the forecast."""
    texts = [f"{number} {'word ' * 3_000}" for number in range(100)]
    source = write_jsonl(tmp_path / "c.jsonl", ({"text": text} for text in texts))
    words = Words()

    async with make_embedder("some-model", tokenizer=words, max_input_tokens=100_000) as embedder:
        forecast = await plan(source, embedder)

    assert forecast.tokens == 100 * 3_001
    assert (forecast.tokenizer, words.most_at_once) == ("words", 1)


class Words:
    """A tokenizer that counts words, and how many threads are in it."""

    name = "words"

    def __init__(self) -> None:
        self.inside = self.most_at_once = 0

    def bound(self, nbytes: int, /) -> int:
        """A word has a byte at least."""
        return nbytes

    def count(self, text: str, /) -> int:
        """Words."""
        self.inside += 1
        self.most_at_once = max(self.most_at_once, self.inside)
        words = len(text.split())
        self.inside -= 1
        return words

    def ends(self, text: str, /) -> Any:
        """Not needed here."""
        raise NotImplementedError

    def is_stable_cut(self, text: str, cut: int, /) -> bool:
        """Not needed here."""
        raise NotImplementedError

    def decode(self, tokens: object, /) -> str:
        """Not needed here."""
        raise NotImplementedError


async def test_the_rates_tell_the_time(
    tmp_path: Path, make_embedder: MakeEmbedder, counting_server: ScriptedServer
) -> None:
    """A job at 6,000,000 tokens a minute takes as long as was forecast, in as many requests."""
    source = write_jsonl(tmp_path / "c.jsonl", ({"text": f"{n} " + "word " * 200} for n in range(250)))
    limits = Limits(max_tokens_per_minute=6_000_000, max_requests_per_minute=60_000, burst=0.1)

    async with make_embedder(MODEL, dimensions=8, limits=limits, count_tokens=True) as embedder:
        forecast = await plan(source, embedder)
        began_at = anyio.current_time()
        summary = await jobs.run(source, tmp_path / "v.npy", embedder)
        seconds = anyio.current_time() - began_at

    assert forecast.minutes is not None and forecast.tokens is not None
    assert forecast.minutes == pytest.approx(forecast.tokens / 6_000_000)
    assert forecast.bound_by == "tokens"
    assert seconds > 60 * forecast.minutes - 0.3
    assert forecast.requests == summary.usage.requests


async def test_several_endpoints_are_as_fast_as_all_of_them(tmp_path: Path, server: ScriptedServer) -> None:
    """Two keys with a quota each, and one without: the sum. Whose price it would be cannot be told."""
    source = write_jsonl(tmp_path / "c.jsonl", ({"text": f"text {n}"} for n in range(1_000)))
    quota = {"base_url": "https://api.openai.com/v1", "max_requests_per_minute": 10.0}
    endpoints = [Endpoint(name=name, api_key=name, **quota) for name in ("first", "second")]  # type: ignore[arg-type]

    async with Embedder(MODEL, endpoints=endpoints, transport=server, limits=Limits(max_batch_inputs=50)) as embedder:
        forecast = await plan(source, embedder)

    assert (forecast.requests, forecast.minutes, forecast.bound_by) == (20, pytest.approx(1), "requests")
    assert forecast.price is None


@pytest.mark.parametrize(
    ("model", "base_url", "given", "usd"),
    [
        (MODEL, "https://api.openai.com/v1", None, 0.02),
        (MODEL, "https://api.openai.com/v1", 0.01, 0.01),
        (MODEL, "https://gateway.example/v1", None, None),
        (MODEL, "https://gateway.example/v1", Price(usd_per_million=3), 3),
        ("no-such-model", "https://api.openai.com/v1", None, None),
        ("no-such-model", "https://api.openai.com/v1", 0, 0),
    ],
)
async def test_the_price_is_the_given_one_or_that_of_the_vendor(
    tmp_path: Path,
    make_embedder: MakeEmbedder,
    model: str,
    base_url: str,
    given: float | Price | None,
    usd: float | None,
) -> None:
    """A gateway's is not known; a given one holds everywhere, also nothing."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": "hello world"}])

    async with make_embedder(model, base_url=base_url, api_key="k") as embedder:
        forecast = await plan(source, embedder, price=given)

    assert (forecast.price and forecast.price.usd_per_million) == usd
    if usd is None:
        assert (forecast.cost, forecast.max_cost) == (None, None)
    elif forecast.tokens is not None:
        assert forecast.cost == forecast.max_cost == pytest.approx(2e-6 * usd)


@pytest.mark.parametrize("content", [b"", b"\n\n"])
async def test_a_source_without_documents_costs_nothing(
    tmp_path: Path, make_embedder: MakeEmbedder, content: bytes
) -> None:
    """Zeros, and no request."""
    source = tmp_path / "c.jsonl"
    source.write_bytes(content)

    async with make_embedder(MODEL, limits=Limits(max_tokens_per_minute=1)) as embedder:
        forecast = await plan(source, embedder, price=1)

    assert (forecast.documents, forecast.inputs, forecast.requests, forecast.tokens) == (0, 0, 0, 0)
    assert (forecast.minutes, forecast.cost) == (0, 0)


async def test_a_source_that_cannot_be_read_is_told_with_its_line(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """Also behind what was examined already; what was kept meanwhile is gone."""
    source, scratch = tmp_path / "c.jsonl", tmp_path / "scratch"
    scratch.mkdir()
    source.write_text('{"text": "a"}\n' * 20_000 + "{broken\n")

    async with make_embedder(MODEL) as embedder:
        with pytest.raises(SourceError, match="line 20,001: invalid JSON"):
            await plan(source, embedder, scratch=scratch)

    assert list(scratch.iterdir()) == []


async def test_every_kind_of_source_is_planned(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """A folder of compressed files, a table, and a file with rows that cannot be read: as a job takes them."""
    (tmp_path / "folder").mkdir()
    for name in ("a", "b"):
        (tmp_path / "folder" / f"{name}.txt.gz").write_bytes(gzip.compress(b"one two\nthree\n"))
    (tmp_path / "bad.csv").write_text("text,n\none two,1\ntoo,many,fields\nthree,2\n")
    seen: list[PlanProgress] = []

    async with make_embedder(MODEL) as embedder:
        folder = await plan(tmp_path / "folder", embedder, progress=seen.append)
        table = await plan(pa.table({"text": ["one two", "three"]}), embedder)
        bad = await plan(tmp_path / "bad.csv", embedder, skip_bad_rows=True)

    assert (folder.documents, folder.duplicates, folder.tokens) == (4, 2, 3)
    assert (table.documents, table.tokens, table.bad_rows) == (2, 3, 0)
    assert (bad.documents, bad.tokens, bad.bad_rows) == (2, 3, 1)
    assert seen[-1].total_bytes is None


async def test_what_cannot_be_is_refused(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """A price below nothing, and a file of another kind."""
    async with make_embedder(MODEL) as embedder:
        with pytest.raises(ConfigurationError, match="price: expected US dollars of at least 0, got -1"):
            await plan(tmp_path / "c.jsonl", embedder, price=-1)
        with pytest.raises(ConfigurationError, match=r"c\.doc"):
            await plan(tmp_path / "c.doc", embedder)
        with pytest.raises(ConfigurationError, match=r"scratch: cannot make a folder in .*missing: No such file"):
            await plan(tmp_path / "c.jsonl", embedder, scratch=tmp_path / "missing")
        with pytest.raises(SourceError, match=r"missing\.jsonl: cannot be read"):
            await plan(tmp_path / "missing.jsonl", embedder)


async def test_progress_comes_up_to_the_whole(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """In the order of the file, in bytes of the file."""
    source = write_jsonl(tmp_path / "c.jsonl", ({"text": f"text {n}"} for n in range(20_000)))
    seen: list[PlanProgress] = []

    async with make_embedder(MODEL) as embedder:
        await plan(source, embedder, progress=seen.append)

    size = source.stat().st_size
    assert len(seen) > 2
    assert [each.documents for each in seen] == sorted(each.documents for each in seen)
    assert seen[-1] == PlanProgress(documents=20_000, bytes=size, total_bytes=size)


async def test_it_can_be_cancelled(tmp_path: Path, make_embedder: MakeEmbedder) -> None:
    """In the middle: it ends, and leaves nothing behind."""
    source, scratch = tmp_path / "c.jsonl", tmp_path / "scratch"
    scratch.mkdir()
    write_jsonl(source, ({"text": f"text {n}"} for n in range(50_000)))

    async with make_embedder(MODEL) as embedder:
        with anyio.CancelScope() as scope:
            await plan(source, embedder, scratch=scratch, progress=lambda progress: scope.cancel())

    assert scope.cancelled_caught
    assert list(scratch.iterdir()) == []


async def test_it_does_not_bind_the_embedder_to_a_loop(tmp_path: Path, server: ScriptedServer) -> None:
    """Planned in one loop, embedded in another."""
    source = write_jsonl(tmp_path / "c.jsonl", [{"text": "a"}])
    embedder = Embedder(MODEL, base_url="http://test/v1", transport=server, dimensions=8)

    await anyio.to_thread.run_sync(anyio.run, plan, source, embedder)
    embeddings = await embedder.embed("a")

    assert len(embeddings) == 1
    await embedder.aclose()
