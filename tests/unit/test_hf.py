"""Tokenizers of Hugging Face: exact counts with what is added, bounds that hold, from a file on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedbatch.errors import ConfigurationError
from embedbatch.plan.hf import HfTokenizer, growth
from embedbatch.plan.tokens import TiktokenTokenizer, as_tokenizer, cl100k_base
from embedbatch.plan.tokens import Tokenizer as Protocol

from .chunking import NASTY
from .tokenizing import KINDS, hf_tokenizer, raw_tokenizer, write_tokenizer

# What grows when it is normalised: to 18 letters, to three signs of music, to two letters, to three jamo.
GROWING = ["\ufdfa", "\U0001d160", "\u0130", "\ud55c", "\ufb03", "\u0390", "\u1f82", "\u023a"]
texts = st.lists(st.sampled_from(NASTY + GROWING) | st.text(max_size=3), max_size=30).map("".join)
ADDED = {"wordpiece": 2, "unigram": 2, "byte-level": 1}

for_every_kind = pytest.mark.parametrize("kind", KINDS)


@for_every_kind
@given(text=texts)
def test_the_count_is_that_of_the_input_on_the_server(kind: str, text: str) -> None:
    """Special tokens that are added count, as do those that stand in the text; the text may be empty."""
    assert hf_tokenizer(kind).count(text) == len(raw_tokenizer(kind).encode(text).ids)


@for_every_kind
@given(text=texts)
def test_no_text_has_more_tokens_than_its_bound(kind: str, text: str) -> None:
    """Also where normalising makes it longer."""
    assert len(raw_tokenizer(kind).encode(text).ids) <= hf_tokenizer(kind).bound(len(text.encode()))


@pytest.mark.parametrize("character", GROWING)
@for_every_kind
def test_the_bound_holds_for_what_grows_the_most(kind: str, character: str) -> None:
    """A text of nothing else."""
    text = character * 20

    assert hf_tokenizer(kind).count(text) <= hf_tokenizer(kind).bound(len(text.encode()))


@for_every_kind
@given(text=texts)
def test_every_token_of_the_text_has_an_end(kind: str, text: str) -> None:
    """What is added has none. Ends do not fall, and lie in the text."""
    ends = hf_tokenizer(kind).ends(text)

    assert ends.dtype == np.int64
    assert len(ends) == hf_tokenizer(kind).count(text) - ADDED[kind]
    assert np.all(np.diff(ends) >= 0)
    assert not len(ends) or 0 <= ends[0] <= ends[-1] <= len(text)


def test_the_end_of_a_token_is_behind_its_characters() -> None:
    """In the text as it is, not as it is normalised."""
    assert hf_tokenizer("wordpiece").ends("The Über-fox").tolist()[-1] == 12
    assert hf_tokenizer("wordpiece").ends("a \ufb03 b").tolist() == [1, 3, 5]
    assert set(hf_tokenizer("byte-level").ends("é語").tolist()) == {1, 2}


@for_every_kind
def test_a_text_comes_back_from_its_tokens(kind: str) -> None:
    """With the added tokens or without; where it cannot be had back, that is a ValueError."""
    raw, tokenizer = raw_tokenizer(kind), hf_tokenizer(kind)

    for adds in (True, False):
        assert tokenizer.decode(raw.encode("the quick brown fox", add_special_tokens=adds).ids) == "the quick brown fox"
    with pytest.raises((ValueError, OverflowError)):
        tokenizer.decode([3, 3, 0, 10**6])
    with pytest.raises((ValueError, OverflowError)):
        tokenizer.decode([-1])


def test_what_a_file_says_of_cutting_and_padding_does_not_count(tmp_path: Path) -> None:
    """Most of these files are set to cut at a length of their own, and to pad up to it."""
    tokenizer = as_tokenizer(write_tokenizer("wordpiece", tmp_path))

    assert tokenizer.count("the " * 100) == 102
    assert tokenizer.count("") == 2


def test_a_tokenizer_is_read_from_a_path_or_a_folder(tmp_path: Path) -> None:
    """As a text or as a Path. It is called after its file and what is in it, not after where that is."""
    file = write_tokenizer("unigram", tmp_path)
    (tmp_path / "other").mkdir()
    other = write_tokenizer("wordpiece", tmp_path / "other")

    names = {as_tokenizer(given).name for given in (file, str(file), tmp_path, str(tmp_path))}
    assert len(names) == 1
    assert as_tokenizer(other).name not in names
    assert all(name.startswith("tokenizer.json ") for name in names)
    assert isinstance(as_tokenizer(file), Protocol)


def test_the_vocabulary_of_openai_has_a_name() -> None:
    """It is in the package, so it needs no path."""
    assert as_tokenizer("cl100k_base").name == cl100k_base().name
    assert not isinstance(as_tokenizer("cl100k_base"), TiktokenTokenizer)  # not before it is needed


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot read .*tokenizer.json: No such file"),
        (b"", "is not a tokenizer.json"),
        (b"{}", "is not a tokenizer.json"),
        (b'{"version": "1.0", "model": {"type": "Nothing"}}', "is not a tokenizer.json"),
        (b"\xff\xfe\x00", "is not a tokenizer.json"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """At once, and by its name: not when the first long text comes."""
    if content is not None:
        (tmp_path / "tokenizer.json").write_bytes(content)

    with pytest.raises(ConfigurationError, match=f"tokenizer: .*{reason}"):
        as_tokenizer(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        (None, 1),
        ({"type": "BertNormalizer"}, 1),
        ({"type": "NFC"}, 3),
        ({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}, 16.5),
        ({"type": "Sequence", "normalizers": []}, 1),
        ({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}, 1),
        ({"type": "Replace", "pattern": {"String": "``"}, "content": '"'}, 1),
        ({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}, 1),
        ({"type": "Replace", "pattern": {"String": "ab"}, "content": "abcdef"}, 3),
        ({"type": "OfTomorrow"}, 16),
    ],
)
def test_how_much_a_text_grows_is_known_by_the_steps(normalizer: dict[str, Any] | None, expected: float) -> None:
    """A step that is not known is taken for a bad one."""
    assert growth(normalizer) == expected


def test_llamas_marks_are_no_growth(tmp_path: Path) -> None:
    """A mark in front, and one for each space, are a token each, whatever bytes they have."""
    described = json.loads(raw_tokenizer("byte-level").to_str())
    described["normalizer"] = {
        "type": "Sequence",
        "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ],
    }

    assert HfTokenizer(Tokenizer.from_str(json.dumps(described)), "llama").bound(100) == 102


FORKS = """
import os, sys
from pathlib import Path
from embedbatch.plan.hf import read
tokenizer = read(Path(sys.argv[1]))
tokenizer.count("the quick brown fox")
child = os.fork()
if not child:
    tokenizer.count("over the lazy dog")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert "TOKENIZERS_PARALLELISM" not in os.environ
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="there is no fork")
def test_a_process_that_counted_can_fork_without_a_warning(tmp_path: Path) -> None:
    """The tokenizers package warns of threads of its own, which counting one text does not start."""
    file = write_tokenizer("wordpiece", tmp_path)

    run = subprocess.run([sys.executable, "-c", FORKS, file], capture_output=True, text=True, timeout=60, check=False)

    assert (run.returncode, run.stderr) == (0, "")
