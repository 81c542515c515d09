#!/usr/bin/env python3
"""Turn a GGUF file of a Llama model into a Hugging Face model folder.

    gguf_to_hf.py MODEL.gguf FOLDER

Reads what SmolLM2-135M-Instruct's GGUF holds (F32, Q4_1 and Q8_0 tensors, a
byte-level BPE tokenizer whose digits stand alone, a chat template) and writes
model.safetensors in f32, config.json, generation_config.json, tokenizer.json,
tokenizer_config.json and special_tokens_map.json. The same input gives the same
bytes on every machine: f32 holds every product of the dequantisation exactly, and
its one addition rounds as IEEE 754 says. Needs numpy and nothing else.

Formats: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (GGUF),
https://github.com/huggingface/safetensors#format (safetensors).
"""

import json
import struct
import sys
from pathlib import Path

import numpy as np

# GGUF metadata value types that are plain numbers, by their code.
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
STRING, ARRAY = 8, 9

# Quantised tensors are rows of blocks of 32 weights.
Q4_1 = np.dtype([("scale", "<f2"), ("minimum", "<f2"), ("nibbles", "u1", 16)])
Q8_0 = np.dtype([("scale", "<f2"), ("weights", "i1", 32)])

# GGUF's names of the tensors of one decoder layer, and Hugging Face's.
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
CONTROL_TOKEN = 3


