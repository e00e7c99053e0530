"""Whether an endpoint shortens inputs without a word: by what it counts, beside the exact count on this side. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import TypeAlias

LIMITS = frozenset({128, 256, 384, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768})
"""Tokens at which models end."""

_LEAST = 64  # tokens: no model takes less, and what differs in short texts is something else
_FAR = 1.25  # times what was counted: another tokenizer rarely finds so much less, and just a usual limit
_APART = 1.1  # times the other: inputs that differ so much, and count the same, were made equal
_ENOUGH = 3  # of them
_OFFSETS = range(-2, 4)  # tokens that a server leaves out of every input, or adds: [CLS] and [SEP], most of all

_Limit: TypeAlias = "tuple[int, int]"  # tokens left out of every input; tokens at which inputs are cut, in our count


class Shortening:
    """
    Looks for a limit that explains the usage of an endpoint.

    A count that is right, but for the same few tokens in every input, shows that inputs of that length are whole. One
    that is short has to be short by a limit which explains every such reply. One that is too high, or short by
    anything else, is of another kind, such as characters or another tokenizer's, and ends the search.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._offsets: Iterable[int] = _OFFSETS  # that are possible yet
        self._whole = 0  # tokens of the longest input that was counted right
        self._limits: set[_Limit] = set()  # that explain the short counts so far, if there were any
        self._longest: list[int] = []  # the longest inputs of these requests, as far as they are of other lengths

    def note(self, counts: Sequence[int], used: int | None) -> int | None:
        """
        Take in the usage of a request whose inputs have so many tokens each, exactly.

        Returns the limit in tokens when it is found, which is once.
        """
        if self.is_over or not used or not all(counts):
            return None
        longest = max(counts)
        right = [offset for offset in self._offsets if used == sum(counts) - offset * len(counts)]
        if right:
            self._offsets, self._whole = right, max(self._whole, longest)
            limits = {each for each in self._limits if each[0] in right and each[1] >= longest}
            self.is_over = bool(self._limits) and not limits
            self._limits = limits
            return None
        limits = {(offset, _explain(counts, used, offset)) for offset in self._offsets}
        limits = {each for each in limits if each[1] >= max(_LEAST, self._whole)}
        self._limits = self._limits & limits if self._limits else limits
        if not self._limits:
            self.is_over = True
            return None
        _, limit = min(self._limits, key=lambda each: (each[1] not in LIMITS, abs(each[0])))
        if all(max(longest, other) >= _APART * min(longest, other) for other in self._longest):
            self._longest.append(longest)
        is_obvious = limit in LIMITS and sum(counts) >= _FAR * used
        self.is_over = is_obvious or len(self._longest) >= _ENOUGH
        return limit if self.is_over else None


def _explain(counts: Sequence[int], used: int, offset: int) -> int:
    """The length to which inputs are cut if *used* is their count, less *offset* each; 0 if there is none."""
    sizes = sorted(counts)
    below = [0, *accumulate(sizes)]
    whole = used + offset * len(sizes)
    for shorter, size in enumerate(sizes):
        # All that are shorter are whole, and the others equally long.
        limit, rest = divmod(whole - below[shorter], len(sizes) - shorter)
        if limit < size:
            return limit if not rest and limit >= (sizes[shorter - 1] if shorter else 1) else 0
    return 0
