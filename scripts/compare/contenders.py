"""Who is measured, and how each is run."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import measure
import ours


@dataclass(frozen=True)
class Contender:
    """A program at one job."""

    name: str
    # Of the smaller and of the larger run.
    rows: tuple[int, int]
    # How often faster than it less-select is meant to be.
    wanted: float | None
    # Over so many rows.
    run: Callable[[int], measure.Cost]
    # A score a row of the run that was last.
    scores: Callable[[int], np.ndarray] | None = None
    # What the scores are of: a name of exact.definitions.
    definition: str | None = None
    # Without a projection scores must be exact, with one as good as a dense one's.
    projected: bool = True


def with_adam(tools, case, n_rows):
    """For gradient, direction and projection; less-select first."""
    return [
        less_select(tools, case, (n_rows // 10, n_rows), gradient="adam", dtype="f32"),
        less_recipe(tools, case),
        bergson(tools, case),
        # Its default, and what was fastest here.
        dattri(tools, case, (n_rows // 10, n_rows), batch_rows=8),
        dattri(tools, case, (n_rows // 10, n_rows), batch_rows=32),
    ]


def gradient_only(tools, case, rows, dtype):
    """For the gradient alone; less-select, which is first, also projects and stores it."""
    return [
        less_select(tools, case, rows, gradient="sgd", dtype=dtype),
        Contender(
            "transformers + peft",
            rows,
            1.4,
            run=lambda n: tools.python("peer_peft.py", case, n, dtype),
        ),
    ]


def less_select(tools, case, rows, **settings):
    runs = {n: ours.ready(tools, case, n, **settings) for n in rows}
    return Contender(
        "less-select, sjlt",
        rows,
        None,
        run=lambda n: runs[n].gradients(),
        scores=lambda n: runs[n].scores(),
        definition=settings["gradient"],
    )


def less_recipe(tools, case):
    """Its projector makes all signs for every 16 rows, so runs are of one and three times that."""

    def project(table, n_rows, kind):
        out = case / f"less-{table}-{n_rows}.npy"
        return tools.python("peer_less.py", case, table, n_rows, kind, out)

    def scores(n_rows):
        target = case / "less-target-16.npy"
        if not target.exists():
            project("target", 16, "sgd")
        return mean_of_cosines(np.load(case / f"less-pool-{n_rows}.npy"), np.load(target))

    return Contender(
        "LESS recipe",
        (16, 48),
        40,
        run=lambda n: project("pool", n, "less-code"),
        scores=scores,
        definition="less-code",
    )


def bergson(tools, case, batches=(1, 3)):
    """`bergson build`, on as many rows as fill its batches."""
    filled = json.loads(tools.python_output("peer_bergson.py", case, *batches))
    folders = {filled[str(n)]: str(n) for n in batches}

    def build(name, *more):
        command = [tools.interpreter, "-m", "bergson", "build", case / f"bergson/{name}.out"]
        command += ["--model", case / "checkpoint", "--tokenizer", case / "model"]
        command += ["--dataset", case / f"bergson/{name}", "--overwrite"]
        command += ["--precision", "fp32", "--loss_reduction", "mean", "--token_batch_size", "2048"]
        command += ["--projection_target", "global", "--projection_dim", "8192"]
        return measure.run([*command, *more], tools.threads)

    def scores(n_rows):
        if not (case / "bergson/target.out").exists():
            build("target")
        built = [bergson_rows(case / f"bergson/{name}.out") for name in (folders[n_rows], "target")]
        return mean_of_cosines(*built)

    return Contender(
        "bergson build",
        tuple(folders),
        40,
        run=lambda n: build(folders[n], "--optimizer_state", case / "checkpoint"),
        scores=scores,
        definition="v",
    )


def bergson_rows(folder):
    info = json.loads((folder / "info.json").read_text())
    shape = info["num_grads"], sum(info["grad_sizes"].values())
    return np.fromfile(folder / "gradients.bin", info["base_dtype"]).reshape(shape)


def dattri(tools, case, rows, batch_rows):
    def out(n_rows):
        return case / f"dattri-{batch_rows}-{n_rows}.npy"

    return Contender(
        f"dattri-llm, exact, batches of {batch_rows}",
        rows,
        3,
        run=lambda n: tools.python("peer_dattri.py", case, n, batch_rows, out(n)),
        scores=lambda n: np.load(out(n)),
        definition="adam",
        projected=False,
    )


def mean_of_cosines(directions, targets):
    return (unit(directions) @ unit(targets).T).mean(1)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
