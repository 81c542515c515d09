"""Gradients by transformers and peft, one example at a time: what all others are held to.

The formulas are those of the goldens, so that there is one copy of them.
"""

import json
import sys
from pathlib import Path

import pyarrow.parquet
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "goldens"))
from model import gamma, gradient, lora_parameters, mean_of_cosines

__all__ = ["gamma", "gradient", "load", "lora_parameters", "mean_of_cosines", "moments", "rows"]


def load(case, dtype=torch.float32):
    """The model of a case with its adapter, both in `dtype`, without dropout."""
    base = AutoModelForCausalLM.from_pretrained(case / "model", dtype=dtype)
    model = PeftModel.from_pretrained(
        base, case / "checkpoint", is_trainable=True, autocast_adapter_dtype=False
    )
    return model.eval()


def rows(table, n_rows=None):
    """The first examples of a pool or target, in the order of its file.

    Token ids and labels are those of the table that less-select made from it: everybody
    gets the same, and nobody's tokenizer is timed.
    """
    columns = ["id", "line", "token_ids", "supervised"]
    found = pyarrow.parquet.read_table(table, columns=columns).to_pylist()
    return sorted(found, key=lambda row: row["line"])[:n_rows]


def moments(case, model):
    """Adam's m and v, each one vector in the order of the parameters, and the step."""
    with safe_open(case / "checkpoint" / "optimizer.safetensors", "pt") as file:
        step = json.loads(file.metadata()["adam"])["step"]
        flat = [
            torch.cat([file.get_tensor(f"{name}.{n}").flatten() for n, _ in lora_parameters(model)])
            for name in ["exp_avg", "exp_avg_sq"]
        ]
    return *flat, step
