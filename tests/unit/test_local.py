"""The embedded model and its tokenizer: the vectors are WordLlama's, the counts are exact, the bounds hold."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from embedbatch.errors import ConfigurationError, EmptyInputError
from embedbatch.local import LocalModel, LocalTokenizer, load
from embedbatch.local.model import normalised, read

Embed = Callable[[list[str]], npt.NDArray[np.float32]]

ODD = [
    "<s>",
    "</s>",
    "<unk>",
    " ",
    "▁",
    "\n",
    "\x00",
    "😀",
    "한",
    "좋",
    "a",
    "é",
    "e\u0301",
    "<0x0A>",
    "\u200d",
    "\ufffd",
]
texts = st.text() | st.lists(st.sampled_from(ODD) | st.text(max_size=4)).map("".join)

TEXTS = [
    "The quick brown fox jumps over the lazy dog.",
    "x",
    " ",
    "a line\nand another",
    "Der Fluß führt Hochwasser — 河が氾濫している 🌊",
    "special </s> tokens <s> in a text",
    "long " * 2_000,
]


@pytest.fixture(scope="module")
def model() -> LocalModel:
    return load()


@pytest.fixture(scope="module")
def wordllama_embed() -> Embed:
    """WordLlama's own vectors. Its import reconfigures the root logger, which is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    import wordllama

    own = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)
    root.handlers[:] = handlers
    root.setLevel(level)
    return lambda texts: own.embed(texts, norm=True)


@pytest.fixture(scope="module")
def own_tokenizer() -> Tokenizer:
    """WordLlama's tokenizer as the tokenizers package has it."""
    spec = importlib.util.find_spec("wordllama")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    return Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))


def tokenizer() -> LocalTokenizer:
    return load().tokenizer


# The model


def test_vectors_are_those_of_wordllama(model: LocalModel, wordllama_embed: Embed) -> None:
    """For texts of any kind and length, each vector is WordLlama's own to within float32 rounding."""
    vectors, _ = model.embed(TEXTS)

    np.testing.assert_allclose(vectors, wordllama_embed(TEXTS), rtol=1e-4, atol=1e-6)


def test_vectors_are_float32_rows_of_length_one(model: LocalModel) -> None:
    """The vectors are float32 of shape (len(texts), 256), each of norm 1."""
    vectors, _ = model.embed(TEXTS)

    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), 256)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_counts_are_those_of_the_tokenizer(model: LocalModel) -> None:
    """The counts beside the vectors are what the tokenizer counts for each text."""
    _, counts = model.embed(TEXTS)

    assert counts == [model.tokenizer.count(text) for text in TEXTS]


def test_the_company_of_a_text_does_not_matter(model: LocalModel) -> None:
    """A text has the same vector, bit for bit, alone and among others of any length."""
    together, _ = model.embed(TEXTS)

    for text, vector in zip(TEXTS, together, strict=True):
        alone, _ = model.embed([text])
        assert alone[0].tobytes() == vector.tobytes()


def test_token_arrays_have_the_vectors_of_their_texts(model: LocalModel) -> None:
    """Embedding the token ids of a text, as a list or as an array, is embedding the text."""
    expected, _ = model.embed(TEXTS)
    arrays = list(model.tokenizer.encode(TEXTS))

    np.testing.assert_array_equal(model.embed_tokens(arrays), expected)
    np.testing.assert_array_equal(model.embed_tokens([ids.tolist() for ids in arrays]), expected)


def test_no_texts_have_no_vectors(model: LocalModel) -> None:
    """No texts give an array of shape (0, 256) and no counts."""
    vectors, counts = model.embed([])

    assert vectors.shape == (0, 256)
    assert counts == []


def test_an_input_without_tokens_is_refused(model: LocalModel) -> None:
    """The mean of no tokens is an error that names the input, not a row of NaN."""
    with pytest.raises(EmptyInputError, match="input 1 has no tokens"):
        model.embed(["a", ""])


@pytest.mark.parametrize(("token", "error"), [(-1, OverflowError), (32_000, IndexError)])
def test_a_token_outside_the_vocabulary_is_refused(model: LocalModel, token: int, error: type[Exception]) -> None:
    """An id below 0 or above 31,999 is an error, never the vector of another token."""
    with pytest.raises(error):
        model.embed_tokens([[1, token]])


def test_zeros_have_no_direction() -> None:
    """A row of zeros stays zeros when the others get length 1."""
    rows = np.array([[0, 0], [3, 4]], np.float32)

    np.testing.assert_allclose(normalised(rows), np.array([[0, 0], [0.6, 0.8]], np.float32))


# The tokenizer


@given(texts)
@example("")
@example("\n")
@example("a</s>b</s>c")
def test_no_text_has_more_tokens_than_its_bound(text: str) -> None:
    """A text has at most as many tokens as UTF-8 bytes, and one."""
    assert tokenizer().count(text) <= tokenizer().bound(len(text.encode()))


def test_the_bound_is_reached() -> None:
    """A newline is one byte and two tokens, the "▁" in front and itself: no lower bound would hold."""
    assert tokenizer().count("\n") == tokenizer().bound(1) == 2


@given(texts)
def test_no_text_has_fewer_tokens_than_its_least(text: str) -> None:
    """No token stands for more than 16 characters."""
    assert tokenizer().count(text) >= tokenizer().least(len(text))


