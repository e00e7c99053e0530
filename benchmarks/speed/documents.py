"""The long documents: English prose that comes with every Python, and in every tenth some of other scripts."""

from __future__ import annotations

import random

SEED = 20
LEAST, MOST = 20_000, 120_000  # bytes

_OTHERS = (
    "東京は日本の首都であり、世界で最も人口の多い都市圏の一つである。",
    "Быстрая бурая лисица перепрыгивает через ленивую собаку, и никто этому не удивляется.",
    "Größere Äpfel fallen früher, müßige Vögel singen später – so heißt es zumindest.",
    "🙂🚀 👩‍👩‍👧 are characters too, and take more tokens than they look like.",
)


def documents(count: int) -> list[str]:
    """*count* documents of 20 to 120 kB, in paragraphs; the same every time, for one version of Python."""
    from pydoc_data.topics import topics

    paragraphs = [part for name in sorted(topics) for part in topics[name].split("\n\n") if len(part) > 40]
    rng = random.Random(SEED)
    return [_document(rng, paragraphs, is_mixed=number % 10 == 9) for number in range(count)]


def _document(rng: random.Random, paragraphs: list[str], *, is_mixed: bool) -> str:
    wanted = rng.randint(LEAST, MOST - 5_000)  # the last paragraph may be long
    parts: list[str] = []
    size = 0
    while size < wanted:
        part = rng.choice(_OTHERS) if is_mixed and rng.random() < 0.2 else rng.choice(paragraphs)
        parts.append(part)
        size += len(part.encode()) + 2
    return "\n\n".join(parts)
