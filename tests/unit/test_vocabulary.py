"""The vocabulary of cl100k_base travels with the package, and the user's own copy is used only if it is the same."""

from __future__ import annotations

import gzip
import hashlib
import os
from importlib import resources
from pathlib import Path

import pytest

from embedbatch.plan import vocabulary

# As tiktoken has it in tiktoken_ext/openai_public.py (0.14.0).
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
CACHED_AS = "9b5ad71b2ce5302211f9c61530b329a4922fc6a4"  # what tiktoken calls the file: sha1 of its address


def packaged() -> bytes:
    return gzip.decompress(resources.files("embedbatch.plan").joinpath("cl100k_base.tiktoken.gz").read_bytes())


def cached_copy(folder: Path, data: bytes) -> Path:
    """The folder as TIKTOKEN_CACHE_DIR, with *data* as its copy. conftest.py takes the variable away again."""
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    file = folder / CACHED_AS
    file.write_bytes(data)
    return file


def test_the_packaged_vocabulary_is_openais() -> None:
    """The file inside the package has the sha256 that tiktoken demands of its download."""
    assert hashlib.sha256(packaged()).hexdigest() == SHA256 == vocabulary.SHA256


def test_there_are_100_256_tokens() -> None:
    """Ids 0 to 100,255 are there once each, for different bytes, and all 256 single bytes are among them."""
    ranks = vocabulary.load_ranks()

    assert sorted(ranks.values()) == list(range(100_256))
    assert all(bytes([byte]) in ranks for byte in range(256))
    assert ranks[b" world"] == 1917


def test_pattern_and_special_tokens_are_tiktokens() -> None:
    """The split pattern and the five special tokens are those of tiktoken's own definition."""
    pytest.importorskip("tiktoken_ext.openai_public")
    source = resources.files("tiktoken_ext").joinpath("openai_public.py").read_text(encoding="utf-8")
    definition = source[source.index("def cl100k_base") : source.index("def o200k_base")]

    assert vocabulary.URL in definition
    assert vocabulary.SHA256 in definition
    assert vocabulary.PATTERN in definition
    assert list(vocabulary.SPECIAL_TOKENS.values()) == [100_257, 100_258, 100_259, 100_260, 100_276]


def test_no_token_is_longer_than_128_bytes() -> None:
    """A text of more than 2,000,000 characters has more than 15,000 tokens: a legal input never meets a piece's end."""
    assert max(map(len, vocabulary.load_ranks())) == 128


def test_a_genuine_copy_is_preferred(tmp_path: Path) -> None:
    """The right file in TIKTOKEN_CACHE_DIR, under tiktoken's name for it, is read instead of the package's."""
    cached_copy(tmp_path, packaged())

    assert vocabulary._cached() == packaged()
    assert len(vocabulary.load_ranks()) == 100_256


@pytest.mark.parametrize("damage", [b"", b"not a vocabulary", b"IQ== 0\n"])
def test_a_wrong_copy_is_ignored_and_left_alone(tmp_path: Path, damage: bytes) -> None:
    """A file of another content is not used and not deleted; the package's vocabulary is there all the same."""
    file = cached_copy(tmp_path, damage)

    assert vocabulary._cached() is None
    assert len(vocabulary.load_ranks()) == 100_256
    assert file.read_bytes() == damage


def test_one_changed_byte_makes_a_copy_wrong(tmp_path: Path) -> None:
    """A copy that differs in its last token is ignored: a wrong rank would be a wrong count."""
    cached_copy(tmp_path, packaged()[:-2] + b"9\n")

    assert vocabulary._cached() is None


@pytest.mark.parametrize("folder", ["", "missing", "a file"])
def test_a_folder_that_holds_no_copy_is_no_error(tmp_path: Path, folder: str) -> None:
    """TIKTOKEN_CACHE_DIR may be empty, missing, a file, or hold a folder of that name."""
    (tmp_path / "a file").write_bytes(b"")
    os.environ["TIKTOKEN_CACHE_DIR"] = str(tmp_path / folder) if folder else ""
    if not folder:
        assert vocabulary._cached() is None
        os.environ["TIKTOKEN_CACHE_DIR"] = str(tmp_path)
        (tmp_path / CACHED_AS).mkdir()

    assert vocabulary._cached() is None
