"""Data sets for `bergson build`, already tokenized, and what it made of them.

    peer_bergson.py CASE BATCHES...     CASE/bergson/{target,BATCHES}/ for each number

bergson makes its projection anew for every batch, whatever its size. So it is given as many
rows as fill its batches, and prints how many those are as JSON.
"""

import json
import sys
from pathlib import Path

from bergson.data import allocate_batches
from datasets import Dataset

import reference

# Its default, and the most that a model with a context of 2048 may have.
BATCH_TOKENS = 2048


def data_set(rows):
    def labels(row):
        return [t if s else -100 for t, s in zip(row["token_ids"], row["supervised"])]

    return Dataset.from_dict(
        {
            "input_ids": [row["token_ids"] for row in rows],
            "labels": [labels(row) for row in rows],
            "length": [len(row["token_ids"]) for row in rows],
        }
    )


def filling(rows, n_batches):
    """The most rows, from the first on, that make no more than `n_batches`."""
    lengths = [len(row["token_ids"]) for row in rows]
    fits = [
        n
        for n in range(1, len(rows) + 1)
        if len(allocate_batches(lengths[:n], BATCH_TOKENS)) <= n_batches
    ]
    return max(fits)


def main():
    case, wanted = Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]
    # No row takes more than a whole batch.
    pool = reference.rows(case / "run/pool/pool.parquet", 100 * max(wanted))
    target = reference.rows(case / "run/pool/target.parquet")
    data_set(target).save_to_disk(case / "bergson" / "target")
    found = {}
    for n_batches in wanted:
        found[n_batches] = filling(pool, n_batches)
        data_set(pool[: found[n_batches]]).save_to_disk(case / "bergson" / str(n_batches))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
