#!/usr/bin/env python3
"""Makes the reference numbers that tests/it/parity.rs and unit tests compare with.

    scripts/goldens/model.py tiny              # fixtures and goldens of the tiny models
    scripts/goldens/model.py smollm2 FOLDER    # a summary of the real model in FOLDER

Everything is computed by transformers, peft and torch, one example at a time,
in f32, and written where the tests look for it, with the versions that made it.
"""

import argparse
import json
import math
import shutil
from pathlib import Path

import numpy as np
import peft
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM, TrainerState

VERSIONS = {"torch": "2.11.0", "transformers": "5.23.0", "peft": "0.21.2"}
TESTS = Path(__file__).resolve().parents[2] / "tests"
FIXTURES, GOLDENS = TESTS / "fixtures", TESTS / "goldens"
MODULES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RULE = {"beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8}


def versions():
    found = {
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
    assert found == VERSIONS, f"goldens are made with {VERSIONS}, found {found}"
    return found


# --- models and examples -----------------------------------------------------


def random_model(config, seed):
    """A model whose every weight matters: no near-zero logits, no norm of ones."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.normal_(1.0 if "norm" in name else 0.0, 0.2 if "norm" in name else 0.12)
    return model


def tiny_model():
    config = LlamaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )
    return random_model(config, seed=1)


def biased_model():
    """The other half of the settings: untied, biases, heads wider than hidden / heads."""
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=1, head_dim=12, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        tie_word_embeddings=False, attention_bias=True, mlp_bias=True,
    )
    return random_model(config, seed=2).to(torch.bfloat16)


def random_example(rng, n_tokens, vocab_size):
    """Token ids and a mask with prompt and answer turns; position 0 is never supervised."""
    supervised = np.zeros(n_tokens, dtype=bool)
    start = int(rng.integers(1, max(2, n_tokens // 2)))
    supervised[start:] = True
    if n_tokens > 12:
        supervised[start + 3 : start + 6] = False
    if n_tokens > 20:
        supervised[-2:] = False
    return {
        "token_ids": rng.integers(3, vocab_size, n_tokens).tolist(),
        "supervised": supervised.tolist(),
    }


def tiny_examples():
    rng = np.random.default_rng(3)
    lengths = [5, 23, 12, 31, 2, 17, 9, 14, 6, 28, 11, 20]
    pool = [random_example(rng, n, 512) for n in lengths]
    target = [random_example(rng, n, 512) for n in [8, 19, 13, 10, 25]]
    for example, subtask in zip(target, ["a", "a", "b", "b", "b"]):
        example["subtask"] = subtask
    # The last pool row is a target row: it must win its subtask.
    pool[-1] = {key: target[3][key] for key in ["token_ids", "supervised"]}
    return pool, target


# --- the reference computation -----------------------------------------------


def forward(model, example):
    """Logits [n_tokens, vocab_size] and the mean token loss of one example."""
    token_ids = torch.tensor([example["token_ids"]])
    mask = torch.tensor([example["supervised"]])
    labels = torch.where(mask, token_ids, torch.tensor(-100))
    out = model(input_ids=token_ids, labels=labels)
    return out.logits[0], out.loss


def lora_parameters(model):
    """(name as in the adapter file, parameter), by layer, module, A before B."""
    found = [(n.replace(".default", ""), p) for n, p in model.named_parameters() if "lora_" in n]
    keys = [
        (int(n.split(".layers.")[1].split(".")[0]), MODULES.index(n.split(".")[-3]), n.split(".")[-2])
        for n, _ in found
    ]
    assert keys == sorted(keys), "peft lists LoRA parameters in the order of definition"
    return found


def gradient(model, example):
    """The gradient of one example's loss by all LoRA parameters, one vector, and the loss."""
    loss = forward(model, example)[1]
    found = torch.autograd.grad(loss, [p for _, p in lora_parameters(model)])
    return torch.cat([g.flatten() for g in found]), loss.item()


def gamma(kind, g, m, v, step, rule=RULE):
    """The formulas of the `--gradient` setting; m and v as after step number `step`."""
    b1, b2, eps = rule["beta1"], rule["beta2"], rule["epsilon"]
    if kind == "adam":
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        m, v = m / (1 - b1 ** (step + 1)), v / (1 - b2 ** (step + 1))
        return m / (v.sqrt() + eps)
    if kind == "less-code":
        return (0.9 * m + 0.1 * g) / (0.999 * v + 0.001 * g * g + 1e-8).sqrt()
    if kind == "adam-v":
        return g / ((v / (1 - b2**step)).sqrt() + eps)
    return g


# --- a warm-up by peft and torch ---------------------------------------------


def train(model, pool, folder):
    """Two epochs over the pool in steps of four rows; a checkpoint an epoch."""
    params = [p for _, p in lora_parameters(model)]
    n_steps = 6
    optimizer = torch.optim.AdamW(
        params, lr=0.02, betas=(RULE["beta1"], RULE["beta2"]), eps=RULE["epsilon"], weight_decay=0.1
    )
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 1, n_steps)
    state = TrainerState(max_steps=n_steps, num_train_epochs=2, logging_steps=1, train_batch_size=4)
    for step in range(n_steps):
        rows = [pool[(4 * step + i) % len(pool)] for i in range(4)]
        counts = [sum(row["supervised"]) for row in rows]
        loss = sum(forward(model, r)[1] * n for r, n in zip(rows, counts)) / sum(counts)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(params, 1.0)
        rate = schedule.get_last_lr()[0]
        optimizer.step()
        schedule.step()
        state.global_step, state.epoch = step + 1, (step + 1) / 3
        state.log_history.append(
            {"epoch": state.epoch, "grad_norm": norm.item(), "learning_rate": rate,
             "loss": loss.item(), "step": step + 1}
        )
        if state.global_step % 3 == 0:
            save_checkpoint(model, optimizer, state, folder / f"epoch-{state.global_step // 3}")


def save_checkpoint(model, optimizer, state, folder):
    model.save_pretrained(folder)
    (folder / "README.md").unlink()
    # peft writes its set of target modules in hash order.
    config = json.loads((folder / "adapter_config.json").read_text())
    config["target_modules"] = [m for m in MODULES if m in config["target_modules"]]
    config["base_model_name_or_path"] = "tiny-llama"
    write_json(folder / "adapter_config.json", config)
    moments = {
        f"{moment}.{name}": optimizer.state[p][moment].contiguous()
        for name, p in lora_parameters(model)
        for moment in ["exp_avg", "exp_avg_sq"]
    }
    rule = json.dumps({**RULE, "step": state.global_step})
    save_file(moments, folder / "optimizer.safetensors", metadata={"adam": rule})
    state.save_to_json(str(folder / "trainer_state.json"))


def checkpoint(folder):
    """The tiny model with a checkpoint's adapter, and m, v, step, mean learning rate."""
    base = LlamaForCausalLM.from_pretrained(FIXTURES / "tiny-llama", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder, is_trainable=True).eval()
    tensors = peft.utils.save_and_load.safe_load_file(folder / "optimizer.safetensors")
    flat = {
        moment: torch.cat([tensors[f"{moment}.{n}"].flatten() for n, _ in lora_parameters(model)])
        for moment in ["exp_avg", "exp_avg_sq"]
    }
    state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    rates = [entry["learning_rate"] for entry in state.log_history[-3:]]
    return model, flat["exp_avg"], flat["exp_avg_sq"], state.global_step, sum(rates) / len(rates)


# --- what is written ---------------------------------------------------------


def write_json(path, value, indent=2):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=indent) + "\n")


