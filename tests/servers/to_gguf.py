"""
The model of bert.py as the file that llama.cpp loads. It runs in the environment of that server:

    python to_gguf.py FOLDER FILE
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gguf
import numpy as np

_WORD = "▁"  # before a piece that begins a word, where BERT has ## before the others
_NAMES = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer": "blk",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def convert(folder: Path, file: Path) -> None:
    """Write *file* from the model in *folder*."""
    config = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(file, "bert")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    _add_tokenizer(writer, (folder / "vocab.txt").read_text().split("\n")[:-1], config["type_vocab_size"])
    packed = (folder / "model.safetensors").read_bytes()
    start = 8 + int.from_bytes(packed[:8], "little")
    for name, about in json.loads(packed[8:start]).items():
        if name != "__metadata__" and not name.startswith("pooler"):
            first, last = about["data_offsets"]
            numbers = np.frombuffer(packed[start + first : start + last], "<f4").reshape(about["shape"])
            writer.add_tensor(_rename(name), numbers)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: list[str], types: int) -> None:
    special = [token.startswith("[") and token.endswith("]") and len(token) > 2 for token in vocabulary]
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("bert")
    writer.add_token_type_count(types)
    writer.add_token_list(
        [
            token if is_special else token.removeprefix("##") if token.startswith("##") else _WORD + token
            for token, is_special in zip(vocabulary, special, strict=True)
        ]
    )
    kinds = (gguf.TokenType.NORMAL, gguf.TokenType.CONTROL)
    writer.add_token_types([kinds[is_special] for is_special in special])
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_eos_token_id(3)
    writer.add_sep_token_id(3)
    writer.add_mask_token_id(4)


def _rename(name: str) -> str:
    for old in sorted(_NAMES, key=len, reverse=True):  # "attention.output.dense" ends like "output.dense"
        name = name.replace(old, _NAMES[old])
    return name


if __name__ == "__main__":
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
