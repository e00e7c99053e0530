"""A small BERT with random weights, as the folder that servers load. Its vectors mean nothing, and stay the same."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

Weights = npt.NDArray[np.float32]

SIZE = 64  # of the vectors
LAYERS = 2
HEADS = 2
INNER = 128
MAX_TOKENS = 512  # of one text: it has so many positions
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = [*string.ascii_lowercase, *string.digits, *string.punctuation]
VOCABULARY = [*SPECIAL, *PIECES, *(f"##{piece}" for piece in PIECES), "the", "##ing", "##er", "##ion"]


def write_bert(folder: Path) -> Path:
    """Write the model into *folder*, and return that."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(dict(weights()), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config()))
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCABULARY))
    tokenizer().save(str(folder / "tokenizer.json"))
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), SPECIAL, strict=True))
    of_tokenizer = {"tokenizer_class": "BertTokenizer", "model_max_length": MAX_TOKENS, "do_lower_case": True, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(of_tokenizer))
    return folder


def config() -> dict[str, object]:
    """What transformers reads of it."""
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": len(VOCABULARY),
        "hidden_size": SIZE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": INNER,
        "max_position_embeddings": MAX_TOKENS,
        "type_vocab_size": 2,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def tokenizer() -> Tokenizer:
    """Words, and their letters where a word is not known."""
    made = Tokenizer(models.WordPiece({token: n for n, token in enumerate(VOCABULARY)}, unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.decoder = decoders.WordPiece()
    return made


def weights() -> Iterator[tuple[str, Weights]]:
    """Each tensor by its name. They are large, or else all texts would be nearly alike."""
    rng = np.random.default_rng(7)

    def draw(*shape: int, scale: float = 0.15) -> Weights:
        return rng.normal(0.0, scale, shape).astype(np.float32)

    def norm(name: str) -> Iterator[tuple[str, Weights]]:
        yield f"{name}.weight", np.ones(SIZE, np.float32)
        yield f"{name}.bias", np.zeros(SIZE, np.float32)

    def linear(name: str, outputs: int, inputs: int) -> Iterator[tuple[str, Weights]]:
        yield f"{name}.weight", draw(outputs, inputs)
        yield f"{name}.bias", draw(outputs)

    yield "embeddings.word_embeddings.weight", draw(len(VOCABULARY), SIZE, scale=1.0)
    yield "embeddings.position_embeddings.weight", draw(MAX_TOKENS, SIZE, scale=0.5)
    yield "embeddings.token_type_embeddings.weight", draw(2, SIZE)
    yield from norm("embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        for name in ("query", "key", "value"):
            yield from linear(f"{layer}.attention.self.{name}", SIZE, SIZE)
        yield from linear(f"{layer}.attention.output.dense", SIZE, SIZE)
        yield from norm(f"{layer}.attention.output.LayerNorm")
        yield from linear(f"{layer}.intermediate.dense", INNER, SIZE)
        yield from linear(f"{layer}.output.dense", SIZE, INNER)
        yield from norm(f"{layer}.output.LayerNorm")
    yield from linear("pooler.dense", SIZE, SIZE)
