"""What was found: tables, raw numbers, a figure."""

import json

import contenders
import figure


def found(folder):
    """Comparisons by (pool, evaluation), as `less-select verify --json` printed them."""
    comparisons = {}
    for path in sorted(folder.glob("*.json"), reverse=True):
        pool = path.stem.split("-")[0]
        for comparison in json.loads(path.read_text()):
            key = (pool, comparison["eval"])
            if path.stem.endswith("-full"):
                key = (f"{pool}, equal passes", comparison["eval"])
            comparisons[key] = comparison
    return comparisons


def write(comparisons, folder):
    """Raw numbers and a figure."""
    raw = [{"pool": pool, **comparison} for (pool, _), comparison in comparisons.items()]
    (folder / "quality.json").write_text(json.dumps(raw, indent=1) + "\n")
    drawn = {key: found for key, found in comparisons.items() if found["reference"]}
    (folder / "quality.svg").write_text(figure.draw(drawn))


def markdown(comparisons):
    """A table for every pool and evaluation that there is something of."""
    return "\n".join(table(pool, found) for (pool, _), found in comparisons.items())


def table(pool, comparison):
    reference = comparison["reference"]
    lines = [
        f"\n### {comparison['eval']}, pool {pool} ({comparison['n-examples']} rows)\n",
        "| contender | trials | loss | " + (f"less {reference}'s | " if reference else "") + "exact |",
        "|---|---|---|---|" + ("---|" if reference else ""),
    ]
    for standing in comparison["standings"]:
        cells = [contenders.name(standing["contender"]), standing["n-trials"], estimate(standing["loss"])]
        if reference:
            cells.append(estimate(standing["loss-difference"], "+"))
        cells.append(f"{100 * standing['exact']['mean']:.1f} %")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


def estimate(value, sign=""):
    if value is None:
        return ""
    if value["half-width"] is None:
        return f"{value['mean']:{sign}.3f}"
    return f"{value['mean']:{sign}.3f} ± {value['half-width']:.3f}"
