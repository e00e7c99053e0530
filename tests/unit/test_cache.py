"""The cache gives back what was put in, to the bit, for the same recipe only, and stays within its bytes."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedbatch import ConfigurationError, DimensionsError
from embedbatch.cache import Cache, CacheStats

from .caching import RECIPE, assert_right, batch_of, bytes_in, known, open_cache, put, vectors_of, wires

MB = 1_000_000
inputs = st.lists(st.binary(max_size=40), max_size=30)
RECIPES = [{"model": model, "base_url": url} for model in "ab" for url in ("http://a", "http://b")]


def names(recipe: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells one of RECIPES from the others."""
    return tuple(recipe.values())


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[Cache]:
    """An empty cache that uses no threads."""
    with open_cache(tmp_path / "cache") as opened:
        yield opened


@given(st.lists(st.tuples(inputs, st.sampled_from(RECIPES)), max_size=6), st.integers(1, 40), st.randoms())
def test_what_was_put_comes_back_to_the_bit(
    batches: list[tuple[list[bytes], Mapping[str, Any]]], dimensions: int, rng: Any
) -> None:
    """
    Any bytes under any recipes: each comes back with every bit, of NaN too, under its own recipe and no other.
    """
    kept: dict[tuple[Any, bytes], bytes] = {}
    with tempfile.TemporaryDirectory() as directory, open_cache(directory) as cache:
        for wire, recipe in batches:
            rows = np.frombuffer(rng.randbytes(4 * dimensions * len(wire)), np.float32).reshape(-1, dimensions)
            put(cache, wire, rows, recipe)
            kept |= {(names(recipe), each): row.tobytes() for each, row in zip(wire, rows, strict=True)}

        asked = [*{wire for _, wire in kept}, b"new"]
        with open_cache(directory) as another:
            for recipe in RECIPES:
                found = {asked[row]: vector.tobytes() for row, vector in known(another, asked, recipe).items()}
                assert found == {wire: bits for (of, wire), bits in kept.items() if of == names(recipe)}


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"dimensions": 16},
        {"dimensions": None},
        {"base_url": "http://test/v2"},
        {"extra_body": {"input_type": "query"}},
        {"endpoint": "another"},
        {"revision": "of my own"},
    ],
    ids=str,
)
def test_another_recipe_has_other_vectors(cache: Cache, change: dict[str, Any]) -> None:
    """
    Whatever may change a vector makes another recipe, and so does a name that is not known.
    """
    put(cache, wires(3), vectors_of(wires(3)))

    assert not known(cache, wires(3), {**RECIPE, **change})
    assert len(known(cache, wires(3))) == 3


@pytest.mark.parametrize(
    "change",
    [
        {"long_input": "truncate"},
        {"max_input_tokens": 100},
        {"tokenizer": "cl100k_base"},
        {"empty": "skip"},
        {"surrogates": "error"},
        {"count_tokens": True},
        {"base_url": "http://test/v1/"},
    ],
    ids=str,
)
def test_how_documents_are_cut_makes_no_other_recipe(cache: Cache, change: dict[str, Any]) -> None:
    """
    What is done before there are chunks leaves their vectors as they are.
    """
    put(cache, wires(3), vectors_of(wires(3)))

    assert len(known(cache, wires(3), {**RECIPE, **change})) == 3


def test_the_order_of_a_recipe_does_not_matter(cache: Cache) -> None:
    """
    Names come in any order, at every depth.
    """
    put(cache, wires(1), vectors_of(wires(1)), {"model": "m", "extra_body": {"a": {"x": 1, "y": 2}, "b": 2}})

    assert known(cache, wires(1), {"extra_body": {"b": 2, "a": {"y": 2, "x": 1}}, "model": "m"})


def test_a_recipe_is_what_json_can_carry(cache: Cache) -> None:
    """
    Anything else would have no fingerprint.
    """
    with pytest.raises(ConfigurationError, match="recipe: not what JSON can carry"):
        cache.bound_to({"model": object()})


@pytest.mark.parametrize("max_bytes", [0, MB - 1, 1e9, True, "4 GB"])
def test_a_bound_is_checked(tmp_path: Path, max_bytes: Any) -> None:
    """
    It is an int of at least a million.
    """
    with pytest.raises(ConfigurationError, match="max_bytes: expected an int of at least 1,000,000, got"):
        Cache(tmp_path, max_bytes=max_bytes)


def test_nothing_is_opened_before_it_is_needed(tmp_path: Path) -> None:
    """
    A cache that is never asked leaves no trace.
    """
    with open_cache(tmp_path / "cache") as cache:
        cache.bound_to(RECIPE)

    assert not (tmp_path / "cache").exists()


def test_a_text_that_comes_twice_is_found_twice(cache: Cache) -> None:
    """
    Each row of a batch is answered, also those that are equal; and equal ones may be put together.
    """
    twice = [*wires(2), *wires(2)]
    put(cache, twice, vectors_of(twice))

    found = known(cache, [*twice, b"new"])
    assert sorted(found) == [0, 1, 2, 3]
    assert_right(found, twice)


def test_more_chunks_than_one_query_takes_are_looked_up(cache: Cache) -> None:
    """
    3,000 at once, a third of them not there.
    """
    put(cache, wires(2_000), vectors_of(wires(2_000)))

    found = known(cache, wires(3_000))
    assert sorted(found) == list(range(2_000))
    assert_right(found, wires(2_000))


def test_it_counts(cache: Cache) -> None:
    """
    Hits, misses and what was kept, in vectors.
    """
    put(cache, wires(5), vectors_of(wires(5)))
    known(cache, wires(7))
    put(cache, [], vectors_of([]))
    known(cache, [])

    assert cache.stats == CacheStats(hits=5, misses=2, kept=5)
    assert repr(cache).startswith("<Cache '") and "hits=5" in repr(cache)


