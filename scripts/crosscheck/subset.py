#!/usr/bin/env python3
"""`datasets` opens the subset that a run wrote, and finds in it what we promise.

    subset.py RUN MODEL
"""

import sys
import tempfile
from pathlib import Path

from datasets import load_dataset

COLUMNS = ["messages", "id", "source", "less_score", "less_rank", "less_subtask"]


def rows_of(*path, **options):
    with tempfile.TemporaryDirectory() as cache:
        rows = load_dataset(*path, cache_dir=cache, split="train", **options)
        return rows.column_names, rows.to_list()


def main():
    (folder,) = Path(sys.argv[1]).glob("subset-*/")
    columns, rows = rows_of(str(folder))
    assert columns == COLUMNS, columns
    assert rows, "an empty subset"
    assert rows_of("parquet", data_dir=str(folder / "data")) == (columns, rows)

    ranks = [row["less_rank"] for row in rows]
    scores = [row["less_score"] for row in rows]
    assert ranks == list(range(ranks[0], ranks[0] + len(rows))), ranks
    assert scores == sorted(scores, reverse=True), scores
    assert len({row["id"] for row in rows}) == len(rows), "an id twice"
    for row in rows:
        assert row["source"] and row["less_subtask"], row
        assert row["messages"][-1]["role"] == "assistant", row
        assert all(message["content"] for message in row["messages"]), row
    print(f"  {folder.name}: {len(rows)} rows, best {scores[0]:.4f}, last {scores[-1]:.4f}")


if __name__ == "__main__":
    main()