def write_fixtures(pool):
    for name in ["tiny-llama", "tiny-llama-biased"]:
        for file in [*(FIXTURES / name).glob("model*"), FIXTURES / name / "config.json"]:
            file.unlink(missing_ok=True)
    shutil.rmtree(FIXTURES / "tiny-checkpoints", ignore_errors=True)
    tiny_model().save_pretrained(FIXTURES / "tiny-llama")
    biased_model().save_pretrained(FIXTURES / "tiny-llama-biased", max_shard_size="16KB")
    (FIXTURES / "torch-files").mkdir(exist_ok=True)
    torch.save(biased_model().state_dict(), FIXTURES / "torch-files" / "pytorch_model.bin")
    for name in ["tiny-llama", "tiny-llama-biased"]:
        (FIXTURES / name / "generation_config.json").unlink(missing_ok=True)
    base = LlamaForCausalLM.from_pretrained(FIXTURES / "tiny-llama", dtype=torch.float32)
    torch.manual_seed(4)
    config = LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, target_modules=MODULES, task_type="CAUSAL_LM")
    train(get_peft_model(base, config).eval(), pool, FIXTURES / "tiny-checkpoints")


def model_goldens(pool):
    """Logits, losses, gradients and Γ at the second checkpoint."""
    model, m, v, step, _ = checkpoint(FIXTURES / "tiny-checkpoints" / "epoch-2")
    pairs = [gradient(model, example) for example in pool[:7]]
    gradients = torch.stack([g for g, _ in pairs])
    tensors = {"gradients": gradients}
    for row in [0, 2, 6]:
        tensors[f"logits.{row}"] = forward(model, pool[row])[0].detach()
    for kind in ["adam", "less-code", "adam-v"]:
        tensors[f"gamma.{kind}"] = torch.stack([gamma(kind, gradients[r], m, v, step) for r in [0, 3]])
    return tensors, {
        "losses": [loss for _, loss in pairs],
        "params": [[name, list(p.shape)] for name, p in lora_parameters(model)],
        "gamma_rows": [0, 3],
        "step": step,
    }