def test_a_closed_cache_is_not_used(cache: Cache) -> None:
    """
    A run that still has a store of it is told.
    """
    put(cache, wires(1), vectors_of(wires(1)))
    cache.close()

    with pytest.raises(ConfigurationError, match="is closed"):
        known(cache, wires(1))
    with pytest.raises(ConfigurationError, match="is closed"):
        put(cache, wires(1), vectors_of(wires(1)))


@pytest.mark.slow
@settings(max_examples=10)
@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from([64, 700])), min_size=30, max_size=60))
def test_the_files_stay_within_the_bound(batches: list[tuple[int, int]]) -> None:
    """
    After every put all files together have at most a megabyte, but for a log of some kB, and the last is there.
    """
    numbers = count()
    with tempfile.TemporaryDirectory() as directory, open_cache(directory, max_bytes=MB) as cache:
        for size, dimensions in batches:
            wire = wires(size, next(numbers) * 1_000)
            recipe = {**RECIPE, "dimensions": dimensions}
            put(cache, wire, vectors_of(wire, dimensions), recipe)

            assert bytes_in(Path(directory)) <= 1.1 * MB
            assert_right(found := known(cache, wire, recipe), wire, dimensions)
            assert len(found) == size


def test_a_lower_bound_shrinks_what_is_there(tmp_path: Path) -> None:
    """
    From 7 MB of small vectors, an index of 2 MB among them, to one: with the next put.
    """
    with open_cache(tmp_path, max_bytes=20 * MB) as cache:
        for first in range(0, 40_000, 4_000):
            put(cache, wires(4_000, first), vectors_of(wires(4_000, first), 32))
    assert bytes_in(tmp_path) > 7 * MB

    with open_cache(tmp_path, max_bytes=MB) as cache:
        put(cache, wires(100, 50_000), vectors_of(wires(100, 50_000), 32))
        assert cache.stats.dropped > 30_000
        assert len(known(cache, wires(100, 50_000))) == 100

    assert bytes_in(tmp_path) <= MB


def test_what_was_not_used_for_the_longest_time_goes_first(tmp_path: Path) -> None:
    """
    Batches are put an hour apart, and the first is used again and again: it survives, and of the others the last do.
    """
    now = [0.0]
    batches = [wires(100, 100 * number) for number in range(25)]
    with open_cache(tmp_path, max_bytes=MB, clock=lambda: now[0]) as cache:
        for batch in batches:
            now[0] += 4_000
            put(cache, batch, vectors_of(batch, 150))
            assert len(known(cache, batches[0])) == 100
        there = [len(known(cache, batch)) for batch in batches]

    kept = sum(there) // 100
    assert kept >= 8
    assert there == [100] + [0] * (25 - kept) + [100] * (kept - 1)


def test_a_use_is_noted_when_the_cache_is_closed(tmp_path: Path) -> None:
    """
    Runs that find everything and put nothing count as use.
    """
    now = [0.0]
    for number in range(8):
        now[0] += 4_000
        with open_cache(tmp_path, max_bytes=MB, clock=lambda: now[0]) as cache:
            put(cache, wires(100, number * 100), vectors_of(wires(100, number * 100), 150))
    now[0] += 4_000
    with open_cache(tmp_path, max_bytes=MB, clock=lambda: now[0]) as cache:
        known(cache, wires(100))

    with open_cache(tmp_path, max_bytes=MB, clock=lambda: now[0]) as cache:
        put(cache, wires(600, 5_000), vectors_of(wires(600, 5_000), 150))
        assert len(known(cache, wires(100))) == 100
        assert not known(cache, wires(100, 100))


def test_vectors_of_another_size_are_another_model(cache: Cache) -> None:
    """
    A model of unknown size gives others than before: the run that got both is told, the next one gets only the new.
    """
    recipe = {"model": "m", "dimensions": None}
    put(cache, wires(10), vectors_of(wires(10), 8), recipe)
    store = cache.bound_to(recipe)
    anyio.run(store.known, batch_of(wires(10)))

    with pytest.raises(DimensionsError, match=r"expected vectors of 8 numbers, .* got 12"):
        anyio.run(store.put, batch_of(wires(1, 10)), vectors_of(wires(1, 10), 12))

    assert sorted(known(cache, wires(11), recipe)) == [10]


def test_one_run_never_gets_vectors_of_two_sizes(cache: Cache) -> None:
    """
    Another process puts others than this one has got: this one gets no more.
    """
    recipe = {"model": "m", "dimensions": None}
    put(cache, wires(2), vectors_of(wires(2), 8), recipe)
    store = cache.bound_to(recipe)
    assert len(anyio.run(store.known, batch_of(wires(2)))) == 2

    put(cache, wires(2), vectors_of(wires(2), 12), recipe)

    assert not anyio.run(store.known, batch_of(wires(2)))


def test_threads_may_use_it_together(tmp_path: Path) -> None:
    """
    Eight threads, each with an event loop of its own, put and look up the same and other texts: all are right.
    """
    wrong: list[Exception] = []

    def work(number: int) -> None:
        try:
            for turn in range(20):
                wire = wires(30, 10 * ((number + turn) % 10))
                put(shared, wire, vectors_of(wire))
                assert_right(found := known(shared, wires(150)), wires(150))
                assert len(found) >= 30
        except Exception as error:
            wrong.append(error)

    with open_cache(tmp_path) as shared:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (shared.stats.kept, shared.stats.not_kept, shared.stats.damaged) == (8 * 20 * 30, 0, 0)

    assert not wrong
