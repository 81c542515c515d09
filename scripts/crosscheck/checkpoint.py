#!/usr/bin/env python3
"""`peft` and `transformers` read the checkpoints that a warm-up wrote, and a model that one of
them was merged into.

    checkpoint.py RUN MODEL MERGED
"""

import sys
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerState


def check_adapter(folder, model_dir, tokens):
    """Every tensor of the adapter is loaded as it is in the file, and has an effect."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    with torch.no_grad():
        before = model(tokens).logits
        model = PeftModel.from_pretrained(model, folder).eval()
        after = model(tokens).logits
    written = load_file(folder / "adapter_model.safetensors")
    loaded = get_peft_model_state_dict(model)
    assert written.keys() == loaded.keys(), written.keys() ^ loaded.keys()
    for name, tensor in written.items():
        assert torch.equal(tensor, loaded[name]), name
    assert after.isfinite().all()
    assert not torch.equal(before, after), "the adapter changes nothing"
    return written


def check_merged(merged_dir, folder, model_dir, tokens):
    """The merged model computes what the model with the adapter does."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(merged_dir, dtype=torch.float32)
    with torch.no_grad():
        expected = PeftModel.from_pretrained(model, folder).eval()(tokens).logits
        found = merged.eval()(tokens).logits
    error = ((found - expected).norm() / expected.norm()).item()
    assert error < 1e-5, error
    AutoTokenizer.from_pretrained(merged_dir)
    return error


def check_optimizer(folder, adapter):
    """Both of Adam's moments for every parameter, by its name in the adapter."""
    moments = load_file(folder / "optimizer.safetensors")
    for name, tensor in adapter.items():
        mean, square = moments.pop(f"exp_avg.{name}"), moments.pop(f"exp_avg_sq.{name}")
        assert mean.shape == square.shape == tensor.shape, name
        assert mean.isfinite().all() and square.isfinite().all() and (square >= 0).all(), name
    assert not moments, moments.keys()


def check_trainer_state(folder):
    state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    assert state.log_history, "an empty log"
    for entry in state.log_history:
        assert {"step", "epoch", "learning_rate", "loss"} <= entry.keys(), entry
    assert state.global_step == state.log_history[-1]["step"]
    return state


def main():
    run, model_dir, merged_dir = Path(sys.argv[1]), *sys.argv[2:]
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    tokens = tokenizer("The capital of France is", return_tensors="pt")["input_ids"]
    folders = sorted(run.glob("checkpoints/epoch-*/"))
    assert folders, "no checkpoints"
    for folder in folders:
        adapter = check_adapter(folder, model_dir, tokens)
        check_optimizer(folder, adapter)
        state = check_trainer_state(folder)
        print(f"  {folder.name}: {len(adapter)} tensors, step {state.global_step}")
    error = check_merged(merged_dir, folders[-1], model_dir, tokens)
    print(f"  {folders[-1].name} merged: logits differ by {error:.1e}")


if __name__ == "__main__":
    main()