class Gguf:
    """A GGUF file: its metadata, and its tensors as f32 arrays on demand."""

    def __init__(self, path):
        self.bytes = np.memmap(path, dtype="u1", mode="r")
        self.at = 0
        magic, version, n_tensors, n_values = self.unpack("<4sIQQ")
        if magic != b"GGUF" or version != 3:
            sys.exit(f"{path}: not a GGUF file of version 3")
        self.metadata = {}
        for _ in range(n_values):
            key = self.string()
            self.metadata[key] = self.value(*self.unpack("<I"))
        self.tensors = {}
        for _ in range(n_tensors):
            name = self.string()
            (n_dims,) = self.unpack("<I")
            dims = self.unpack(f"<{n_dims}Q")
            kind, offset = self.unpack("<IQ")
            # GGUF names the fastest-varying dimension first.
            self.tensors[name] = (dims[::-1], kind, offset)
        alignment = self.metadata.get("general.alignment", 32)
        self.data = -(-self.at // alignment) * alignment

    def unpack(self, form):
        values = struct.unpack_from(form, self.bytes, self.at)
        self.at += struct.calcsize(form)
        return values

    def string(self):
        (length,) = self.unpack("<Q")
        self.at += length
        return bytes(self.bytes[self.at - length : self.at]).decode("utf-8")

    def value(self, kind):
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            item, length = self.unpack("<IQ")
            return [self.value(item) for _ in range(length)]
        if SCALARS[kind] == "<f":
            # The decimal that was meant: 1e-05, not 9.999999747378752e-06.
            return float(str(np.float32(*self.unpack("<f"))))
        return self.unpack(SCALARS[kind])[0]

    def tensor(self, name):
        """One tensor as f32, in row-major order."""
        shape, kind, offset = self.tensors[name]
        size = int(np.prod(shape))
        raw = self.bytes[self.data + offset :]
        if kind == 0:
            values = raw[: size * 4].view("<f4")
        elif kind == 3:
            values = dequantize_q4_1(raw[: size // 32 * Q4_1.itemsize].view(Q4_1))
        elif kind == 8:
            values = dequantize_q8_0(raw[: size // 32 * Q8_0.itemsize].view(Q8_0))
        else:
            sys.exit(f"{name}: GGUF tensor type {kind} is not F32, Q4_1 or Q8_0")
        return values.reshape(shape)


def dequantize_q4_1(blocks):
    """weight = nibble * scale + minimum; low nibbles are a block's first half."""
    nibbles = np.concatenate([blocks["nibbles"] & 15, blocks["nibbles"] >> 4], axis=1)
    return nibbles * blocks["scale"].astype("<f4")[:, None] + blocks["minimum"].astype("<f4")[:, None]


def dequantize_q8_0(blocks):
    """weight = byte * scale."""
    return blocks["weights"] * blocks["scale"].astype("<f4")[:, None]


def rotary_halves(weight, heads):
    """Undo llama.cpp's reordering of the q and k rows.

    llama.cpp rotates neighboring rows (0 with 1, 2 with 3, ...) of a head, Hugging
    Face rotates row i with row i + head_dim / 2.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def weights(gguf):
    """Hugging Face's tensor name -> f32 array, for the whole model."""
    heads = {
        "attn_q": gguf.metadata["llama.attention.head_count"],
        "attn_k": gguf.metadata["llama.attention.head_count_kv"],
    }
    named = {
        "model.embed_tokens.weight": gguf.tensor("token_embd.weight"),
        "model.norm.weight": gguf.tensor("output_norm.weight"),
    }
    for layer in range(gguf.metadata["llama.block_count"]):
        for theirs, ours in LAYER_TENSORS.items():
            weight = gguf.tensor(f"blk.{layer}.{theirs}.weight")
            if theirs in heads:
                weight = rotary_halves(weight, heads[theirs])
            named[f"model.layers.{layer}.{ours}.weight"] = weight
    return named


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, array in sorted(tensors.items()):
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    encoded = json.dumps(header, separators=(",", ":")).encode()
    # The data starts at a multiple of eight bytes.
    encoded += b" " * (-len(encoded) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, array in sorted(tensors.items()):
            file.write(np.ascontiguousarray(array, "<f4").data)


def config(metadata):
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "head_dim": metadata["llama.rope.dimension_count"],
        "hidden_act": "silu",
        "hidden_size": metadata["llama.embedding_length"],
        "initializer_range": metadata["llama.embedding_length"] ** -0.5,
        "intermediate_size": metadata["llama.feed_forward_length"],
        "max_position_embeddings": metadata["llama.context_length"],
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": metadata["llama.attention.head_count"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "pretraining_tp": 1,
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "rope_scaling": None,
        "rope_theta": metadata["llama.rope.freq_base"],
        "tie_word_embeddings": True,
        "torch_dtype": "float32",
        "use_cache": True,
        "vocab_size": metadata["llama.vocab_size"],
    }


def generation_config(metadata):
    return {
        "_from_model_config": True,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
    }


def added_tokens(metadata):
    """Control tokens, matched as they stand before the text is split."""
    kinds = metadata["tokenizer.ggml.token_type"]
    return [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for i, token in enumerate(metadata["tokenizer.ggml.tokens"])
        if kinds[i] == CONTROL_TOKEN
    ]


def tokenizer(metadata):
    """tokenizer.json of GGUF's `smollm` pre-tokenizer: single digits, then GPT-2's split."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added_tokens(metadata),
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": {**byte_level, "add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(metadata["tokenizer.ggml.tokens"])},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def special_tokens(metadata):
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        f"{name}_token": tokens[metadata[f"tokenizer.ggml.{key}_token_id"]]
        for name, key in {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}.items()
    }


def tokenizer_config(metadata):
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token["id"]): {key: value for key, value in token.items() if key != "id"}
            for token in added_tokens(metadata)
        },
        **special_tokens(metadata),
        "chat_template": metadata["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata["llama.context_length"],
        # Whatever tokenizer.json says, rather than a class that rebuilds its parts.
        "tokenizer_class": "PreTrainedTokenizerFast",
    }


def main():
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    gguf = Gguf(source)
    documents = {
        "config.json": config,
        "generation_config.json": generation_config,
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": tokenizer_config,
        "special_tokens_map.json": special_tokens,
    }
    for name, document in documents.items():
        text = json.dumps(document(gguf.metadata), indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    write_safetensors(folder / "model.safetensors", weights(gguf))


if __name__ == "__main__":
    main()
