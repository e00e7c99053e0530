"""What a sweep sends: texts that are all different, so that no cache answers for the endpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, count, islice
from random import Random
from statistics import fmean

from ..errors import ConfigurationError
from ..models import UNKNOWN_MODEL, known_model
from ..plan.tokens import cl100k_base

_SAMPLE = 256
_COMMAS = 0.1  # of the words
# Short, common, long and rare: about as many tokens to a byte as English has.
_WORDS = """
a about after again air all also an and any are area as at auk away axle back balance basalt be because been bed before
bell below between bill bog book both box bridge brine build busk but by calls can careful change chough city clear
coast cod collect come company copper could cut cyan day deep did distance do document does down dusk each early eel
else end energy even ewe example expect fact far few figs find first flax follow for fox from gave general get ghee go
good gorse great grow had harbour has have he help her him his hoe hour how hundred idea if in industry into inch is it
its join judge just keep kelp kind knot know lamp language last learn less let light like line little lochs long look
made make mallow many market may me measure might mill mirth moss most much must my name natural near never new next no
nor not now number oats object of off old on once one only or osprey other our out over own paper part people perhaps
pewter place plan point present quay question quoin ran read record rest result right river rook rye said same see
sedge set she ship should silt since sloe so some south speed still stone such sure system tarn tea temperature than
that the their them then there these they thing this those thrift through time to together too travel try turn two
under until up upon us use value very vetch village was water way we weather well went were what when where which while
who why will with wonder word work would year yew yet you your
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """The texts of one request, and the most tokens they can cost."""

    texts: list[str]
    bound: int


class Texts:
    """
    A supply of texts. *bound* tells the most tokens of one.

    *mean_bound*, *mean_bytes* and *max_bytes* are those of a sample, the first texts that will be taken.
    """

    def __init__(self, source: Iterator[str], bound: Callable[[str], int]) -> None:
        self._bound = bound
        sample = list(islice(source, _SAMPLE))
        if not sample:
            raise ConfigurationError("expected texts to send, got none")
        self.mean_bound = fmean(map(bound, sample))
        self.mean_bytes = fmean(len(text.encode()) for text in sample)
        self.max_bytes = max(len(text.encode()) for text in sample)
        self._source = chain(sample, source)

    def take(self, inputs: int) -> Batch:
        """So many of them, for one request."""
        texts = list(islice(self._source, inputs))
        return Batch(texts, sum(map(self._bound, texts)))


def bound_for(model: str) -> Callable[[str], int]:
    """The most tokens that a text has for *model*: exact where its tokenizer is known, and else its bytes."""
    known = known_model(model) or UNKNOWN_MODEL
    if known.tokenizer == "cl100k_base":
        return cl100k_base().count
    return lambda text: len(text.encode()) + max(1, known.special_tokens)


def generate(nbytes: int, rng: Random) -> Iterator[str]:
    """Texts of about *nbytes* bytes without end. Each has a number, so no two are the same."""
    words = _WORDS.split()
    for number in count(1):
        text = f"{number}:"
        while len(text) < nbytes:
            text += " " + rng.choice(words) + ("," if rng.random() < _COMMAS else "")
        yield text


def repeat(texts: Iterable[str], max_bytes: int) -> Iterator[str]:
    """
    *texts* without end: from the second time on each has a number in front, so that no two are the same.

    Those without text are passed over, and longer ones cut at *max_bytes*, so that each is one input.
    """
    usable = list(dict.fromkeys(text for text in (_cut(text, max_bytes) for text in texts) if text.strip()))
    yield from usable
    for turn in count(2) if usable else ():
        for text in usable:
            yield _cut(f"{turn}: {text}", max_bytes)


def _cut(text: str, max_bytes: int) -> str:
    return text.encode(errors="replace")[:max_bytes].decode(errors="ignore")
