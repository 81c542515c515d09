"""The parts of the comparison. Each gives what it found, to be written as JSON."""

import json
import statistics
import sys
from functools import cache

import agreement
import cases
import contenders
import machine
import measure
import ours
import texts

# With fewer rows in the pool the smallest run would have none.
LEAST_ROWS = 125
# Rows whose exact scores are computed: a whole gradient each is in memory.
EXACT_ROWS = 300
# Draws of a dense projection.
SEEDS = 5
# Figures wanted, beside those that the contenders carry.
WANTED_BEYOND_WEIGHTS = 1.5 * 2**30
WANTED_FLAT_WITHIN = 0.10
# The paper's on the real model; a small one where thousands of rows are to be cheap.
RANK, GROWTH_RANK = 128, 16
# The least cosine of an f32 gradient with the other's, in which only roundings differ.
SAME_GRADIENT = 0.9999
# In bf16 ours may be no farther from f32 ones than this many times the other's.
BF16_TIMES = 2


def say(text):
    print(text, file=sys.stderr, flush=True)


# Made once, for the parts that share them.
tiny = cache(cases.tiny)
smollm2 = cache(cases.smollm2)


def adam(tools, n_rows, rounds):
    """Gradient, Adam's direction and projection to 8192, one checkpoint, a tiny Llama."""
    say("adam: a model, rows, a checkpoint and exact scores")
    case = tiny(tools, 5 * n_rows)
    n_exact = min(n_rows, EXACT_ROWS)
    tools.python("exact.py", case, n_exact, SEEDS, case / "exact.npz")
    exact = agreement.Exact(case / "exact.npz")
    untimed = agreement.require(untimed_agreements(tools, case, exact, n_exact))
    everybody = contenders.with_adam(tools, case, n_rows)

    def compared():
        found = [
            exact.compare(one.name, one.definition, one.projected, one.scores(one.rows[1]))
            for one in everybody
        ]
        return agreement.require(found)

    times, timed = alternate("adam", everybody, rounds, compared)
    return {
        "tokens a row": cases.mean_tokens(case / "run/pool/pool.parquet", n_rows),
        "agreement": [*untimed, *timed],
        "contenders": times,
    }


def untimed_agreements(tools, case, exact, n_rows):
    """Of less-select without its projection, and of its default direction."""
    found = []
    for direction, projection in [("adam", "none"), ("adam-v", "sjlt")]:
        settings = {"gradient": direction, "projection": projection, "store_dtype": "f32"}
        run = ours.ready(tools, case, n_rows, **settings, dtype="f32")
        run.gradients()
        name, projected = f"less-select, {projection}", projection != "none"
        found.append(exact.compare(name, direction, projected, run.scores()))
    return found


