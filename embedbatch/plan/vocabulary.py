"""
The vocabulary of cl100k_base, which travels inside the package. Nothing is ever downloaded.

tiktoken's own loader fetches the file at first use, without a timeout, and deletes a cached file whose hash
differs. Here a file in ``TIKTOKEN_CACHE_DIR`` is preferred when it is the right one, and otherwise left alone.
"""

from __future__ import annotations

import binascii
import gzip
import hashlib
import os
from importlib import resources
from pathlib import Path

# tiktoken_ext/openai_public.py: where the file lives, the sha256 it must have, the split pattern, the specials.
URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
PATTERN = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]"
    r"|\s+(?!\S)|\s"
)
SPECIAL_TOKENS = {
    "<|endoftext|>": 100_257,
    "<|fim_prefix|>": 100_258,
    "<|fim_middle|>": 100_259,
    "<|fim_suffix|>": 100_260,
    "<|endofprompt|>": 100_276,
}


def load_ranks() -> dict[bytes, int]:
    """The merge ranks of cl100k_base: 100,256 byte strings and their token ids."""
    data = _cached() or _packaged()
    ranks = {}
    for line in data.splitlines():
        token, rank = line.split()
        ranks[binascii.a2b_base64(token)] = int(rank)
    return ranks


def _cached() -> bytes | None:
    """The user's own copy, under the name that tiktoken gives it."""
    folder = os.environ.get("TIKTOKEN_CACHE_DIR")
    if not folder:
        return None
    try:
        data = Path(folder, hashlib.sha1(URL.encode(), usedforsecurity=False).hexdigest()).read_bytes()
    except OSError:
        return None
    return data if _is_genuine(data) else None


def _packaged() -> bytes:
    packed = resources.files(__package__).joinpath("cl100k_base.tiktoken.gz").read_bytes()
    data = gzip.decompress(packed)
    if not _is_genuine(data):
        raise RuntimeError("the vocabulary in this installation is damaged; reinstall embedbatch")
    return data


def _is_genuine(data: bytes) -> bool:
    return hashlib.sha256(data).hexdigest() == SHA256
