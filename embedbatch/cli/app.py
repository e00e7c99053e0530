"""The commands and their flags. What they do is imported when they are called: ``--help`` should be quick."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..endpoints import choose
from ..settings import DEFAULT_LIMITS, Limits
from .outcome import DOCUMENTS_FAILED, outcome

app = typer.Typer(
    help="Texts in, one float32 vector each, in order, as fast as the endpoint allows.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # the frames leave no room for the names of the flags
    pretty_exceptions_enable=False,
)

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SOURCE",
        help="A file, folder or pattern: .jsonl, .csv, .tsv, .parquet, .txt, all but Parquet also .gz and .zst; or -.",
    ),
]
FormatName = Annotated[
    str | None, typer.Option("--format", metavar="jsonl|csv|tsv|txt|parquet", help="Where the name does not say it.")
]
SkipBadRows = Annotated[bool, typer.Option("--skip-bad-rows", help="Pass over rows that cannot be read.")]
Destination = Annotated[
    str,
    typer.Option(
        "--output",
        "-o",
        metavar="DEST",
        help="A .parquet, .npy or .jsonl file, a folder; or a table: postgresql://…?table=NAME, lancedb://…?table=NAME.",
    ),
]
JournalFolder = Annotated[
    Path | None,
    typer.Option("--journal", metavar="DIR", help="Of a table's job. (default: NAME.journal)"),
]
Model = Annotated[str, typer.Option(help="The model. local is the embedded one: no key, no network.")]
BaseUrl = Annotated[str | None, typer.Option(help="Of the server. (default: OPENAI_BASE_URL, or OpenAI's)")]
EndpointName = Annotated[
    str | None,
    typer.Option("--endpoint", metavar="NAME|FILE.json", help="What the server is. (default: by its address)"),
]
Dimensions = Annotated[int | None, typer.Option(help="Of the vectors. (default: the model's)")]
TruncateDimensions = Annotated[
    int | None, typer.Option(help="Keep so many numbers of each vector, scaled to length 1.", min=1)
]
Normalize = Annotated[bool, typer.Option("--normalize", help="Scale every vector to length 1.")]
TokenizerFile = Annotated[
    str | None,
    typer.Option("--tokenizer", metavar="FILE", help="The model's tokenizer.json. (default: if it is known)"),
]
RoleName = Annotated[
    str | None, typer.Option("--role", metavar="document|query|…", help="What the texts are for, if the model cares.")
]
TextColumn = Annotated[str, typer.Option(help="The column with the document.")]
IdColumn = Annotated[str | None, typer.Option(help="The column with its id. (default: numbers from 0)")]
Columns = Annotated[str | None, typer.Option(help="Write these columns too; all is all others.", metavar="NAME,NAME,…")]
Dtype = Annotated[str, typer.Option(help="Of the numbers in .parquet and .npy.", metavar="float32|float16")]
KeepText = Annotated[bool, typer.Option("--keep-text", help="Write the texts too.")]
LongInput = Annotated[str, typer.Option(help="For documents above the model's limit.", metavar="split|truncate|error")]
Empty = Annotated[str, typer.Option(help="For documents without text.", metavar="error|skip")]
RequestsPerMinute = Annotated[float | None, typer.Option("--max-requests-per-minute", help="The quota of the key.")]
TokensPerMinute = Annotated[float | None, typer.Option("--max-tokens-per-minute", help="The quota of the key.")]
ConcurrentRequests = Annotated[int, typer.Option("--max-concurrent-requests", help="In flight at once.")]
BatchInputs = Annotated[int, typer.Option("--max-batch-inputs", help="Documents in one request.")]
OnOutage = Annotated[str, typer.Option(help="When the endpoint is away.", metavar="wait|stop")]
SpendTokens = Annotated[int | None, typer.Option("--max-spend-tokens", help="Stop before more are spent.")]
NoDedupe = Annotated[bool, typer.Option("--no-dedupe", help="Send equal documents as often as they come.")]
CacheDirectory = Annotated[
    Path | None, typer.Option("--cache", metavar="DIR", help="Send only what no run before has sent.")
]
CacheMaxBytes = Annotated[
    int | None, typer.Option("--cache-max-bytes", help="That the cache may take. (default: 4 GB)", metavar="BYTES")
]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over, whatever was done.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Ask again for documents that failed for good.")]
Extend = Annotated[bool, typer.Option("--extend", help="Embed what the source has more at its end since it was done.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Send nothing: say what plan would say.")]
NoTokens = Annotated[bool, typer.Option("--no-tokens", help="Do not count the tokens of each document.")]

BatchSizes = Annotated[str, typer.Option(help="Inputs in a request, to try.", metavar="N,N,…")]
InFlight = Annotated[str, typer.Option(help="Requests at once, to try.", metavar="N,N,…")]
MaxRequests = Annotated[int, typer.Option(help="Send no more requests.", min=1)]
MaxTokens = Annotated[int, typer.Option(help="Spend no more tokens.", min=1)]
TextBytes = Annotated[int, typer.Option(help="Of each text that is made up.", min=1)]
TextSource = Annotated[Path | None, typer.Option("--source", metavar="FILE", help="Take the texts from a corpus.")]
Seed = Annotated[int | None, typer.Option(help="For the same texts again. (default: new ones)")]
Plot = Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curves into a .png file.")]
UsdPerMillion = Annotated[
    float | None,
    typer.Option("--price", metavar="USD_PER_MILLION", help="Of a million tokens. (default: the vendor's, if known)"),
]
MaxCost = Annotated[float | None, typer.Option(metavar="USD", help="Stop before this run costs more.")]
Report = Annotated[Path | None, typer.Option("--report", metavar="FILE", help="Write a page about the run, HTML.")]
LogJson = Annotated[Path | None, typer.Option("--log-json", metavar="FILE", help="Append every event, a line each.")]
Json = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the numbers to a file.")]


@app.command()
def run(
    source: Source,
    output: Destination,
    model: Model = "text-embedding-3-small",
    base_url: BaseUrl = None,
    endpoint: EndpointName = None,
    dimensions: Dimensions = None,
    truncate_dimensions: TruncateDimensions = None,
    normalize: Normalize = False,
    role: RoleName = None,
    tokenizer: TokenizerFile = None,
    text_column: TextColumn = "text",
    id_column: IdColumn = None,
    keep_text: KeepText = False,
    columns: Columns = None,
    dtype: Dtype = "float32",
    long_input: LongInput = "split",
    empty: Empty = "error",
    max_requests_per_minute: RequestsPerMinute = None,
    max_tokens_per_minute: TokensPerMinute = None,
    max_concurrent_requests: ConcurrentRequests = DEFAULT_LIMITS.max_concurrent_requests,
    max_batch_inputs: BatchInputs = DEFAULT_LIMITS.max_batch_inputs,
    max_spend_tokens: SpendTokens = None,
    on_outage: OnOutage = "wait",
    no_tokens: NoTokens = False,
    format: FormatName = None,
    skip_bad_rows: SkipBadRows = False,
    no_dedupe: NoDedupe = False,
    cache: CacheDirectory = None,
    cache_max_bytes: CacheMaxBytes = None,
    fresh: Fresh = False,
    retry_failed: RetryFailed = False,
    extend: Extend = False,
    journal: JournalFolder = None,
    report: Report = None,
    log_json: LogJson = None,
    price: UsdPerMillion = None,
    max_cost: MaxCost = None,
    dry_run: DryRun = False,
) -> None:
    """
    Embed a corpus file: one vector for each document, in order. The same command again goes on where a run ended.

    The key is taken from OPENAI_API_KEY, or from the vendor's variable. What fails is listed in DEST.failures.jsonl.

    Exit status: 0 all is embedded; 1 some documents failed; 2 nothing was sent; 3 the run stopped early; 130 Ctrl-C.
    """
    with outcome(resumes=True):
        from ..jobs.sinks import destination_of
        from . import planning, running

        pace = _limits(max_requests_per_minute, max_tokens_per_minute, max_concurrent_requests, max_batch_inputs)
        reading = {"format": format, "text_column": text_column, "id_column": id_column, "skip_bad_rows": skip_bad_rows}
        writing = {"keep_text": keep_text, "columns": running.read_columns(columns), "dtype": dtype}
        sending = {"dedupe": not no_dedupe, "max_spend_tokens": max_spend_tokens, "on_outage": on_outage}
        job = reading | writing | sending | {"fresh": fresh, "retry_failed": retry_failed, "extend": extend}
        server = {"base_url": base_url, "endpoint": choose(endpoint), "limits": pace}
        vectors = {"dimensions": dimensions, "truncate_dimensions": truncate_dimensions, "normalize": normalize}
        texts = {"role": role, "tokenizer": tokenizer, "long_input": long_input, "empty": empty}
        options = server | vectors | texts | {"count_tokens": not no_tokens}
        if dry_run:
            planning.plan_run(source, model, job=job, options=options, price=price)
            return
        watch = running.Watch(report=report, log_json=log_json, price=price, max_cost=max_cost)
        target = destination_of(output, journal)
        known = running.open_cache(cache, cache_max_bytes)
        _fail_unless(running.run(source, target, model, job=job, options=options, watch=watch, cache=known))


def _fail_unless(all_embedded: bool) -> None:
    if not all_embedded:
        raise typer.Exit(DOCUMENTS_FAILED)


def _limits(requests: float | None, tokens: float | None, concurrent: int, inputs: int) -> Limits:
    return Limits(
        max_requests_per_minute=requests,
        max_tokens_per_minute=tokens,
        max_concurrent_requests=concurrent,
        max_batch_inputs=inputs,
    )


@app.command()
def plan(
    source: Source,
    model: Model = "text-embedding-3-small",
    base_url: BaseUrl = None,
    endpoint: EndpointName = None,
    role: RoleName = None,
    tokenizer: TokenizerFile = None,
    format: FormatName = None,
    text_column: TextColumn = "text",
    id_column: IdColumn = None,
    skip_bad_rows: SkipBadRows = False,
    long_input: LongInput = "split",
    empty: Empty = "error",
    max_requests_per_minute: RequestsPerMinute = None,
    max_tokens_per_minute: TokensPerMinute = None,
    max_batch_inputs: BatchInputs = DEFAULT_LIMITS.max_batch_inputs,
    no_dedupe: NoDedupe = False,
    price: UsdPerMillion = None,
    json: Json = None,
) -> None:
    """
    Say what a run would send, how long that takes and what it costs. Nothing is sent, and no key is needed.

    The flags of a run that matter for that are here too, and mean the same.
    """
    with outcome():
        from .planning import plan as show_plan

        limits = Limits(
            max_requests_per_minute=max_requests_per_minute,
            max_tokens_per_minute=max_tokens_per_minute,
            max_batch_inputs=max_batch_inputs,
        )
        job = {
            "format": format,
            "text_column": text_column,
            "id_column": id_column,
            "skip_bad_rows": skip_bad_rows,
            "dedupe": not no_dedupe,
            "price": price,
        }
        options = {
            "base_url": base_url,
            "endpoint": choose(endpoint),
            "role": role,
            "tokenizer": tokenizer,
            "long_input": long_input,
            "empty": empty,
            "count_tokens": True,
            "limits": limits,
        }
        show_plan(source, model, job=job, options=options, json_file=json)


@app.command()
def search(
    destination: Annotated[str, typer.Argument(metavar="DEST", help="What a run has written.")],
    query: Annotated[str, typer.Argument(metavar="QUERY", help="A text.")],
    k: Annotated[int, typer.Option("-k", help="How many documents.", min=1)] = 5,
    base_url: Annotated[str | None, typer.Option(help="Of the server. (default: that of the run)")] = None,
    endpoint: EndpointName = None,
) -> None:
    """Print the nearest documents to a query: rank, cosine, id, and the text's first line where it was kept."""
    with outcome():
        from .searching import print_matches
        from .searching import search as find

        print_matches(find(destination, query, k=k, base_url=base_url, endpoint=choose(endpoint)))


