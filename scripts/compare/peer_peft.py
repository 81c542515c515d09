"""Gradients by transformers and peft in batches of one, and nothing done with them.

    peer_peft.py CASE N_ROWS DTYPE              differentiates N_ROWS rows
    peer_peft.py CASE N_ROWS check F32 BF16     compares what less-select stored of them

The model and its adapter are both in DTYPE, f32 or bf16, as the LESS recipe has them. The
check is of whole gradients, which the runs F32 and BF16 of less-select stored: the cosine of
each with that of transformers and peft in f32, beside that of transformers and peft in bf16.
"""

import json
import sys
from pathlib import Path

import pyarrow.ipc
import torch

import reference

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def differentiate(model, rows):
    """Leaves each row's gradient where autograd puts it."""
    for row in rows:
        tokens = torch.tensor([row["token_ids"]])
        labels = tokens.masked_fill(~torch.tensor([row["supervised"]]), -100)
        model.zero_grad(set_to_none=True)
        model(input_ids=tokens, labels=labels).loss.backward()


def stored(run):
    """Row id -> gradient of length one, from an unprojected store."""
    found = {}
    for path in sorted(run.glob("gradients/*/pool/*.arrow")):
        shard = pyarrow.ipc.open_file(path).read_all()
        columns = shard.column("sgd").combine_chunks()
        rows = torch.from_numpy(columns.values.to_numpy().copy()).view(len(shard), -1)
        found |= {key.hex(): row for key, row in zip(shard["id"].to_pylist(), rows)}
    return found


def check(case, rows, runs):
    """Smallest cosine with transformers and peft in f32, over the rows."""
    models = {name: reference.load(case, dtype) for name, dtype in DTYPES.items()}
    ours = {name: stored(run) for name, run in zip(DTYPES, runs)}
    found = {"less-select, f32": [], "less-select, bf16": [], "transformers + peft, bf16": []}
    for row in rows:
        exact = reference.gradient(models["f32"], row)[0]
        half = reference.gradient(models["bf16"], row)[0].float()
        compared = [ours["f32"][row["id"]], ours["bf16"][row["id"]], half]
        for name, gradient in zip(found, compared):
            cosine = torch.cosine_similarity(exact.double(), gradient.double(), dim=0)
            found[name].append(cosine.item())
    return {name: min(cosines) for name, cosines in found.items()}


def main():
    case, n_rows, dtype, *runs = sys.argv[1:]
    case = Path(case)
    rows = reference.rows(case / "run/pool/pool.parquet", int(n_rows))
    if dtype == "check":
        print(json.dumps(check(case, rows, [Path(run) for run in runs])))
    else:
        differentiate(reference.load(case, DTYPES[dtype]), rows)


if __name__ == "__main__":
    main()
