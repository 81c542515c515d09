"""What was found, as tables."""

import json

import contenders


def markdown(folder):
    """A table for every pool and evaluation that there is something of."""
    found = []
    for path in sorted(folder.glob("*/*.json")):
        pool = path.stem.split("-")[0]
        for comparison in json.loads(path.read_text()):
            found.append(table(pool, comparison))
    return "\n".join(found)


def table(pool, comparison):
    reference = comparison["reference"] or "nobody"
    lines = [
        f"\n### {comparison['eval']}, pool {pool} its own sources, {comparison['n-examples']} rows\n",
        f"| contender | trials | loss | against {reference} | exact |",
        "|---|---|---|---|---|",
    ]
    for standing in comparison["standings"]:
        exact = standing["exact"]
        lines.append(
            f"| {standing['contender'].replace('subset', contenders.FIRST)} | {standing['n-trials']} | {estimate(standing['loss'])} "
            f"| {estimate(standing['loss-difference'], '+')} | {100 * exact['mean']:.1f} % |"
        )
    return "\n".join(lines)


def estimate(value, sign=""):
    if value is None:
        return ""
    if value["half-width"] is None:
        return f"{value['mean']:{sign}.3f}"
    return f"{value['mean']:{sign}.3f} ± {value['half-width']:.3f}"
