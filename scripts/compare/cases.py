"""The two models that everything is measured on, each with rows and a checkpoint.

CASE/model           Hugging Face layout
CASE/pool.jsonl      conversations, of which runs take the first so many
CASE/target.jsonl
CASE/checkpoint      a PEFT adapter, with Adam's moments for the tiny model
CASE/run             less-select's tables of all of it: token ids and labels for everybody
"""

import shutil

import pyarrow.parquet

import ours
import texts

N_TARGETS = 16


def tiny(tools, n_rows):
    """A tiny Llama with a LoRA of rank 16 on q, k, v and o, and rows of about 100 tokens."""
    case = tools.folder / "tiny"
    case.mkdir(parents=True)
    tools.python("inputs.py", "model", case)
    texts.write_windows(case / "pool.jsonl", n_rows, words=(6, 17), seed=0)
    texts.write_windows(case / "target.jsonl", N_TARGETS, words=(6, 17), seed=1)
    # At the default rate of 2e-5 so few steps would leave B, and so A's gradients, at zero.
    trained = ours.Run(
        tools,
        case,
        "warmed-up",
        case / "pool.jsonl",
        n_rows=min(n_rows, 160),
        dtype="f32",
        lora_rank=16,
        warmup_share="100%",
        epochs=1,
        learning_rate="1e-3",
    ).warmup()
    shutil.copytree(trained.folder / "checkpoints/epoch-1", case / "checkpoint")
    tools.python("inputs.py", "optimizer", case)
    ours.Run(tools, case, "run", case / "pool.jsonl")
    return case


def smollm2(tools, rank):
    """SmolLM2-135M with a random LoRA, and the rows of data/ that have about 160 tokens."""
    case = tools.folder / f"smollm2-{rank}"
    case.mkdir(parents=True)
    (case / "model").symlink_to(tools.cache / "models/SmolLM2-135M-Instruct")
    tools.python("inputs.py", "adapter", case, rank)
    real = list(texts.read_all())
    texts.write(case / "all.jsonl", real)
    texts.write(case / "target.jsonl", real[:2])
    every = ours.Run(tools, case, "all", case / "all.jsonl")
    table = pyarrow.parquet.read_table(every.folder / "pool/pool.parquet").to_pylist()
    fits = sorted(row["line"] for row in table if 140 <= row["n_tokens"] <= 180)
    texts.write(case / "pool.jsonl", [real[line - 1] for line in fits])
    ours.Run(tools, case, "run", case / "pool.jsonl")
    return case


def mean_tokens(table, n_rows):
    """Tokens a row, over the first rows of a pool."""
    read = pyarrow.parquet.read_table(table, columns=["line", "n_tokens"]).to_pylist()
    first = sorted((row["line"], row["n_tokens"]) for row in read)[:n_rows]
    return sum(tokens for _, tokens in first) / len(first)
