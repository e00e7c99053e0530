"""Tokenizers of Hugging Face's kinds, small ones, made here from a few words."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from embedbatch.plan.hf import HfTokenizer, read

KINDS = ("wordpiece", "unigram", "byte-level")

WORDS = (
    "the quick brown fox jumps over a lazy dog while reading about embeddings and tokenizers in several languages "
    "Der schnelle braune Fuchs springt über den faulen Hund, 日本語 の 文章 もあります。 don't stop! 2024 3.14 don t "
    "und Hello world supercalifragilistic ... ??? e\u0301 é ü ß עברית हिन्दी 한국어 a b c d e f g h i j k"
)


@functools.cache
def raw_tokenizer(kind: str) -> Tokenizer:
    """A tokenizer with the parts that BERT has, or XLM-RoBERTa, or Qwen, as its own package runs it."""
    return {"wordpiece": _wordpiece, "unigram": _unigram, "byte-level": _byte_level}[kind]()


def write_tokenizer(kind: str, folder: Path) -> Path:
    """The ``tokenizer.json`` of one in *folder*. It cuts and pads, as most that one finds do."""
    tokenizer = Tokenizer.from_str(raw_tokenizer(kind).to_str())
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=8)
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@functools.cache
def hf_tokenizer(kind: str) -> HfTokenizer:
    """The same, by the code under test."""
    with tempfile.TemporaryDirectory() as folder:
        return read(write_tokenizer(kind, Path(folder)))


def _wordpiece() -> Tokenizer:
    """BERT's: lower case, no accents, [CLS] and [SEP] around it."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(
        [WORDS], trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def _unigram() -> Tokenizer:
    """XLM-RoBERTa's: the compatible form, a mark for a space, <s> and </s> around it."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def _byte_level() -> Tokenizer:
    """Qwen's: the canonical form, bytes, and one token behind it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([WORDS], trainer)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer
