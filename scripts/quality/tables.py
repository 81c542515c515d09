"""What was found: tables, raw numbers, a figure.

A comparison is what `less-select verify --json` prints of an evaluation, with its pool.
"""

import json

import contenders
import figure

TITLES = {"gsm8k": "GSM8K", "tydiqa": "TyDiQA", "bbh": "BBH", "bbh_cot": "BBH, thinking aloud"}


def found(folder):
    """All comparisons, evaluations as `TITLES` has them."""
    comparisons = []
    for path in sorted(folder.glob("*.json"), reverse=True):
        comparisons += json.loads(path.read_text())
    order = list(TITLES)
    return sorted(comparisons, key=lambda comparison: order.index(comparison["eval"]))


def write(comparisons, folder):
    """Raw numbers, beside those of other runs that are there, and a figure."""
    path = folder / "quality.json"
    is_new = {key(comparison) for comparison in comparisons}
    earlier = json.loads(path.read_text()) if path.exists() else []
    raw = comparisons + [other for other in earlier if key(other) not in is_new]
    path.write_text(json.dumps(raw, indent=1) + "\n")
    drawn = {(of["pool"], of["eval"]): of for of in raw if of["reference"] == "random"}
    (folder / "quality.svg").write_text(figure.draw(drawn))


def key(comparison):
    return comparison["pool"], comparison["eval"], comparison["reference"]


def markdown(comparisons):
    """A table for every pool and reference, and one of answers where there are any."""
    groups = {}
    for comparison in comparisons:
        group = groups.setdefault((comparison["pool"], comparison["reference"]), {})
        group[comparison["eval"]] = comparison
    parts = []
    for (pool, reference), group in groups.items():
        parts += [f"\n### Pool {pool}, loss less that of {reference}\n"]
        parts += [differences(reference, group)]
        if reference == "random":
            parts += [answers(comparison) for comparison in group.values() if has_f1(comparison)]
    return "\n".join(parts)


def differences(reference, group):
    """Every contender's loss less the reference's, a column an evaluation."""
    by_name = {}
    for name, comparison in group.items():
        for standing in comparison["standings"]:
            by_name.setdefault(standing["contender"], {})[name] = standing
    own = by_name.pop(reference)
    heads = [f"{TITLES[name]} ({of['n-examples']} rows)" for name, of in group.items()]
    lines = head(["contender", *heads])
    for contender in contenders.ordered(by_name):
        cells = [difference(by_name[contender].get(name)) for name in group]
        lines.append(row([f"`{contender}`", *cells]))
    cells = [f"{own[name]['loss']['mean']:.3f} ({own[name]['n-trials']})" for name in group]
    lines.append(row([f"*loss of {reference}*", *cells]))
    return "\n".join(lines)


def difference(standing):
    """Bold where the loss is lower beyond the interval; in brackets the trials."""
    if standing is None:
        return ""
    value = standing["loss-difference"]
    mark = "**" if value["mean"] < -value["half-width"] else ""
    return f"{mark}{estimate(value, '+')}{mark} ({standing['n-trials']})"


def has_f1(comparison):
    return any(standing["f1"] for standing in comparison["standings"])


def answers(comparison):
    """What the models' own answers are worth, best first."""
    lines = [f"\n{TITLES[comparison['eval']]}, answers:\n"]
    lines += head(["contender", "trials", "exact", "F1"])
    for standing in sorted(comparison["standings"], key=lambda of: -of["f1"]["mean"]):
        name = f"`{standing['contender']}`"
        exact = f"{100 * standing['exact']['mean']:.1f} %"
        lines.append(row([name, standing["n-trials"], exact, estimate(standing["f1"])]))
    return "\n".join(lines)


def head(cells):
    return [row(cells), "|" + "---|" * len(cells)]


def row(cells):
    return "| " + " | ".join(map(str, cells)) + " |"


def estimate(value, sign=""):
    return f"{value['mean']:{sign}.3f} ± {value['half-width']:.3f}".replace("-", "−")
