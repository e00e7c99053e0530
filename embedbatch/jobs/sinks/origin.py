"""What made the vectors in a file, recorded beside them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ...embedder import Embedder
from ...endpoints import public_url
from ...errors import SourceError
from ...version import VERSION
from ..disk import Disk


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """
    Where the vectors in a file come from: a query needs the same model at the same dimensions.

    *base_url* is ``None`` for the embedded model. *dimensions* is ``None`` where no document was embedded and the
    model is not known. They were made of longer ones if *truncate_dimensions* is set, and scaled to length 1 if
    *normalize* is. A query for them is told as such by *query_prefix* and *query_fields*. *version* is that of
    embedbatch.
    """

    model: str
    dimensions: int | None
    endpoint: str
    base_url: str | None
    version: str
    truncate_dimensions: int | None = None
    normalize: bool = False
    query_prefix: str = ""
    query_fields: dict[str, Any] = field(default_factory=dict)


def origin_of(embedder: Embedder, dimensions: int | None) -> Origin:
    """What is to be recorded of the vectors that *embedder* makes."""
    roles, shape = embedder.inside.roles, embedder.inside.shape
    query = roles.find(roles.of_one)
    return Origin(
        model=embedder.model,
        dimensions=dimensions,
        endpoint=embedder.endpoint.name,
        base_url=None if embedder.endpoint.name == "local" else public_url(embedder.base_url),
        version=VERSION,
        truncate_dimensions=shape.dimensions,
        normalize=shape.normalize,
        query_prefix=query.prefix,
        query_fields=dict(query.fields),
    )


META = ".meta.json"
"""What follows the name of a result in that of the file with its origin, where it has no place for that itself."""


def write_origin(disk: Disk, folder: Path, origin: Origin) -> Path:
    """A file in *folder* with *origin*."""
    path = folder / "meta.json"
    with disk.open(path) as file:
        file.truncate(0)
        file.write(encode(origin) + b"\n")
        disk.sync(file)
    return path


def encode(origin: Origin) -> bytes:
    """*origin* as JSON."""
    return msgspec.json.encode(origin)


def decode(data: bytes, path: Path) -> Origin:
    """The origin in *data*, as it was found in *path*."""
    try:
        return msgspec.json.decode(data, type=Origin)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(
            "it does not say what made its vectors: not a result of embedbatch", path=str(path)
        ) from error
