#!/usr/bin/env python3
"""Makes checkpoints as trainers leave them, for tests/it/trainers.rs and unit tests.

    scripts/goldens/trainers.py

TRL trains the tiny model twice: with AdamW, whose state is kept as the Trainer writes it
(optimizer.pt), as FSDP does (optimizer.bin) and in LoRA+'s groups, and with bitsandbytes'
8-bit AdamW. What is committed is what the program reads of them, the moments that the
8-bit state stands for, and exact scores at the first training's checkpoints. Needs,
beyond scripts/requirements.txt, the packages of VERSIONS. All but legacy.pt, which holds
an address, come out the same every time.
"""

import collections
import json
import os
import shutil
import tempfile
from pathlib import Path

import accelerate
import bitsandbytes
import torch
import transformers
import trl
from accelerate.utils.fsdp_utils import save_fsdp_optimizer
from bitsandbytes.functional import dequantize_blockwise
from datasets import Dataset
from peft import LoraConfig, PeftModel
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers import AutoTokenizer, LlamaForCausalLM, Trainer, TrainerState
from trl import SFTConfig, SFTTrainer

import model as goldens
from model import FIXTURES, GOLDENS, lora_parameters, write_json

VERSIONS = {"trl": "1.16.0", "accelerate": "1.15.0", "bitsandbytes": "0.50.2"}
TRAINERS, FILES = FIXTURES / "trainers", FIXTURES / "torch-files"
RULE = {"beta1": 0.85, "beta2": 0.99, "epsilon": 1e-7}
KEPT = ["adapter_config.json", "adapter_model.safetensors", "optimizer.pt", "trainer_state.json"]


def versions():
    modules = [trl, accelerate, bitsandbytes]
    found = {module.__name__: module.__version__ for module in modules}
    assert found == VERSIONS, f"these goldens are made with {VERSIONS}, found {found}"
    return {**goldens.versions(), **found}


# --- trainings -----------------------------------------------------------------


def arguments(folder, **more):
    return dict(
        output_dir=str(folder), num_train_epochs=2, per_device_train_batch_size=4, seed=1,
        learning_rate=0.02, weight_decay=0.1, adam_beta1=RULE["beta1"], adam_beta2=RULE["beta2"],
        adam_epsilon=RULE["epsilon"], logging_steps=1, save_strategy="epoch", report_to=[],
        use_cpu=True, bf16=False, gradient_checkpointing=False, **more,
    )


def train(folder, pool, rank, optimizer=None, **more):
    """Trained by TRL, for two epochs at most; the trainer, and in `folder` all that it wrote."""
    torch.manual_seed(5)
    base = LlamaForCausalLM.from_pretrained(FIXTURES / "tiny-llama", dtype=torch.float32)
    rows = [
        {"input_ids": e["token_ids"],
         "labels": [t if s else -100 for t, s in zip(e["token_ids"], e["supervised"])]}
        for e in pool
    ]
    trainer = SFTTrainer(
        model=base,
        args=SFTConfig(**arguments(folder, dataset_kwargs={"skip_prepare_dataset": True}, **more)),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(FIXTURES / "tiny-llama"),
        optimizer_cls_and_kwargs=optimizer,
        peft_config=LoraConfig(
            r=rank, lora_alpha=6, use_rslora=True, target_modules=["q_proj", "v_proj"],
            task_type="CAUSAL_LM",
        ),
    )
    trainer.train()
    trainer.save_model()
    return trainer


