"""less-select, through its command line."""

import shutil

import numpy as np
import pyarrow.parquet

import measure
import texts


class Run:
    """A run directory of a case, made anew up to its pool and target tables."""

    def __init__(self, tools, case, name, pool, n_rows=None, **settings):
        self.tools = tools
        self.folder = case / name
        shutil.rmtree(self.folder, ignore_errors=True)
        if n_rows is not None:
            whole, pool = pool, case / f"{name}.jsonl"
            texts.write_first(pool, whole, n_rows)
        own = {"model": case / "model", "pool": pool, "target": case / "target.jsonl"}
        if (case / "checkpoint").exists():
            own["checkpoints"] = case / "checkpoint"
        self.stage("ingest", threads=tools.threads, **own, **settings)

    def stage(self, stage, **settings):
        """Runs one stage to its end and says what it took."""
        command = [self.tools.program, stage, "--run", self.folder, "--quiet"]
        for name, value in settings.items():
            command += [f"--{name.replace('_', '-')}", value]
        return measure.run(command, self.tools.threads)

    def warmup(self):
        """Trains a checkpoint, or takes note of the case's."""
        self.stage("warmup")
        return self

    def gradients(self):
        """What the stage takes from its start to its end, the target's few rows included."""
        shutil.rmtree(self.folder / "gradients", ignore_errors=True)
        return self.stage("gradients")

    def scores(self):
        """A score a pool row, in the order of the pool's file."""
        self.stage("index")
        self.stage("score")
        lines = column_by_id(self.folder / "pool/pool.parquet", "line")
        scores = column_by_id(self.folder / "scores.parquet", "score")
        return np.array([scores[key] for key in sorted(lines, key=lines.get)])


def column_by_id(table, column):
    read = pyarrow.parquet.read_table(table, columns=["id", column]).to_pydict()
    return dict(zip(read["id"], read[column]))


def ready(tools, case, n_rows, **settings):
    """A run over the first rows of the case's pool that lacks only its gradients."""
    name = "-".join(["ours", str(n_rows), *map(str, settings.values())])
    return Run(tools, case, name, case / "pool.jsonl", n_rows, **settings).warmup()
