"""The LESS recipe (princeton-nlp/LESS, get_info.py and collect_grad_reps.py), re-created.

    peer_less.py CASE TABLE N_ROWS KIND OUT

Rows of TABLE (pool or target) one at a time through transformers and peft, the gradient as
one vector, the released code's direction (KIND less-code; sgd for a target), and every 16
rows traker's projector to 8192 random signs. The released code itself wants CUDA and
versions of 2023; on a processor its projector is traker's BasicProjector, in blocks of 128
as the recipe asks for. Everything is f32.
Writes the projected rows to OUT.npy.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from trak.projectors import BasicProjector, ProjectionType

import reference

PROJECT_INTERVAL = 16


def main():
    case, table, n_rows, kind, out = sys.argv[1:]
    case = Path(case)
    model = reference.load(case)
    m, v, step = reference.moments(case, model)
    projector = BasicProjector(
        grad_dim=len(m),
        proj_dim=8192,
        seed=0,
        proj_type=ProjectionType.rademacher,
        device="cpu",
        block_size=128,
    )
    waiting, projected = [], []
    rows = reference.rows(case / f"run/pool/{table}.parquet", int(n_rows))
    for number, row in enumerate(rows, start=1):
        gradient, _ = reference.gradient(model, row)
        waiting.append(reference.gamma(kind, gradient, m, v, step))
        if len(waiting) == PROJECT_INTERVAL or number == len(rows):
            projected.append(projector.project(torch.stack(waiting), model_id=0))
            waiting = []
    np.save(out, torch.cat(projected).numpy())


if __name__ == "__main__":
    main()
