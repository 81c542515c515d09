"""Whether what was timed computes what it should."""

import sys
from dataclasses import asdict, dataclass

import numpy as np

# What is left when only roundings differ.
EXACT = 0.999
# A projection is one draw. It passes within this many standard deviations of the mean of
# dense draws to as many dimensions, on the same rows and for the same direction.
DEVIATIONS = 3


@dataclass(frozen=True)
class Agreement:
    """Rank correlation of scores with exact ones, and the least that passes."""

    name: str
    direction: str
    rows: int
    spearman: float
    least: float

    @property
    def passes(self):
        return self.spearman >= self.least


class Exact:
    """What exact.py found, over the first rows of the pool."""

    def __init__(self, file):
        self.arrays = dict(np.load(file))

    def compare(self, name, definition, projected, scores):
        exact = self.arrays[definition][: len(scores)]
        scores = scores[: len(exact)]
        least = self.least(definition, exact) if projected else EXACT
        return Agreement(name, definition, len(exact), rank_correlation(scores, exact), least)

    def least(self, definition, exact):
        dense = self.arrays[f"{definition}/dense"][:, : len(exact)]
        draws = [rank_correlation(scores, exact) for scores in dense]
        return float(np.mean(draws) - DEVIATIONS * np.std(draws, ddof=1))


def rank_correlation(x, y):
    """Spearman's, of lists without ties."""
    ranks = [np.argsort(np.argsort(values)) for values in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def require(agreements):
    """Stops before any time is told if one does not pass."""
    failed = [found for found in agreements if not found.passes]
    for found in failed:
        print(
            f"{found.name} ({found.direction}): rank correlation {found.spearman:.4f} over "
            f"{found.rows} rows, {found.least:.4f} is the least that passes",
            file=sys.stderr,
        )
    if failed:
        sys.exit("no times are told of what does not agree")
    return [asdict(found) for found in agreements]