def gradient(tools, n_rows, rounds):
    """Gradients alone, rank 128 on a real model, in each precision the processor has."""
    case = smollm2(tools, RANK)
    rows = (n_rows // 125, n_rows // 25)
    say("gradient: whole gradients compared")
    check = whole_gradients(tools, case, n_rows=rows[0])
    found = {
        "tokens a row": cases.mean_tokens(case / "run/pool/pool.parquet", rows[1]),
        "agreement": check,
    }
    for dtype in dtypes():
        everybody = contenders.gradient_only(tools, case, rows, dtype)
        found[dtype], _ = alternate(f"gradient, {dtype}", everybody, rounds)
    return found


def whole_gradients(tools, case, n_rows):
    """Smallest cosines with transformers and peft in f32; stops if ours are too small."""
    settings = {"gradient": "sgd", "projection": "none", "store_dtype": "f32"}
    runs = [ours.ready(tools, case, n_rows, **settings, dtype=dtype) for dtype in ["f32", "bf16"]]
    for run in runs:
        run.gradients()
    folders = [run.folder for run in runs]
    found = json.loads(tools.python_output("peer_peft.py", case, n_rows, "check", *folders))
    allowed = BF16_TIMES * (1 - found["transformers + peft, bf16"])
    if found["less-select, f32"] < SAME_GRADIENT or 1 - found["less-select, bf16"] > allowed:
        sys.exit(f"no times are told of what does not agree: smallest cosines {found}")
    return {"rows": n_rows, "smallest cosine with f32 transformers + peft": found}


def alternate(what, everybody, rounds, check=lambda: None):
    """Runs everybody in turn; medians, and how often the first one is faster than each.

    `check` sees what the runs of a round left; its last word is returned, too.
    """
    pairs = {contender.name: [] for contender in everybody}
    for number in range(1, rounds + 1):
        for contender in everybody:
            say(f"{what}: round {number} of {rounds}, {contender.name}")
            costs = tuple(contender.run(n) for n in contender.rows)
            pairs[contender.name].append(measure.Pair(contender.rows, costs))
        checked = check()
    first = pairs[everybody[0].name]
    found = []
    for contender in everybody:
        own = pairs[contender.name]
        ratios = [a.seconds_a_row / b.seconds_a_row for a, b in zip(own, first)]
        times = {"times less-select": statistics.median(ratios), "wanted": contender.wanted}
        found.append({"name": contender.name, **times, **measure.summary(own)})
    return found, checked


def memory(tools, n_rows, _rounds):
    """The most memory of the gradient stage: full batches of real rows, then growing pools."""
    case = smollm2(tools, RANK)
    real = [
        beyond_weights(tools, case, case / "pool.jsonl", n_rows // 25, dtype, batch_tokens)
        for dtype in dtypes()
        for batch_tokens in [1024, 512]
    ]
    sizes = [n_rows // 2, n_rows, 2 * n_rows, 4 * n_rows]
    case = smollm2(tools, GROWTH_RANK)
    short = case / "short.jsonl"
    texts.write_windows(short, sizes[-1], words=(1, 3), seed=2)
    pools = [beyond_weights(tools, case, short, n, dtypes()[-1], 1024) for n in sizes]
    # Over the last doubling: what only fills up must not count for ever.
    before, last = (pool["beyond weights, MiB"] for pool in pools[-2:])
    return {
        "real rows": real,
        "pools": pools,
        "growth, KiB a row": (last - before) * 2**10 / (sizes[-1] - sizes[-2]),
        "wanted, MiB": WANTED_BEYOND_WEIGHTS / 2**20,
    }


def beyond_weights(tools, case, pool, n_rows, dtype, batch_tokens):
    """The stage's peak less the weights' bytes in `dtype`, over the first rows of a pool."""
    say(f"memory: {dtype}, batches of {batch_tokens} tokens, {n_rows} rows")
    settings = {"gradient": "sgd", "dtype": dtype, "batch_tokens": batch_tokens}
    name = f"memory-{pool.stem}-{n_rows}-{dtype}-{batch_tokens}"
    run = ours.Run(tools, case, name, pool, n_rows, **settings).warmup()
    weights = (case / "model/model.safetensors").stat().st_size / (2 if dtype == "bf16" else 1)
    beyond = (run.gradients().peak_bytes - weights) / 2**20
    found = {"case": case.name, "dtype": dtype, "batch tokens": batch_tokens, "rows": n_rows}
    table = run.folder / "pool/pool.parquet"
    return {
        **found,
        "tokens a row": cases.mean_tokens(table, n_rows),
        "beyond weights, MiB": beyond,
    }


def dtypes():
    """The precisions that the processor computes in; elsewhere bf16 is emulated, slowly."""
    return ["f32", "bf16"] if machine.has_bf16() else ["f32"]


def scaling(tools, n_rows, rounds):
    """Seconds a row of the gradient stage, over pools of growing size."""
    case = tiny(tools, 5 * n_rows)
    sizes = [n_rows // 10, n_rows // 2, n_rows, 5 * n_rows]
    runs = {n: ours.ready(tools, case, n, gradient="adam", dtype="f32") for n in sizes}
    pairs = {n: [] for n in sizes[1:]}
    for number in range(1, rounds + 1):
        say(f"scaling: round {number} of {rounds}")
        costs = {n: run.gradients() for n, run in runs.items()}
        for n, own in pairs.items():
            own.append(measure.Pair((sizes[0], n), (costs[sizes[0]], costs[n])))
    found = [{"rows": n, **measure.summary(own)} for n, own in pairs.items()]
    rates = [row["ms a row"] for row in found]
    return {
        "pools": found,
        "largest over smallest": max(rates) / min(rates),
        "wanted": 1 + WANTED_FLAT_WITHIN,
    }


PARTS = {"adam": adam, "gradient": gradient, "memory": memory, "scaling": scaling}