@app.command()
def demo(
    output: Annotated[Path, typer.Option(metavar="DIR", help="The directory to write to.")] = Path("embedbatch-demo"),
) -> None:
    """Embed the documentation of this Python's own library with the local model, and search it."""
    with outcome():
        from .demo import demo as show

        if not show(output):
            raise typer.Exit(DOCUMENTS_FAILED)


@app.command()
def bench(
    model: Model = "text-embedding-3-small",
    base_url: BaseUrl = None,
    endpoint: EndpointName = None,
    dimensions: Dimensions = None,
    max_requests: MaxRequests = 1_000,
    max_tokens: MaxTokens = 1_000_000,
    batch_sizes: BatchSizes = "1,4,16,64,256",
    in_flight: InFlight = "1,2,4,8,16,32",
    text_bytes: TextBytes = 200,
    source: TextSource = None,
    text_column: TextColumn = "text",
    seed: Seed = None,
    plot: Plot = None,
    json: Json = None,
) -> None:
    """
    Find the batch size and the requests in flight that serve an endpoint best, within a budget.

    The key is taken from OPENAI_API_KEY. It costs tokens: at most --max-tokens, and less where it can stop early.
    """
    with outcome():
        from .bench import bench as sweep
        from .bench import read_numbers

        sweep(
            model,
            options={"base_url": base_url, "endpoint": choose(endpoint), "dimensions": dimensions},
            batch_sizes=read_numbers("--batch-sizes", batch_sizes),
            in_flight=read_numbers("--in-flight", in_flight),
            max_requests=max_requests,
            max_tokens=max_tokens,
            text_bytes=text_bytes,
            source=source,
            text_column=text_column,
            seed=seed,
            plot=plot,
            json_file=json,
        )


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 is any that is free; it is printed.", min=0, max=65_535)] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(envvar="EMBEDBATCH_API_KEY", help="What requests must carry. Other users see a command's flags."),
    ] = None,
) -> None:
    """
    Serve the embedded model as OpenAI serves its own: POST /v1/embeddings with "model": "local".

    Ctrl-C, or SIGTERM, stops it when what it has begun is answered.
    """
    with outcome():
        from .serving import serve as answer_requests

        answer_requests(host, port, api_key)


@app.command()
def check(
    model: Model = "text-embedding-3-small",
    base_url: BaseUrl = None,
    endpoint: EndpointName = None,
    max_batch: Annotated[int, typer.Option(help="Inputs in a request, to try.", min=1, max=2_048)] = 256,
    json: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write a preset to a file.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, whatever it costs.")] = False,
) -> None:
    """
    Ask an endpoint what it accepts: encodings, token arrays, dimensions, sizes, what it does with bad input.

    The key is taken from OPENAI_API_KEY. Before it sends anything it says how much that is at most.
    """
    with outcome():
        from .checking import check as ask

        options = {"base_url": base_url, "endpoint": choose(endpoint)}
        ask(model, options=options, max_batch=max_batch, json_file=json, yes=yes)
