"""Vectors that are remembered from one run to the next: nothing that was paid for is paid for again."""

from .cache import Cache, CacheStats

__all__ = ["Cache", "CacheStats"]
