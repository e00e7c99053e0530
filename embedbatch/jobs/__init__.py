"""
A corpus in a file, vectors out to a file.

    async with Embedder("text-embedding-3-small", count_tokens=True) as embedder:
        summary = await jobs.run("corpus.jsonl", "vectors.parquet", embedder)

Sources are files and tables in memory, destinations files and tables of databases. They are streamed: what is in memory
is the embedder's window and one block of the output. A file appears under its name when it is complete, never before.
What a reply brought is kept in a journal beside it, so the same call goes on where a run was interrupted, however that
was. :func:`plan` says beforehand what a job will send and cost.
"""

from .forecast import Forecast
from .nearest import Match, search
from .planning import PlanProgress, plan, plan_blocking
from .report import write_report
from .runner import Summary, run, run_blocking
from .sinks import LanceTable, Origin, Postgres, read_origin
from .task import Progress
from .timeline import Timeline

__all__ = [
    "Forecast",
    "LanceTable",
    "Match",
    "Origin",
    "PlanProgress",
    "Postgres",
    "Progress",
    "Summary",
    "Timeline",
    "plan",
    "plan_blocking",
    "read_origin",
    "run",
    "run_blocking",
    "search",
    "write_report",
]
