#!/usr/bin/env python3
"""A model that less-select merged a checkpoint into has the weights that `peft` merges.

    merge.py LESS_SELECT FOLDER

The checkpoints are made here: of a tiny Llama with tokens added, its embeddings trained, tied and
not, the base model in safetensors and in `pytorch_model.bin`. FOLDER gets what is made on the way.
"""

import subprocess
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

N_TOKENS, N_NEW = 96, 5


def base_model(folder, tied, kind):
    config = LlamaConfig(
        vocab_size=N_TOKENS, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    if kind == "bin":
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()


def checkpoint(base, folder, tied):
    """Writes a checkpoint; gives the merged weights by peft."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(N_TOKENS + N_NEW)
    trained = ["embed_tokens"] if tied else ["embed_tokens", "lm_head"]
    lora = LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", modules_to_save=trained, ensure_weight_tying=tied,
        init_lora_weights=False, task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, lora)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.requires_grad and "modules_to_save" in name:
                weight.add_(torch.randn_like(weight))
    model.save_pretrained(folder)
    merged = model.merge_and_unload()
    return {name: weight.detach().clone() for name, weight in merged.state_dict().items()}


def check(less_select, folder, tied, kind):
    base, saved, out = (folder / name for name in ("base", "checkpoint", "merged"))
    base_model(base, tied, kind)
    expected = checkpoint(base, saved, tied)
    subprocess.run([less_select, "merge", saved, out, "--model", base, "--quiet"], check=True, stdout=subprocess.DEVNULL)
    model = AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)
    found = model.state_dict()
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    assert model.config.vocab_size == N_TOKENS + N_NEW, model.config.vocab_size
    for name, weight in expected.items():
        assert weight.shape == found[name].shape, name
        # Both add the same product, summed in another order.
        error = (weight - found[name]).abs().max().item()
        assert error < 1e-6, (name, error)
    stored = load_file(out / "model.safetensors")
    assert all(weight.shape == stored[name].shape for name, weight in expected.items() if name in stored)
    print(f"  {'tied' if tied else 'untied'}, {kind}: {len(expected)} tensors")


def main(less_select, folder):
    torch.manual_seed(0)
    for tied in (False, True):
        for kind in ("safetensors", "bin"):
            path = Path(folder) / f"{tied}-{kind}"
            path.mkdir(parents=True)
            check(Path(less_select).resolve(), path, tied, kind)


if __name__ == "__main__":
    main(*sys.argv[1:])