def biased_goldens():
    """Logits and loss of a model with biases, untied, in bf16 shards; computed in f32."""
    model = LlamaForCausalLM.from_pretrained(FIXTURES / "tiny-llama-biased", dtype=torch.float32).eval()
    example = random_example(np.random.default_rng(5), 15, 64)
    logits, loss = forward(model, example)
    return logits.detach(), {"example": example, "loss": loss.item()}


def schedule_goldens():
    """Learning rates of 20 steps, warm-up ratio 0.12, as shares of the peak."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    found = {}
    for name in ["linear", "cosine"]:
        make = getattr(transformers, f"get_{name}_schedule_with_warmup")
        optimizer = torch.optim.SGD([parameter], lr=1.0)
        schedule = make(optimizer, math.ceil(20 * 0.12), 20)
        found[name] = []
        for _ in range(20):
            found[name].append(schedule.get_last_lr()[0])
            optimizer.step()
            schedule.step()
    return found


def adamw_goldens():
    """Two clipped AdamW steps on two small parameters."""
    torch.manual_seed(6)
    params = [torch.nn.Parameter(torch.randn(3, 2)), torch.nn.Parameter(torch.randn(4))]
    start = [p.detach().flatten().tolist() for p in params]
    optimizer = torch.optim.AdamW(params, lr=0.01, weight_decay=0.1)
    gradients, norms = [], []
    for _ in range(2):
        for p in params:
            p.grad = torch.randn_like(p)
        gradients.append([p.grad.flatten().tolist() for p in params])
        norms.append(torch.nn.utils.clip_grad_norm_(params, 1.0).item())
        optimizer.step()
    return {
        "learning_rate": 0.01, "weight_decay": 0.1, "max_grad_norm": 1.0,
        "start": start, "gradients": gradients, "norms": norms,
        "end": [p.detach().flatten().tolist() for p in params],
        "exp_avg": [optimizer.state[p]["exp_avg"].flatten().tolist() for p in params],
        "exp_avg_sq": [optimizer.state[p]["exp_avg_sq"].flatten().tolist() for p in params],
    }


def score_goldens(pool, target, checkpoints, rule=RULE):
    """Exact LESS scores over the checkpoints, without a projection."""
    subtasks = sorted({example["subtask"] for example in target})
    rates = [rate for *_, rate in checkpoints]
    sides = []
    for model, *_ in checkpoints:
        sides.append([torch.stack([gradient(model, e)[0].double() for e in side]) for side in [pool, target]])
    found = {}
    for kind in ["adam", "less-code", "adam-v", "sgd"]:
        for name, join in [("mean-of-cosines", mean_of_cosines), ("cosine-of-mean", cosine_of_mean)]:
            scores = torch.zeros(len(pool), len(subtasks), dtype=torch.float64)
            for (_, m, v, step, rate), (g_pool, g_target) in zip(checkpoints, sides):
                directions = gamma(kind, g_pool, m.double(), v.double(), step, rule)
                for column, subtask in enumerate(subtasks):
                    own = [row for row, e in enumerate(target) if e["subtask"] == subtask]
                    scores[:, column] += rate / sum(rates) * join(directions, g_target[own])
            found.setdefault(kind, {})[name] = scores.tolist()
    return {"subtasks": subtasks, "learning_rates": rates, "scores": found}


def mean_of_cosines(directions, targets):
    return (unit(directions) @ unit(targets).T).mean(1)


def cosine_of_mean(directions, targets):
    return unit(directions) @ unit(targets.mean(0))


def unit(rows):
    return torch.nn.functional.normalize(rows, dim=-1, eps=0.0)


def tiny():
    pool, target = tiny_examples()
    write_fixtures(pool)
    tensors, facts = model_goldens(pool)
    tensors["biased.logits"], facts["biased"] = biased_goldens()
    GOLDENS.mkdir(parents=True, exist_ok=True)
    save_file(tensors, GOLDENS / "model.safetensors")
    facts |= {"versions": versions(), "schedule": schedule_goldens(), "adamw": adamw_goldens()}
    write_json(GOLDENS / "model.json", facts, indent=None)
    write_json(GOLDENS / "examples.json", {"pool": pool, "target": target}, indent=None)
    checkpoints = [checkpoint(FIXTURES / "tiny-checkpoints" / f"epoch-{n}") for n in [1, 2]]
    scores = score_goldens(pool, target, checkpoints)
    write_json(GOLDENS / "scores.json", {"versions": versions(), **scores}, indent=None)


def hashed_weights(n):
    """n numbers in ±0.01 that any language makes alike: murmur3's finalizer of the index."""
    x = np.arange(n, dtype=np.uint64)
    for shift, factor in [(16, 0x85EBCA6B), (13, 0xC2B2AE35)]:
        x = ((x ^ (x >> np.uint64(shift))) * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    x = x ^ (x >> np.uint64(16))
    return ((x.astype(np.float64) / 2**32 - 0.5) * 0.02).astype(np.float32)


def smollm2(folder):
    """Losses, logits and gradient norms of the real model with a made-up adapter."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    base = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(r=16, lora_alpha=32, target_modules=MODULES[:4], task_type="CAUSAL_LM")
    model = get_peft_model(base, config).eval()
    params = lora_parameters(model)
    flat = torch.from_numpy(hashed_weights(sum(p.numel() for _, p in params)))
    with torch.no_grad():
        for (_, p), own in zip(params, flat.split([p.numel() for _, p in params])):
            p.copy_(own.view_as(p))
    found = []
    for prompt, answer in [
        ("What is the capital of France?", "The capital of France is Paris."),
        ("Tom has 3 apples and buys 4 more. How many does he have?", "He has 3 + 4 = 7 apples. #### 7"),
    ]:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
        start = len(tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True)["input_ids"])
        token_ids = tokenizer.apply_chat_template(turns)["input_ids"]
        example = {"token_ids": token_ids, "supervised": [i >= start for i in range(len(token_ids))]}
        found.append(summary(model, params, example))
    write_json(GOLDENS / "smollm2.json", {"versions": versions(), "examples": found}, indent=None)


def summary(model, params, example):
    logits = forward(model, example)[0].detach()
    flat, loss = gradient(model, example)
    rounded = lambda x: float(f"{x:.7g}")
    by_param = [
        [rounded(own.norm().item()), *(rounded(x) for x in own[:2].tolist())]
        for own in flat.split([p.numel() for _, p in params])
    ]
    return {
        **example,
        "loss": loss,
        "last_logits": logits[-1, :16].tolist(),
        "logit_norms": logits.norm(dim=-1).tolist(),
        # Norm and first two coordinates of every parameter's gradient.
        "gradients": by_param,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("tiny")
    commands.add_parser("smollm2").add_argument("folder", type=Path)
    arguments = parser.parse_args()
    versions()
    torch.set_num_threads(1)  # a fixed summation order
    tiny() if arguments.command == "tiny" else smollm2(arguments.folder)
