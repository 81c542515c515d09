"""Selects with every method, trains on what each selected, evaluates, compares.

Only `less-select` selects, trains and evaluates; this script says what, and gathers.
"""

import argparse
import json
import subprocess
from pathlib import Path

import contenders
import samples
import tables

# Three passes over a subset of rows of average length.
N_TOKENS = 42_000
SEEDS = 3


class Program:
    """`less-select`, with settings that go to every call."""

    def __init__(self, path, more):
        self.path, self.more = path, more

    def __call__(self, *args):
        command = [str(arg) for arg in (self.path, *args, *self.more)]
        print("$", " ".join(command), flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False)
        if done.returncode:
            raise SystemExit(f"`less-select` ended with {done.returncode}")
        return done.stdout


class Experiment:
    def __init__(self, program, data, work, model):
        self.program, self.data, self.work, self.model = program, data, work, model

    def settings(self, pool, name, targets):
        folder, store = contenders.store(name)
        paths = [f"{target}={self.work / 'target' / target}.jsonl" for target in targets]
        return [
            *("--model", self.model, "--pool", self.work / "pools" / pool),
            *(f"--target={path}" for path in paths),
            *(*store, "--gradient-store", self.work / folder / pool),
        ]

    def gradients(self, pool):
        """One warm-up and one gradient pass for all directions and targets."""
        # The store of more dimensions is filled by the first who asks for it.
        settings = self.settings(pool, "adam-v", samples.TARGETS.values())
        kinds = ["--gradient", ",".join(contenders.KINDS)]
        for stage in ("ingest", "warmup", "gradients"):
            self.program(stage, "--run", self.work / "base" / pool, *settings, *kinds)

    def select(self, pool, name, targets, run):
        """A run of a contender."""
        settings = self.settings(pool, name, targets)
        if contenders.takes_gradients(name):
            settings += ["--checkpoints", self.work / "base" / pool / "checkpoints"]
        flags = ["--budget", "5%", "--subset-per-target", *contenders.CONTENDERS[name]]
        self.program("--quiet", "--run", run, *settings, *flags)

    def subsets(self, pool, name):
        """A contender's subset for each target alone, by the target's name."""
        # Other selectors of a method go by its one forward pass.
        folder = name if contenders.takes_gradients(name) else name.split(".")[0]
        run = self.work / "runs" / pool / folder
        self.select(pool, name, samples.TARGETS.values(), run)
        found = json.loads((run / "selection.json").read_text())["by_target"]
        # A method that looks at no target has one for all.
        latest = (run / "latest").read_text().strip()
        return {target: run / found.get(target, latest) for target in samples.TARGETS.values()}

    def verify(self, pool, names, evals, n_seeds):
        """Trains on subsets and evaluates each for its own target; what is trained is kept."""
        subsets = {name: self.subsets(pool, name) for name in names if name != contenders.FIRST}
        for eval_name in evals:
            target = samples.TARGETS[eval_name]
            place = self.work / "trials" / f"{pool}-{eval_name}"
            self.select(pool, contenders.FIRST, [target], place)
            more = [f"{name}={found[target]}" for name, found in subsets.items()]
            if eval_name in samples.ANSWER_TOKENS:
                more += ["--answers", samples.ANSWER_TOKENS[eval_name]]
            more += ["--tokens", N_TOKENS, "--against", "random,base", "--seeds", n_seeds]
            # With what is trained at hand the second takes no time.
            for reference in ("random", "subset"):
                self.compare(place, pool, [eval_name], reference, more)

    def verify_full(self, pool, evals):
        """The whole pool, in as many passes: once for all evaluations, as is every subset."""
        place = self.work / "trials" / f"{pool}-full"
        self.select(pool, contenders.FIRST, samples.TARGETS.values(), place)
        found = self.subsets(pool, contenders.FIRST)
        more = [f"for-{target}={subset}" for target, subset in found.items()]
        more += ["--passes", 3, "--equal-passes", "--against", "full,base", "--seeds", 1]
        self.compare(place, f"{pool}, equal passes", evals, "full", more)

    def compare(self, place, pool, evals, reference, more):
        """Keeps what `verify` prints, beside the name of the pool."""
        found = self.program(
            *("verify", "--run", place, "--model", self.model, *more),
            *("--reference", reference, "--json"),
            *(f"--eval={name}={self.work / 'eval' / name}.jsonl" for name in evals),
        )
        found = [{"pool": pool, **contenders.named(of)} for of in json.loads(found)]
        out = self.work / "found" / f"{place.name}-{reference}.json"
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(found))


def run(experiment, pools, names, evals):
    samples.draw(experiment.program, experiment.model, experiment.data, experiment.work)
    for pool in pools:
        experiment.gradients(pool)
    finalists = [name for name in names if name in contenders.FINALISTS]
    # What there is at any time is a whole table: of the finalists, of all, and in the end
    # of all with every seed that was tried.
    for some, n_seeds in ((finalists, 1), (names, 1), (finalists, SEEDS), (names, 1)):
        for pool in pools:
            experiment.verify(pool, some, evals, n_seeds)
    for pool in pools:
        experiment.verify_full(pool, evals)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--program", type=Path)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct")
    parser.add_argument("--pools", nargs="+", default=["without", "with"], help="only these")
    parser.add_argument(
        "--contenders", nargs="+", default=list(contenders.CONTENDERS), help="only these"
    )
    parser.add_argument(
        "--evals", nargs="+", default=list(samples.TARGETS), help="only these"
    )
    parser.add_argument("--table", action="store_true", help="only print what there is")
    parser.add_argument("--figures", type=Path, help="a folder for raw numbers and the figure")
    known, more = parser.parse_known_args()
    work = known.work.resolve()
    if not known.table:
        program = Program(known.program, more)
        experiment = Experiment(program, known.data.resolve(), work, known.model)
        run(experiment, known.pools, known.contenders, known.evals)
    found = tables.found(work / "found")
    if known.figures:
        tables.write(found, known.figures)
    print(tables.markdown(found))


if __name__ == "__main__":
    main()
