#!/usr/bin/env python3
"""`peft` finds the losses that a run stored, at the checkpoints and for the rows it wrote.

    loss.py RUN MODEL

RUN was made with `--dtype f32`, and trained enough for its adapters to matter: tokens,
label masks, adapters and the forward pass are all in the number that is compared.
"""

import sys
from pathlib import Path

import pyarrow
import pyarrow.parquet
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

# Two orders of summation in f32, over 30 layers.
TOLERANCE = 1e-4


def stored_losses(store):
    """Row id -> mean token loss, over all shards of a gradient store."""
    shards = [pyarrow.ipc.open_file(path).read_all() for path in sorted(store.glob("*.arrow"))]
    return {row["id"].hex(): row["loss"] for shard in shards for row in shard.select(["id", "loss"]).to_pylist()}


def loss(model, row):
    tokens = torch.tensor([row["token_ids"]])
    labels = tokens.masked_fill(~torch.tensor([row["supervised"]]), -100)
    with torch.no_grad():
        return model(input_ids=tokens, labels=labels).loss.item()


def main():
    run, model_dir = Path(sys.argv[1]), sys.argv[2]
    for checkpoint in sorted(run.glob("checkpoints/epoch-*/")):
        model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, checkpoint).eval()
        for split in ("pool", "target"):
            rows = pyarrow.parquet.read_table(run / "pool" / f"{split}.parquet").to_pylist()
            stored = stored_losses(run / "gradients" / checkpoint.name / split)
            assert stored.keys() == {row["id"] for row in rows}, split
            found = {row["id"]: loss(model, row) for row in rows}
            worst = max(abs(stored[key] / found[key] - 1) for key in found)
            with model.disable_adapter():
                moved = abs(loss(model, rows[0]) / found[rows[0]["id"]] - 1)
            print(f"  {checkpoint.name} {split}: {len(rows)} rows, worst {worst:.1e}, adapter moves {moved:.1e}")
            assert worst <= TOLERANCE, (checkpoint.name, split)
            assert moved > 10 * TOLERANCE, "the adapter does not matter: this shows nothing"


if __name__ == "__main__":
    main()
