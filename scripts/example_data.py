#!/usr/bin/env python3
"""Make data/example and data/mixtures from whole datasets.

    example_data.py SOURCES MODEL

SOURCES holds the sources under pool/ and target/, MODEL is SmolLM2-135M-Instruct in
Hugging Face layout. Prints the table of data/README.md. Needs scripts/requirements.txt.

The choice is blind: a source's rows that fit a length are put in the order of a hash of
their content, and the first few are taken. It does not depend on the order of the
source or on a random number generator, and any other salt would do as well.
"""

import hashlib
import json
import sys
from pathlib import Path

from transformers import AutoTokenizer

DATA = Path(__file__).parent.parent / "data"

# The part of P3 that was written by people for datasets under permissive licenses: MIT
# (CommonsenseQA) and CC BY 4.0 (QASC, QuaRTz).
P3_TASKS = ("commonsense_qa_", "qasc_", "quartz_")

# Folder -> most tokens a row may have, and how many rows of each source are taken.
POOLS = {
    "example/pool": (
        140,
        {
            "gsm8k.jsonl": 16,
            "t0_p3.jsonl": 150,
            "gpteacher_toolformer.json": 64,
            "gpteacher_roleplay.json": 40,
            "tydiqa.jsonl": 50,
        },
    ),
    "mixtures/gsm8k-tydiqa": (
        200,
        {
            "gsm8k.jsonl": 20,
            "tydiqa.jsonl": 20,
            "t0_p3.jsonl": 160,
            "gpteacher_toolformer.json": 100,
            "gpteacher_roleplay.json": 100,
        },
    ),
}
# Taken whole.
TARGETS = ["gsm8k.jsonl", "tydiqa.jsonl"]


def read(path):
    with path.open(encoding="utf-8") as file:
        # Line by line: str.splitlines would also split at U+2028.
        return json.load(file) if path.suffix == ".json" else [json.loads(line) for line in file]


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        text = json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    else:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def cleaned(source, rows):
    """Rows that may be published, without the mark that ends each of P3's completions."""
    if source != "t0_p3.jsonl":
        return rows
    return [
        {**row, "completion": row["completion"].removesuffix("<|endoftext|>")}
        for row in rows
        if row["task"].startswith(P3_TASKS)
    ]


def messages(row):
    """What the model is shown of a row, whatever the row's format."""
    if "messages" in row:
        return row["messages"]
    prompt = row.get("prompt") or "\n\n".join(filter(None, [row["instruction"], row["input"]]))
    answer = row.get("completion") or row["output"]
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]


def blind_choice(rows, n, max_tokens, salt, n_tokens):
    """The first n distinct rows of at most max_tokens, in the order of their hashes."""
    by_hash = {hashlib.sha256((salt + json.dumps(messages(row))).encode()).digest(): row for row in rows}
    fitting = (row for _, row in sorted(by_hash.items()) if n_tokens(row) <= max_tokens)
    return [row for row, _ in zip(fitting, range(n), strict=False)]


def report(path, rows, digest, n_tokens):
    lengths = [n_tokens(row) for row in rows]
    mean = sum(lengths) / len(lengths)
    print(f"| {path.relative_to(DATA)} | {len(rows)} | {mean:.0f} | {max(lengths)} | `{digest}` |")


def main():
    sources, model = Path(sys.argv[1]), sys.argv[2]
    tokenizer = AutoTokenizer.from_pretrained(model)

    def n_tokens(row):
        return len(tokenizer.apply_chat_template(messages(row))["input_ids"])

    print("| file | rows | mean tokens | most tokens | sha256 |\n|---|---|---|---|---|")
    for folder, (max_tokens, counts) in POOLS.items():
        for source, n in counts.items():
            candidates = cleaned(source, read(sources / "pool" / source))
            rows = blind_choice(candidates, n, max_tokens, folder, n_tokens)
            path = DATA / folder / source
            report(path, rows, write(path, rows), n_tokens)
    for source in TARGETS:
        rows, path = read(sources / "target" / source), DATA / "example" / source
        report(path, rows, write(path, rows), n_tokens)


if __name__ == "__main__":
    main()