def test_no_piece_is_longer_than_sixteen_characters(model: LocalModel) -> None:
    """The longest piece of the vocabulary has 16 characters, so 17 characters are at least two tokens."""
    pieces = [model.tokenizer.decode([1, token]).removeprefix("<s>") for token in range(259, 32_000)]

    assert max(map(len, pieces)) == 16
    assert model.tokenizer.least(16) == 1
    assert model.tokenizer.least(17) == 2


@given(texts)
@example("")
@example("😀")
@example(" hello")
@example("a</s> b")
def test_ends_rise_to_the_end_of_the_text(text: str) -> None:
    """There is one end for each token, none is before the last, and the last is the length of the text."""
    ends = tokenizer().ends(text)

    assert ends.dtype == np.int64
    assert ends.shape == (tokenizer().count(text),)
    assert (np.diff(ends, prepend=0) >= 0).all()
    assert not text or ends[-1] == len(text)


@given(texts)
def test_a_text_cut_at_an_end_has_no_token_more(text: str) -> None:
    """What stands before the end of token i has at most the i + 1 tokens up to there."""
    for i, end in enumerate(tokenizer().ends(text)):
        assert tokenizer().count(text[:end]) <= i + 1


def test_a_character_in_pieces_ends_with_its_last_piece() -> None:
    """An emoji of four byte tokens is not part of the text before the fourth."""
    assert tokenizer().ends("a😀b").tolist() == [1, 1, 1, 1, 2, 3]


def test_the_mark_in_front_completes_no_character() -> None:
    """A "▁" that is a token of its own, in front or after a special token, ends before the character it precedes."""
    assert tokenizer().ends(" hello").tolist() == [0, 6]
    assert tokenizer().ends("a</s> b").tolist() == [1, 5, 5, 7]


def test_no_cut_is_stable() -> None:
    """Even between two words the part after a cut can get other tokens: no cut is claimed to be stable."""
    text = "two words"

    assert not tokenizer().is_stable_cut(text, 3)
    assert [ids.tolist() for ids in tokenizer().encode([text[3:]])] != [
        ids.tolist()[1:] for ids in tokenizer().encode([text])
    ]


@given(st.lists(texts, max_size=5))
def test_encoding_texts_together_is_encoding_each(several: list[str]) -> None:
    """Each text gets its own tokens, in order, and as many as are counted."""
    encoded = list(tokenizer().encode(several))

    assert [len(ids) for ids in encoded] == [tokenizer().count(text) for text in several]
    assert [ids.tolist() for ids in encoded] == [next(tokenizer().encode([text])).tolist() for text in several]


def test_texts_of_many_groups_keep_their_order() -> None:
    """Hundreds of kilobytes, which are tokenized in several groups, come back one for one and in order."""
    several = [f"text number {i} " * 100 for i in range(300)]

    decoded = [tokenizer().decode(ids.tolist()) for ids in tokenizer().encode(several)]

    assert decoded == several


@given(st.text())
def test_decoding_gives_the_text_back(text: str) -> None:
    """Encoded and decoded, a text is itself, but for "▁", which is how the tokenizer writes a space."""
    (ids,) = tokenizer().encode([text])

    assert tokenizer().decode(ids.tolist()) == text.replace("▁", " ")


@given(texts)
def test_decoding_agrees_with_the_tokenizers_package(own_tokenizer: Tokenizer, text: str) -> None:
    """What a text's tokens decode to is what the tokenizers package makes of them, special tokens by name."""
    (ids,) = tokenizer().encode([text])

    assert tokenizer().decode(ids.tolist()) == own_tokenizer.decode(ids.tolist(), skip_special_tokens=False)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [([-1], "0 to 31,999, got -1"), ([32_000], "0 to 31,999, got 32000"), ([243, 162], "'utf-8' codec can't decode")],
)
def test_what_is_no_text_is_not_decoded(tokens: list[int], message: str) -> None:
    """An id outside the vocabulary, or half of an emoji, raises ValueError."""
    with pytest.raises(ValueError, match=message):
        tokenizer().decode(tokens)


# Loading


def test_the_model_is_loaded_once() -> None:
    """Every call of load gives the one model of the process."""
    assert load() is load()


def test_loading_does_not_import_wordllama() -> None:
    """Creating the app imports no tokenizer, and loading the model imports no WordLlama."""
    run_python(
        "import sys; from embedbatch.local import LocalApp, load; LocalApp();"
        "assert not {'tokenizers', 'safetensors', 'wordllama'} & set(sys.modules);"
        "load();"
        "assert 'wordllama' not in sys.modules"
    )


@pytest.mark.parametrize("package", ["wordllama", "tokenizers", "safetensors"])
def test_a_missing_package_is_named_with_its_remedy(package: str) -> None:
    """Without one of the packages of the extra, loading says which one is missing and what to install."""
    run_python(
        f"import sys; sys.modules[{package!r}] = None\n"
        "from embedbatch.errors import ConfigurationError\n"
        "from embedbatch.local import load\n"
        "try: load()\n"
        "except ConfigurationError as error: message = str(error)\n"
        f"assert '{package} is missing' in message, message\n"
        "assert message.endswith(\"pip install 'embedbatch[local]'\"), message"
    )


def test_a_missing_file_is_named_with_its_remedy(tmp_path: Path) -> None:
    """A package without its weights is an error with the file and what to install."""
    with pytest.raises(ConfigurationError, match=r"l2_supercat_256\.safetensors is missing.*embedbatch\[local\]"):
        read(tmp_path)


def run_python(program: str) -> None:
    """Run *program* in a process of its own; what it raises fails the test."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
