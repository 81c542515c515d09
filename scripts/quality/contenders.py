"""What is compared: a name, and the settings that make its subset."""

# The direction of gradients that ranks; the others are stored along, so that all
# contenders share one store.
KINDS = ("adam-v", "adam", "less-code", "sgd")
# Those of the store of more dimensions.
KINDS_32K = ("adam-v", "adam", "sgd")


def less(kind, *more, kinds=KINDS):
    """LESS with a direction."""
    others = [other for other in kinds if other != kind]
    return ["--gradient", ",".join([kind, *others]), *by_score(more)]


def preconditioned(kind, precondition, *more):
    """LESS with a direction and another inner product, which takes no others along."""
    return ["--gradient", kind, "--precondition", precondition, *by_score(more)]


def method(name, *more):
    """One that takes no gradients."""
    return ["--method", name, *by_score(more)]


def by_score(more):
    """Rows are taken by score unless settings say otherwise."""
    return more if "--selector" in more else ("--selector", "top", *more)


# The default. In the runs of this one are the trials.
FIRST = "adam-v.32k.round-robin"

CONTENDERS = {
    "adam-v": less("adam-v"),
    "sgd": less("sgd"),
    "adam": less("adam"),
    "less-code": less("less-code"),
    "adam-v.cosine-of-mean": less("adam-v", "--aggregation", "cosine-of-mean"),
    "sgd.cosine-of-mean": less("sgd", "--aggregation", "cosine-of-mean"),
    "adam-v.round-robin": less("adam-v", "--selector", "round-robin"),
    "sgd.round-robin": less("sgd", "--selector", "round-robin"),
    "adam.round-robin": less("adam", "--selector", "round-robin"),
    "less-code.round-robin": less("less-code", "--selector", "round-robin"),
    "adam-v.32k.round-robin": less("adam-v", "--selector", "round-robin", kinds=KINDS_32K),
    "adam.32k.round-robin": less("adam", "--selector", "round-robin", kinds=KINDS_32K),
    "adam-v.knn": less("adam-v", "--selector", "knn"),
    "adam-v.knn-kde": less("adam-v", "--selector", "knn-kde"),
    "adam-v.mmr": less("adam-v", "--selector", "mmr"),
    "adam-v.pool.round-robin": preconditioned("adam-v", "pool", "--selector", "round-robin"),
    "adam-v.whiten.round-robin": preconditioned("adam-v", "whiten", "--selector", "round-robin"),
    "adam-v.target.round-robin": preconditioned("adam-v", "target", "--selector", "round-robin"),
    "rds": method("rds"),
    "rds.round-robin": method("rds", "--selector", "round-robin"),
    "bm25": method("bm25"),
    "bm25.round-robin": method("bm25", "--selector", "round-robin"),
    "ngram": method("ngram"),
    "ngram.round-robin": method("ngram", "--selector", "round-robin"),
    "length": method("length"),
    "perplexity": method("perplexity"),
    "random-balanced": method("random-balanced"),
}

# Trained with every seed; the others with one.
FINALISTS = (FIRST, "adam-v.round-robin", "adam-v", "sgd.round-robin", "rds.round-robin", "bm25")


def store(name):
    """Settings of the stored rows that a contender is scored by, and the folder's name."""
    if ".32k" in name:
        # As many bytes a row as the other's.
        return "gradients-32k", ["--proj-dim", 32_768, "--store-dtype", "i4"]
    return "gradients", ["--proj-dim", 8192, "--store-dtype", "f16"]


def takes_gradients(name):
    """Whether a contender is scored by gradients."""
    return "--gradient" in CONTENDERS[name]


def named(comparison):
    """A comparison of `verify`, in which the default is called so and not `subset`."""
    def name(of):
        return FIRST if of == "subset" else of

    standings = [{**of, "contender": name(of["contender"])} for of in comparison["standings"]]
    return {**comparison, "reference": name(comparison["reference"]), "standings": standings}


def ordered(names):
    """As the list has them; those that are not in it follow."""
    known = list(CONTENDERS)
    return sorted(names, key=lambda name: known.index(name) if name in known else len(known))
