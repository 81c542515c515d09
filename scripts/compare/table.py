"""The numbers of a run as Markdown tables."""


def markdown(found):
    """Every part that was measured, in the order it was."""
    parts = [head(found)]
    parts += [own(found[name]) for name, own in PARTS.items() if name in found]
    return "\n\n".join(parts)


def head(found):
    machine, versions, settings = found["machine"], found["versions"], found["settings"]
    instructions = ", ".join(machine["instructions"])
    packages = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"{machine['cores']} cores of {machine['processor']} ({instructions}), "
        f"{machine['memory, GiB']} GiB, {machine['system']}; load before: {machine['load before']}. "
        f"{settings['threads']} threads, medians of {settings['rounds']} rounds. {packages}."
    )


def adam(part):
    agreement = rows(
        ["agreement with exact scores", "direction", "rows", "rank correlation", "least"],
        [
            [
                a["name"],
                f"`{a['direction']}`",
                a["rows"],
                f"{a['spearman']:.4f}",
                f"{a['least']:.4f}",
            ]
            for a in part["agreement"]
        ],
    )
    title = f"Gradient, Adam, projection to 8192; rows of {part['tokens a row']:.0f} tokens"
    return "\n\n".join([agreement, contenders(title, part["contenders"])])


def gradient(part):
    cosines = part["agreement"]["smallest cosine with f32 transformers + peft"]
    parts = [
        rows(
            ["gradients beside those of transformers + peft in f32", "smallest cosine"],
            [[name, f"{cosine:.6f}"] for name, cosine in cosines.items()],
        )
    ]
    for dtype in ["f32", "bf16"]:
        if dtype in part:
            title = f"Gradient, rank 128, {dtype}; rows of {part['tokens a row']:.0f} tokens"
            parts.append(contenders(title, part[dtype]))
    return "\n\n".join(parts)


def memory(part):
    lines = [
        [
            one["case"],
            one["rows"],
            f"{one['tokens a row']:.0f}",
            one["dtype"],
            one["batch tokens"],
            f"{one['beyond weights, MiB']:.0f}",
            f"≤ {part['wanted, MiB']:.0f}",
        ]
        for one in [*part["real rows"], *part["pools"]]
    ]
    names = ["model and rank", "rows in the pool", "tokens a row", "dtype", "`batch-tokens`"]
    table = rows([*names, "peak beyond the weights, MiB", "wanted"], lines)
    growth = part["growth, KiB a row"]
    return (
        f"{table}\n\nGrowth over the last doubling: {growth:.1f} KiB a row; if it went on, a "
        f"million rows would take {growth * 1e6 / 2**20:.1f} GiB more. Wanted: flat."
    )


def scaling(part):
    return rows(
        ["Rows in the pool", "ms a row", "largest over smallest", "wanted"],
        [
            [pool["rows"][1], f"{pool['ms a row']:.2f}", *whole(part, first=not number)]
            for number, pool in enumerate(part["pools"])
        ],
    )


def whole(part, first):
    """What is said of all rows of the table stands in the first."""
    told = [f"{part['largest over smallest']:.3f}", f"≤ {part['wanted']:.2f}"]
    return told if first else ["", ""]


def contenders(title, found):
    def line(one):
        wanted = "" if one["wanted"] is None else f"{one['wanted']:g}×"
        low, high = min(one["ms a row, all rounds"]), max(one["ms a row, all rounds"])
        return [
            one["name"],
            " and ".join(map(str, one["rows"])),
            f"{one['ms a row']:.1f} ({low:.1f}–{high:.1f})",
            f"{one['start, s']:.1f}",
            f"{one['peak, MiB']:.0f}",
            f"{one['times less-select']:.1f}×",
            wanted,
        ]

    names = [title, "rows", "ms a row", "start, s", "peak, MiB", "× less-select", "wanted"]
    return rows(names, map(line, found))


def rows(names, lines):
    """A Markdown table."""
    written = [names, ["---"] * len(names), *lines]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in written)


PARTS = {"adam": adam, "gradient": gradient, "memory": memory, "scaling": scaling}
