#!/usr/bin/env python3
"""Makes the reference numbers that tests/it/families.rs compares with.

    scripts/goldens/families.py

For each family of decoders a tiny model, its configuration as transformers writes it, its
weights a formula that the tests know, too, so that no weight is stored: logits, losses and LoRA
gradients of rows of mixed lengths, one at a time, in f32, by transformers, peft and torch.
"""

import json

import numpy as np
import torch
from model import GOLDENS, versions
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

LENGTHS = [2, 23, 40]
VOCAB_SIZE = 96
SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# Wavelengths of 6, 20, 63 and 199 tokens: on both sides of what Llama 3.1 changes, and between.
THETA = {"rope_theta": 100.0}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PLAIN = {"rope_parameters": {"rope_type": "default", **THETA}}
WINDOWS = {"use_sliding_window": True, "sliding_window": 8}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32,
    "beta_fast": 4.0,
}
# Beyond the second row, not beyond the third.
LONGROPE = {
    "rope_type": "longrope",
    "short_factor": [1.0, 1.25, 1.5, 2.0],
    "long_factor": [1.0, 2.0, 4.0, 8.0],
    "original_max_position_embeddings": 25,
}
# Caps low enough to bend what these weights give.
CAPS = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0}
GEMMA = {"head_dim": 16, "query_pre_attn_scalar": 20}
GPT2 = {"n_embd": 32, "n_inner": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
# Name, model_type, what is special.
MODELS = [
    ("llama", "llama", {**PLAIN, "tie_word_embeddings": True}),
    ("llama-3.1", "llama", {"rope_parameters": {**LLAMA3, **THETA}}),
    ("llama-linear", "llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, **THETA}}),
    ("mistral", "mistral", {**PLAIN, "sliding_window": 8}),
    ("mistral-0.3", "mistral", {**PLAIN, "sliding_window": None}),
    ("qwen2", "qwen2", PLAIN),
    ("qwen2-windows", "qwen2", {**PLAIN, **WINDOWS, "max_window_layers": 1}),
    ("qwen3", "qwen3", {**PLAIN, "head_dim": 16, "tie_word_embeddings": True}),
    ("qwen3-windows", "qwen3", {**PLAIN, **WINDOWS, "head_dim": 8, "max_window_layers": 2}),
    ("smollm3", "smollm3", {**PLAIN, "no_rope_layer_interval": 3}),
    ("smollm3-windows", "smollm3", {**PLAIN, **WINDOWS, "no_rope_layers": [1, 0, 1]}),
    ("llama-yarn", "llama", {"rope_parameters": {**YARN, **THETA}}),
    (
        "qwen2-yarn",
        "qwen2",
        {"rope_parameters": {**YARN, **THETA, "truncate": False, "attention_factor": 1.5}},
    ),
    ("phi-3", "phi3", {**PLAIN, "sliding_window": 8}),
    ("phi-3.5", "phi3", {"rope_parameters": {**LONGROPE, **THETA}}),
    (
        "phi-4-mini",
        "phi3",
        {
            "rope_parameters": {**PLAIN["rope_parameters"], "partial_rotary_factor": 0.75},
            "tie_word_embeddings": True,
        },
    ),
    ("olmo-2", "olmo2", PLAIN),
    ("gemma", "gemma", {**PLAIN, "head_dim": 16}),
    ("gemma-2", "gemma2", {**PLAIN, **GEMMA, **CAPS, "sliding_window": 8}),
    (
        "gemma-3",
        "gemma3_text",
        {
            **GEMMA,
            "sliding_window": 8,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000.0},
                "sliding_attention": {"rope_type": "default", **THETA},
            },
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
    ("pythia", "gpt_neox", {"rope_parameters": {**THETA, "partial_rotary_factor": 0.25}}),
    (
        "gpt-neox-in-sequence",
        "gpt_neox",
        {
            "rope_parameters": {**THETA, "partial_rotary_factor": 1.0},
            "use_parallel_residual": False,
            "attention_bias": False,
        },
    ),
    ("gpt-2", "gpt2", GPT2),
]


def numbers(name, n):
    """Within ±1/2, of a hash of the name and the place: tests/it/families.rs has the same."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 % 2**32
    x = (np.arange(n, dtype=np.uint64) * 0x9E3779B1 + seed) % 2**32
    for shift, factor in [(16, 0x7FEB352D), (15, 0x846CA68B), (16, 1)]:
        x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor) % 2**32
    return (x >> np.uint64(8)).astype(np.float32) / np.float32(2**24) - np.float32(0.5)


def weights(name, shape):
    values = numbers(name, int(np.prod(shape))).reshape(shape)
    # Norms about one, everything else about zero.
    if len(shape) == 1 and ("norm" in name or ".ln_" in name):
        return torch.from_numpy(np.float32(1.0) + values * np.float32(0.5))
    return torch.from_numpy(values * np.float32(0.5))


def fill(model):
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(weights(name.replace(".default", ""), tuple(weight.shape)))


def rows():
    for n in LENGTHS:
        token_ids = ((numbers(f"row of {n}", n) + 0.5) * VOCAB_SIZE).astype(np.int64)
        yield torch.from_numpy(token_ids), n // 3


def references(name, model_type, special):
    config = AutoConfig.for_model(model_type, **SHAPE, **special)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    fill(model)
    lora = LoraConfig(r=2, lora_alpha=4, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)
    adapter = {n: p for n, p in model.named_parameters() if "lora_" in n}
    with torch.no_grad():
        for key, weight in adapter.items():
            weight.copy_(weights(key.replace(".default", ""), tuple(weight.shape)))
    losses, gradients = [], []
    for token_ids, n_prompt in rows():
        labels = token_ids.clone()
        labels[: max(n_prompt, 1)] = -100
        model.zero_grad()
        found = model(input_ids=token_ids[None], labels=labels[None])
        found.loss.backward()
        losses.append(found.loss.item())
        gradients.append(torch.cat([p.grad.flatten() for p in adapter.values()]))
    # As config.json has it.
    described = {
        "name": name,
        "config": json.loads(config.to_json_string()),
        "losses": losses,
    }
    return described, {
        f"{name}.gradients": torch.stack(gradients),
        f"{name}.logits": found.logits[0].detach().contiguous(),
    }


def main():
    described, tensors = [], {}
    for model in MODELS:
        family, own = references(*model)
        described.append(family)
        tensors |= own
    goldens = {"versions": versions(), "families": described}
    (GOLDENS / "families.json").write_text(json.dumps(goldens, indent=1) + "\n")
    save_file(tensors, GOLDENS / "families.safetensors")


if __name__ == "__main__":
    main()
