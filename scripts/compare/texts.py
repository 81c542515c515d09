"""Pools of conversations, made from the rows in data/."""

import json
import random
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "data"
SHAPES = [["prompt", "completion"], ["instruction", "input", "output"]]


def write_windows(path, n_rows, words, seed):
    """Writes `n_rows` different conversations, both turns a run of `words` (least, most) words.

    What stands in data/ is not enough for thousands of rows, so rows are windows of its text.
    """
    rng = random.Random(seed)
    text = [word for row in read_all() for message in row for word in message["content"].split()]

    def window():
        start, length = rng.randrange(len(text) - words[1]), rng.randint(*words)
        return " ".join(text[start : start + length])

    rows = {}
    while len(rows) < n_rows:
        question, answer = window(), window()
        rows[question, answer] = turns(question, answer)
    # A short system turn keeps chat templates from adding a long one.
    system = {"role": "system", "content": "."}
    write(path, [[system, *row] for row in rows.values()])


def write_first(path, source, n_rows):
    """Writes the first rows of another pool."""
    lines = source.read_text("utf-8").splitlines(keepends=True)
    assert len(lines) >= n_rows, f"{source} has fewer than {n_rows} rows"
    path.write_text("".join(lines[:n_rows]), "utf-8")


def write(path, conversations):
    lines = [json.dumps({"messages": row}, ensure_ascii=False) + "\n" for row in conversations]
    path.write_text("".join(lines), "utf-8")


def read_all():
    """Every conversation of data/, in order of the files' names."""
    for path in sorted(DATA.glob("*/**/*.json*")):
        text = path.read_text("utf-8")
        rows = json.loads(text) if path.suffix == ".json" else map(json.loads, text.splitlines())
        yield from map(conversation, rows)


def conversation(row):
    if "messages" in row:
        return row["messages"]
    *question, answer = next(keys for keys in SHAPES if keys[0] in row)
    return turns("\n".join(row[key] for key in question if row[key]), row[answer])


def turns(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
