#!/usr/bin/env python3
"""Makes the GGUF files that tests/it/gguf.rs reads, and what it should find in them.

    scripts/goldens/gguf_files.py

`tokenizer-*.gguf` hold the tokenizers of other fixtures. `packings.gguf` holds a tensor of each
packing, bytes by a formula and scales that are small;
what it unpacks to is by the gguf package. The others are tiny models, written as llama.cpp's
converter does it, by the names of the gguf package; their logits are by transformers, which
reads the same files.
"""

import json

import families
import gguf
import model as goldens
import numpy as np
import torch
from families import THETA, VOCAB_SIZE, numbers, rows, weights
from gguf.quants import dequantize, quantize
from safetensors.torch import save_file
from sentencepiece import SentencePieceProcessor
from transformers import AutoConfig, AutoModelForCausalLM

FIXTURES = goldens.FIXTURES / "gguf"
SHAPE = {**families.SHAPE, "intermediate_size": 64, "num_hidden_layers": 2}
ROPE = {"rope_parameters": {"rope_type": "default", **THETA}}
# Architecture, model_type, what is special, and how that is told.
MODELS = [
    ("llama", "llama", {**ROPE, "tie_word_embeddings": True}, {}),
    ("qwen2", "qwen2", ROPE, {}),
    ("qwen3", "qwen3", {**ROPE, "head_dim": 16}, {"attention.key_length": 16}),
    (
        "gemma2",
        "gemma2",
        {**ROPE, "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 8},
        {
            "attention.key_length": 16,
            "attention.sliding_window": 8,
            "attn_logit_softcapping": 50.0,
            "final_logit_softcapping": 30.0,
        },
    ),
    (
        "gemma3",
        "gemma3_text",
        {
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window": 8,
            "rope_parameters": {
                "full_attention": {"rope_type": "default", **THETA},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            },
        },
        {"attention.key_length": 16, "attention.sliding_window": 8},
    ),
    ("phi3", "phi3", ROPE, {}),
]
PACKINGS = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K"]
# Where a block has 16-bit scales.
SCALES = {"Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def packed(name):
    """Bytes of some blocks, and the values in them."""
    packing = gguf.GGMLQuantizationType[name]
    if name in ["F32", "F16", "BF16"]:
        values = quantize(numbers(name, 64).reshape(2, 32), packing)
        return packing, values, dequantize(values, packing)
    n_bytes = gguf.GGML_QUANT_SIZES[packing][1]
    blocks = ((numbers(name, 3 * n_bytes) + 0.5) * 256).astype(np.uint8).reshape(3, n_bytes)
    for at in SCALES.get(name, [0]):
        scale = numbers(f"{name} {at}", 3).astype(np.float16).view(np.uint8).reshape(3, 2)
        blocks[:, at : at + 2] = scale
    return packing, blocks, dequantize(blocks, packing)


def packings():
    writer = gguf.GGUFWriter(FIXTURES / "packings.gguf", "llama")
    expected = {}
    for name in PACKINGS:
        packing, data, values = packed(name)
        writer.add_tensor(name, data, raw_dtype=packing)
        expected[name] = torch.from_numpy(np.array(values, dtype=np.float32))
    finish(writer)
    return expected


def tokenizers():
    """The tokenizers of two other fixtures."""
    tiny = goldens.FIXTURES / "tiny-llama"
    tokenizer = json.loads((tiny / "tokenizer.json").read_text())
    config = json.loads((tiny / "tokenizer_config.json").read_text())
    special = {token["content"] for token in tokenizer["added_tokens"]}
    vocab = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    writer = gguf.GGUFWriter(FIXTURES / "tokenizer-bpe.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocab)
    writer.add_token_types([3 if token in special else 1 for token in vocab])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(vocab.index(config["bos_token"]))
    writer.add_eos_token_id(vocab.index(config["eos_token"]))
    writer.add_pad_token_id(vocab.index(config["pad_token"]))
    writer.add_chat_template(config["chat_template"])
    finish(writer)

    pieces = SentencePieceProcessor(str(goldens.FIXTURES / "sentencepiece" / "bpe.model"))
    ids = range(pieces.get_piece_size())
    kinds = [3 if pieces.is_control(i) else 6 if pieces.is_byte(i) else 1 for i in ids]
    writer = gguf.GGUFWriter(FIXTURES / "tokenizer-spm.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list([pieces.id_to_piece(i) for i in ids])
    writer.add_token_scores([pieces.get_score(i) for i in ids])
    writer.add_token_types(kinds)
    writer.add_bos_token_id(pieces.bos_id())
    writer.add_eos_token_id(pieces.eos_id())
    writer.add_unk_token_id(pieces.unk_id())
    finish(writer)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def pairs(rows, n_heads):
    """Each head's two halves as pairs, as llama.cpp turns them."""
    return rows.reshape(n_heads, 2, -1, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def write_model(architecture, model_type, special, told):
    config = AutoConfig.for_model(model_type, **SHAPE, **special)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    writer = gguf.GGUFWriter(FIXTURES / f"{architecture}.gguf", architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(THETA["rope_theta"])
    writer.add_vocab_size(VOCAB_SIZE)
    for key, value in told.items():
        add = writer.add_float32 if isinstance(value, float) else writer.add_uint32
        add(f"{architecture}.{key}", value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, weight in model.named_parameters():
        own = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert own, name
        data = weights(name, tuple(weight.shape)).numpy()
        if architecture == "llama" and "q_proj" in name:
            data = pairs(data, config.num_attention_heads)
        if architecture == "llama" and "k_proj" in name:
            data = pairs(data, config.num_key_value_heads)
        if architecture.startswith("gemma") and "norm" in name:
            data = data + 1
        # Vectors stay as they are.
        packing = gguf.GGMLQuantizationType.F32 if data.ndim == 1 else gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(own, quantize(data, packing), raw_dtype=packing)
    finish(writer)
    return config


def logits(architecture, config):
    model = AutoModelForCausalLM.from_pretrained(
        FIXTURES,
        gguf_file=f"{architecture}.gguf",
        config=config,
        dtype=torch.float32,
        attn_implementation="eager",
    )
    token_ids = list(rows())[-1][0]
    with torch.no_grad():
        return model(token_ids[None]).logits[0].contiguous()


def main():
    FIXTURES.mkdir(exist_ok=True)
    expected = packings()
    tokenizers()
    for model in MODELS:
        config = write_model(*model)
        expected[f"{model[0]}.logits"] = logits(model[0], config)
    save_file(expected, goldens.GOLDENS / "gguf.safetensors")


if __name__ == "__main__":
    main()
