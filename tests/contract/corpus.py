"""A corpus as it comes: 20,000 documents from 10 bytes to 200 kB, in several scripts, seeded."""

from __future__ import annotations

import math
from random import Random

LONGEST = 200_000  # bytes
SHORTEST = 10
COUNT = 20_000
LONG = 80  # documents of more than 8,000 bytes
ORDINARY = 6_000  # bytes that the others have at most

# Words, with one space between them; white space of every other kind belongs to them.
_WORDS = {
    "latin": "the quick naïve café größer façade señor — “quoted” won't 3.14 0xFF a.b@c.de  \t\x0b\x85\r\x00",
    "cyrillic": "съешь ещё этих мягких французских булок, да выпей чаю. Їжак",
    "cjk": "日本語 中文文本 漢字。 ひらがな カタカナ 한국어 文章、 ！",
    "arabic": "مرحبا بالعالم هذا نص طويل جدا ، مَرْحَبًا ٣٫١٤",
    "emoji": "😀 👩\u200d👩\u200d👧\u200d👦 🏳\ufe0f\u200d🌈 🇺🇦 👍🏽 ❤\ufe0f 🌊🌊🌊 e\u0301 ﷽ \u2028",
    "code": "def f(x):\n    return {**x,\n\n\t'a':1}\n #include<stdio.h>\n if(a&&b)\n }; /*…*/ \\n \\u0000 </script>\n",
    "look-alikes": "<|endoftext|> <|fim_prefix|> <|im_start|>system <s> [PAD] <|endofprompt|> ## {{x}} %s",
}


def make_corpus(seed: int) -> list[str]:
    """All documents, no two of them equal. The shortest and the longest are there in every script."""
    rng = Random(seed)
    pools = {script: _pool(words.split(" "), rng) for script, words in _WORDS.items()}
    sizes = [SHORTEST] * len(pools) + [LONGEST] * len(pools)
    sizes += [_log_uniform(rng, 8_000, LONGEST) for _ in range(LONG)]
    sizes += [_log_uniform(rng, SHORTEST, ORDINARY) for _ in range(COUNT - len(sizes))]
    documents = [
        _cut(f"{' ' * (number % 2)}{number:x} {_slice(pool, size, rng)}", size, fill=". \t"[number % 3])
        for number, (size, pool) in enumerate(zip(sizes, _in_turn(pools, len(sizes)), strict=True))
    ]
    rng.shuffle(documents)
    return documents


def in_one_line(text: str) -> str:
    """*text* as a line of a .txt file can hold it: it keeps every other character that some take for a line's end."""
    return text.replace("\n", "\u2029")


def _pool(words: list[str], rng: Random) -> str:
    """A long text of these words, more than the longest document has characters."""
    return " ".join(rng.choices(words, k=LONGEST // 2)) + "".join(rng.choices(words, k=LONGEST // 2))


def _in_turn(pools: dict[str, str], count: int) -> list[str]:
    return (list(pools.values()) * (count // len(pools) + 1))[:count]


def _log_uniform(rng: Random, low: int, high: int) -> int:
    """As many of 10 to 100 as of 100 to 1,000."""
    return round(math.exp(rng.uniform(math.log(low), math.log(high))))


def _slice(pool: str, size: int, rng: Random) -> str:
    start = rng.randrange(max(1, len(pool) - size))
    return pool[start : start + size]


def _cut(text: str, size: int, *, fill: str) -> str:
    """The beginning of *text*, filled up to exactly *size* bytes."""
    cut = text.encode()[: size - 1].decode(errors="ignore")
    return cut + fill * (size - len(cut.encode()))
