"""What was found, drawn: every contender's loss beside random's, a panel a pool and evaluation."""

from html import escape

import contenders

ROW, PANEL, LABELS, GAP, HEAD, FOOT = 18, 230, 190, 26, 46, 20

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #222 }
.title { font-weight: 600 }
.small { font-size: 10px; fill: #666 }
.axis { stroke: #888 }
.zero { stroke: #888; stroke-dasharray: 3 3 }
.better { stroke: #1a7f37; fill: #1a7f37 }
.worse { stroke: #b35900; fill: #b35900 }
.equal { stroke: #777; fill: #777 }
@media (prefers-color-scheme: dark) {
  text { fill: #ddd } .small { fill: #aaa }
  .better { stroke: #4ac26b; fill: #4ac26b } .worse { stroke: #f0883e; fill: #f0883e }
  .equal { stroke: #aaa; fill: #aaa }
}
"""


def draw(comparisons):
    """An SVG of comparisons by (pool, evaluation)."""
    pools = list(dict.fromkeys(pool for pool, _ in comparisons))
    evals = list(dict.fromkeys(name for _, name in comparisons))
    parts, top = [], 0
    for pool in pools:
        tables = {name: comparisons[pool, name] for name in evals if (pool, name) in comparisons}
        names = {name for table in tables.values() for name in differences(table)}
        names = contenders.ordered(sorted(names))
        for at, name in enumerate(names):
            y = top + HEAD + ROW * at + ROW - 5
            parts.append(f'<text x="{LABELS - 10}" y="{y}" text-anchor="end">{escape(name)}</text>')
        for name, table in tables.items():
            left = LABELS + evals.index(name) * (PANEL + GAP)
            parts += panel(left, top, pool, name, names, table)
        top += HEAD + ROW * len(names) + FOOT + GAP
    width, total = LABELS + len(evals) * (PANEL + GAP), top
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{total}" '
        f'viewBox="0 0 {width} {total}" role="img" aria-label="Loss beside random\'s">'
        f"<style>{STYLE}</style>\n" + "\n".join(parts) + "\n</svg>\n"
    )


def panel(left, top, pool, name, names, table):
    """One pool and evaluation."""
    found = differences(table)
    ends = [end for mean, half in found.values() for end in (mean - (half or 0), mean + (half or 0))]
    low, high = min(0, *ends), max(0, *ends)
    margin = 0.06 * (high - low)
    low, high = low - margin, high + margin

    def x(value):
        return left + PANEL * (value - low) / (high - low)

    bottom = top + HEAD + ROW * len(names)
    yield f'<text class="title" x="{left}" y="{top + 14}">{name}, pool “{pool}”</text>'
    yield f'<line class="axis" x1="{left}" y1="{bottom}" x2="{left + PANEL}" y2="{bottom}"/>'
    yield f'<line class="zero" x1="{x(0):.1f}" y1="{top + HEAD - 8}" x2="{x(0):.1f}" y2="{bottom}"/>'
    ends = [(x(0), "middle", "random")]
    ends += [(left, "start", f"{low:+.2f}"), (left + PANEL, "end", f"{high:+.2f}")]
    for at, anchor, text in ends:
        y = top + HEAD - 12 if text == "random" else bottom + 13
        yield f'<text class="small" x="{at:.1f}" y="{y}" text-anchor="{anchor}">{text}</text>'
    for at, contender in enumerate(names):
        if contender not in found:
            continue
        mean, half = found[contender]
        # Without an interval nothing is known to differ.
        kind = "equal" if half is None or abs(mean) <= half else "better" if mean < 0 else "worse"
        half = half or 0
        y = top + HEAD + ROW * at + ROW / 2
        yield (
            f'<g class="{kind}"><line x1="{x(mean - half):.1f}" y1="{y}" x2="{x(mean + half):.1f}"'
            f' y2="{y}"/><circle cx="{x(mean):.1f}" cy="{y}" r="3.5"/></g>'
        )


def differences(table):
    """By contender: the difference of its loss to random's, and half the interval."""
    found = {}
    for standing in table["standings"]:
        difference = standing["loss-difference"]
        if difference and standing["contender"] != "base":
            found[standing["contender"]] = (difference["mean"], difference["half-width"])
    return found
