"""Exact LESS scores of a case, and how far a dense projection of that size is from them.

    exact.py CASE N_ROWS SEEDS OUT

Writes to OUT.npz, for every definition of the pool side's direction:

    DEFINITION         [n_rows]           scores from whole gradients
    DEFINITION/dense   [seeds × n_rows]   scores after dense projections by random signs

A score is the mean of a row's cosines with the target's gradients.
"""

import math
import sys
from pathlib import Path

import numpy as np
import torch

import reference

PROJ_DIM = 8192
# Columns of a sign matrix that are in memory at once.
PIECE = 512


def definitions(gradients, m, v, step):
    """The directions that the contenders take, each by its own formula."""
    return {
        "adam": reference.gamma("adam", gradients, m, v, step),
        "adam-v": reference.gamma("adam-v", gradients, m, v, step),
        "less-code": reference.gamma("less-code", gradients, m, v, step),
        # bergson's: v without the correction for its start, which fades with the steps.
        "v": reference.gamma("adam-v", gradients, m, v, math.inf),
    }


def gradients_of(model, rows):
    return torch.stack([reference.gradient(model, row)[0] for row in rows])


def projections(vectors, seed):
    """Each of the matrices in `vectors` times one ±1 matrix, the same for all."""
    sizes = [len(rows) for rows in vectors]
    together = torch.cat(vectors)
    n_coordinates = together.shape[1]
    found = torch.empty(len(together), PROJ_DIM)
    rng = np.random.default_rng(seed)
    for start in range(0, PROJ_DIM, PIECE):
        bits = np.unpackbits(rng.integers(0, 256, n_coordinates * PIECE // 8, dtype=np.uint8))
        signs = torch.from_numpy(bits).view(n_coordinates, PIECE).float().mul_(2).sub_(1)
        found[:, start : start + PIECE] = together @ signs
    return found.split(sizes)


def main():
    case, n_rows, seeds, out = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    model = reference.load(case)
    pool = gradients_of(model, reference.rows(case / "run/pool/pool.parquet", n_rows))
    target = gradients_of(model, reference.rows(case / "run/pool/target.parquet"))
    directions = definitions(pool, *reference.moments(case, model))
    scores = {name: reference.mean_of_cosines(d, target) for name, d in directions.items()}
    dense = {name: [] for name in directions}
    for seed in range(seeds):
        *projected, short_target = projections([*directions.values(), target], seed)
        for name, rows in zip(dense, projected):
            dense[name].append(reference.mean_of_cosines(rows, short_target))
    arrays = {name: found.numpy() for name, found in scores.items()}
    arrays |= {f"{name}/dense": torch.stack(found).numpy() for name, found in dense.items()}
    np.savez(out, **arrays)


if __name__ == "__main__":
    main()
