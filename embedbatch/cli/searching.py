"""``embedbatch search``: the nearest documents."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from .. import jobs
from ..embedder import Embedder
from ..endpoints import PRESETS, Endpoint
from ..errors import ConfigurationError
from ..models import UNKNOWN_MODEL, Role, known_model
from ..values import Vector
from .shown import printable

_ID_ROOM = 50  # characters; a longer id shifts its line only


def search(
    destination: str | Path, query: str, *, k: int, base_url: str | None = None, endpoint: Endpoint | None = None
) -> list[jobs.Match]:
    """The documents nearest to *query*, embedded as the vectors in *destination* were."""
    origin = jobs.read_origin(destination)
    if origin.dimensions is None:
        return []  # nothing in it was embedded
    vector = anyio.run(partial(_embed, origin, query, base_url, endpoint))
    return jobs.search(destination, vector, k)


async def _embed(origin: jobs.Origin, query: str, base_url: str | None, endpoint: Endpoint | None) -> Vector:
    role = Role(prefix=origin.query_prefix, fields=origin.query_fields)
    options: dict[str, Any] = {
        "base_url": base_url or origin.base_url,
        "endpoint": endpoint or (origin.endpoint if origin.endpoint in PRESETS and base_url is None else None),
        # What its vectors were cut to was good enough then.
        "model_info": replace(known_model(origin.model) or UNKNOWN_MODEL, roles={"query": role}, matryoshka=None),
        "role": "query",
        "truncate_dimensions": origin.truncate_dimensions,
        "normalize": origin.normalize,
    }
    # At first without `dimensions`, which some servers refuse: that is what most vectors are made with.
    for dimensions in (None, origin.dimensions):
        async with Embedder(origin.model, dimensions=dimensions, **options) as embedder:
            if embedder.dimensions in (None, origin.dimensions):
                vector = await embedder.embed_one(query)
                if len(vector) == origin.dimensions:
                    return vector
    raise ConfigurationError(f"{origin.model} no longer gives vectors of {origin.dimensions} dimensions")


def print_matches(matches: Sequence[jobs.Match]) -> None:
    """A line for each: rank, score, id, and the first line of the text where it was kept, without that id."""
    if not matches:
        print("no document in it has a vector")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    room = min(_ID_ROOM, max((len(str(match.id)) for match in matches), default=0))
    for rank, match in enumerate(matches, 1):
        text = (match.text or "").removeprefix(f"{match.id}: ")
        line = f"{rank:>3}  {match.score:.3f}  {printable(str(match.id)):<{room}}  {first_line(text)}".rstrip()
        print(line if width is None or len(line) <= width else line[: width - 1] + "…")


def first_line(text: str) -> str:
    """The first line of *text* that is not blank, safe to print."""
    return printable(text.strip().partition("\n")[0])
