"""dattri-llm's LESSAttributor at one checkpoint, without a projection.

    peer_dattri.py CASE N_ROWS BATCH_ROWS OUT

Its scores are exact and nothing is stored, so another target costs the whole pass again.
Rows are given to it in order of length, each batch padded to its own longest, which is the
least work that its default collation allows. Writes a score a pool row to OUT.npy.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from dattri_llm import AttributionArguments, AttributionTask, LESSAttributor
from dattri_llm.gradient.optimizer_state import optimizer_from_state_dict

import reference


def padded(rows, batch_rows):
    """Rows as inputs of the model, every `batch_rows` of one length."""
    found = []
    for start in range(0, len(rows), batch_rows):
        batch = rows[start : start + batch_rows]
        longest = max(len(row["token_ids"]) for row in batch)
        found += [inputs(row, longest) for row in batch]
    return found


def inputs(row, length):
    tokens, supervised = torch.tensor(row["token_ids"]), torch.tensor(row["supervised"])
    labels = torch.where(supervised, tokens, -100)
    padding = (0, length - len(tokens))
    pad = torch.nn.functional.pad
    return {
        "input_ids": pad(tokens, padding),
        "attention_mask": pad(torch.ones_like(tokens), padding),
        "labels": pad(labels, padding, value=-100),
    }


def loss(model, batch):
    """The sum of the rows' own mean losses, so that each row's gradient is of its own."""
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    labels = batch["labels"][:, 1:]
    each = torch.nn.functional.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels, ignore_index=-100, reduction="none"
    )
    return (each.sum(1) / (labels != -100).sum(1)).sum()


def main():
    case, n_rows, batch_rows, out = sys.argv[1:]
    case, n_rows, batch_rows = Path(case), int(n_rows), int(batch_rows)
    model = reference.load(case)
    pool = reference.rows(case / "run/pool/pool.parquet", n_rows)
    target = reference.rows(case / "run/pool/target.parquet")
    order = sorted(range(len(pool)), key=lambda row: len(pool[row]["token_ids"]))
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    state = torch.load(case / "checkpoint" / "optimizer.pt")
    with tempfile.TemporaryDirectory() as folder:
        arguments = AttributionArguments(
            output_dir=folder,
            use_cpu=True,
            dataloader_pin_memory=False,
            per_device_train_batch_size=batch_rows,
            per_device_eval_batch_size=batch_rows,
        )
        attributor = LESSAttributor(
            arguments,
            task=AttributionTask(loss, model),
            optimizers=[optimizer_from_state_dict(model, state, names)],
        )
        ordered = padded([pool[row] for row in order], batch_rows)
        found = attributor.attribute(ordered, padded(target, batch_rows)).scores
    assert len(found) == len(pool), "two rows were taken for one"
    scores = np.empty(len(pool), dtype=np.float32)
    scores[order] = found.mean(1).numpy()
    np.save(out, scores)


if __name__ == "__main__":
    main()
