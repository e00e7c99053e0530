"""What an embedder remembers: the caller's store, or a cache."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from .errors import ConfigurationError
from .store import NoStore, Store

if TYPE_CHECKING:
    from .cache import Cache

_NOTHING = NoStore()


class Stores:
    """
    Where the vectors of texts are looked up, by the *fields* that their role puts into a request.

    A *store* is bound to the fields of the embedder's *own* role. A *cache*, or one in a directory of that name, has a
    store for each: *recipe_of* tells what vectors of texts with such fields depend on.

    Raises :class:`ConfigurationError` if both are given, or what cannot be a cache.
    """

    def __init__(
        self,
        store: Store | None,
        cache: Cache | str | os.PathLike[str] | None,
        *,
        own: bytes,
        recipe_of: Callable[[bytes], Mapping[str, Any]],
    ) -> None:
        if store is not None and cache is not None:
            raise ConfigurationError("store, cache: expected one of them, got both")
        self._cache, self._opened = _find(cache)
        self._recipe_of = recipe_of
        self._known: dict[bytes, Store] = {} if store is None else {own: store}

    def of(self, fields: bytes) -> Store:
        """What remembers the vectors of texts with these *fields*."""
        if self._cache is not None and fields not in self._known:
            self._known[fields] = self._cache.bound_to(self._recipe_of(fields))
        return self._known.get(fields, _NOTHING)

    def close(self) -> None:
        """Close a cache that was given by its name."""
        if self._opened is not None:
            self._opened.close()


def _find(cache: Cache | str | os.PathLike[str] | None) -> tuple[Cache | None, Cache | None]:
    """The cache, and once more if it was opened here."""
    if cache is None:
        return None, None
    from .cache import Cache  # SQLite is for those who want it

    if isinstance(cache, Cache):
        return cache, None
    if not isinstance(cache, str | os.PathLike):
        raise ConfigurationError(f"cache: expected an embedbatch.cache.Cache or a directory, got {cache!r}")
    opened = Cache(cache)
    return opened, opened