def keep(source, target, files):
    """Copies files of a checkpoint, without the place where they were made."""
    target.mkdir(parents=True)
    for name in files:
        shutil.copyfile(source / name, target / name)
    config = json.loads((target / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "elsewhere/tiny-llama"
    config["target_modules"].sort()
    write_json(target / "adapter_config.json", config)


class OneProcess:
    process_index = 0


def save_as_fsdp(trainer, path):
    """The optimizer's state as accelerate writes it under FSDP with full state dicts."""
    plugin = accelerate.utils.FullyShardedDataParallelPlugin(
        fsdp_version=2, state_dict_type="FULL_STATE_DICT", cpu_offload=True
    )
    save_fsdp_optimizer(plugin, OneProcess(), trainer.optimizer.optimizer, trainer.model, path.parent)
    assert path.exists()


def save_as_lora_plus(trainer, path):
    """The same state in the groups of LoRA+."""
    constants = dict(lr=0.02, betas=(RULE["beta1"], RULE["beta2"]), eps=RULE["epsilon"])
    optimizer = create_loraplus_optimizer(
        trainer.model, torch.optim.AdamW, loraplus_lr_ratio=4.0, **constants
    )
    for group in optimizer.param_groups:
        for p in group["params"]:
            optimizer.state[p] = trainer.optimizer.state[p]
    torch.save(optimizer.state_dict(), path)


def adamw(pool, scratch):
    trainer = train(scratch / "adamw", pool, rank=2)
    keep(scratch / "adamw", TRAINERS / "sft", KEPT[:2])
    for step in [3, 6]:
        keep(scratch / "adamw" / f"checkpoint-{step}", TRAINERS / "sft" / f"checkpoint-{step}", KEPT)
    save_as_fsdp(trainer, TRAINERS / "optimizer.bin")
    save_as_lora_plus(trainer, TRAINERS / "optimizer-lora-plus.pt")
    # As somebody saves it who does not know how peft does.
    adapter = {n: p for n, p in trainer.model.state_dict().items() if "lora_" in n}
    torch.save(adapter, TRAINERS / "adapter_model.bin")


def adamw_8bit(pool, scratch):
    """The moments of 160 numbers stay f32; those of 320 have a block and a part of one."""
    constants = dict(lr=0.02, betas=(RULE["beta1"], RULE["beta2"]), eps=RULE["epsilon"])
    optimizer = bitsandbytes.optim.AdamW8bit, {**constants, "min_8bit_size": 200}
    trainer = train(scratch / "8bit", pool, rank=5, optimizer=optimizer, max_steps=3)
    keep(scratch / "8bit" / "checkpoint-3", TRAINERS / "8bit" / "checkpoint-3", KEPT)
    moments, kinds = {}, collections.Counter()
    for name, p in lora_parameters(trainer.model):
        state = trainer.optimizer.state[p]
        for number, moment in [(1, "exp_avg"), (2, "exp_avg_sq")]:
            own, code = state[f"state{number}"], state.get(f"qmap{number}")
            if code is not None:
                own = dequantize_blockwise(own, absmax=state[f"absmax{number}"], code=code, blocksize=256)
            kinds[code is not None] += 1
            moments[f"{moment}.{name}"] = own.float().reshape(p.shape).contiguous()
    assert kinds[True] and kinds[False], kinds
    save_file(moments, TRAINERS / "8bit" / "moments.safetensors")


# --- the reference -------------------------------------------------------------


def checkpoint(folder):
    """As model.checkpoint, the moments from the optimizer that the Trainer itself loads."""
    base = LlamaForCausalLM.from_pretrained(FIXTURES / "tiny-llama", dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder, is_trainable=True).eval()
    with tempfile.TemporaryDirectory() as scratch:
        optimizer = Trainer(
            model=model, args=transformers.TrainingArguments(**arguments(scratch))
        ).create_optimizer()
    optimizer.load_state_dict(torch.load(folder / "optimizer.pt", weights_only=True))
    states = [optimizer.state[p] for _, p in lora_parameters(model)]
    m, v = (torch.cat([s[key].flatten() for s in states]) for key in ["exp_avg", "exp_avg_sq"])
    state = TrainerState.load_from_json(str(folder / "trainer_state.json"))
    rates = [entry["learning_rate"] for entry in state.log_history if "learning_rate" in entry][-3:]
    return model, m, v, int(states[0]["step"]), sum(rates) / len(rates)


# --- files of torch.save -------------------------------------------------------


class Command:
    """What unpickling this runs."""

    def __reduce__(self):
        return os.system, ("echo harmless",)


def torch_files():
    FILES.mkdir(parents=True)
    numbers = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    plain = {
        "tensors": collections.OrderedDict(
            (str(dtype).removeprefix("torch."), numbers.to(dtype))
            for dtype in [
                torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64,
                torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
            ]
        ),
        "transposed": numbers.T,
        "row": numbers[1],
        "empty": torch.zeros(0, 3),
        "scalar": torch.tensor(2.5),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "module": torch.nn.Linear(1, 2, bias=False).state_dict(),
        "numbers": [0, 255, 256, -1, 70000, 2**40, -(2**40), 1.5],
        "others": (None, True, False, "text", {3}),
        7: "keyed by a number",
    }
    with torch.no_grad():
        plain["module"]["weight"].fill_(1.0)
    torch.save(plain, FILES / "plain.pt")
    torch.save(numbers, FILES / "legacy.pt", _use_new_zipfile_serialization=False)
    torch.save({"state": Command()}, FILES / "command.pt")
    torch.save(torch.zeros(1).expand(2, 3), FILES / "expanded.pt")
    torch.save(torch.optim.SGD([torch.nn.Parameter(numbers)], momentum=0.9).state_dict(), FILES / "sgd.pt")


def main():
    made_with = versions()
    torch.set_num_threads(1)  # a fixed summation order
    for folder in [TRAINERS, FILES]:
        shutil.rmtree(folder, ignore_errors=True)
    torch_files()
    pool, target = goldens.tiny_examples()
    with tempfile.TemporaryDirectory() as scratch:
        adamw(pool, Path(scratch))
        adamw_8bit(pool, Path(scratch))
    checkpoints = [checkpoint(TRAINERS / "sft" / f"checkpoint-{step}") for step in [3, 6]]
    scores = goldens.score_goldens(pool, target, checkpoints, RULE)
    write_json(GOLDENS / "trainer_scores.json", {"versions": made_with, **scores}, indent=None)


if __name__ == "__main__":
    main()
