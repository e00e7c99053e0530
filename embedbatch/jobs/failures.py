"""The list of documents that failed, beside a result."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .job import Job


def list_failures(job: Job) -> Path:
    """A file in the job's folder with a line for each failure, and for each row that could not be read."""
    path = job.folder / "failures.jsonl"
    job.disk.remove(path)
    with job.disk.open(path) as file:
        for row in job.ledger.bad_rows():
            listed = {"file": row.path, "line": row.line, "error": "SourceError", "reason": row.reason}
            file.write(msgspec.json.encode(listed) + b"\n")
        for part in range(job.division.parts):
            for failure in job.ledger.failures(job.division.first(part), job.division.end(part)):
                if not failure.is_skipped:
                    record = {
                        "id": failure.id,
                        **({} if failure.file is None else {"file": failure.file}),
                        "line": failure.line,
                        "error": failure.error,
                        "reason": failure.reason,
                        "attempts": failure.attempts,
                    }
                    file.write(msgspec.json.encode(record) + b"\n")
        job.disk.sync(file)
    return path
