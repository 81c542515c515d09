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
    has_f1 = any(standing["f1"] for standing in comparison["standings"])
    heads = ["contender", "trials", "loss"]
    heads += [f"less {reference}'s"] if reference else []
    heads += ["exact", "F1"] if has_f1 else ["exact"]
    lines = [
        f"\n### {comparison['eval']}, pool {pool} ({comparison['n-examples']} rows)\n",
        row(heads),
        "|" + "---|" * len(heads),
    ]
    for standing in comparison["standings"]:
        name = contenders.name(standing["contender"])
        cells = [name, standing["n-trials"], estimate(standing["loss"])]
        if reference:
            cells.append(estimate(standing["loss-difference"], "+"))
        cells.append(f"{100 * standing['exact']['mean']:.1f} %")
        if has_f1:
            cells.append(estimate(standing["f1"]))
        lines.append(row(cells))
    return "\n".join(lines)


def row(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def estimate(value, sign=""):
    if value is None:
        return ""
    if value["half-width"] is None:
        return f"{value['mean']:{sign}.3f}"
    return f"{value['mean']:{sign}.3f} ± {value['half-width']:.3f}"
