"""Opens a subset folder as a trainer does, and compares it with what the folder says of itself.

    python scripts/crosscheck/subset.py SUBSET_DIR...

`datasets.load_dataset` gets the path and nothing else, and all folders share one cache, so rows of
one that come from another are found. Exits with 1 and a message at the first difference.
The integration tests leave folders in target/tmp/crosscheck/. Run with datasets 3.6.0, 4.4.1,
4.8.5 and 5.2.0.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

# Before the import: nothing is fetched, and nothing comes from an older run's cache.
os.environ["HF_HUB_OFFLINE"] = "1"
CACHE = tempfile.TemporaryDirectory(prefix="datasets-cache-")
os.environ["HF_HOME"] = CACHE.name

import datasets  # noqa: E402
import pyarrow as pa  # noqa: E402

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
COLUMNS = {
    "messages": {
        "messages": MESSAGES,
        "id": pa.string(),
        "source": pa.string(),
        "less_score": pa.float32(),
        "less_rank": pa.int64(),
        "less_subtask": pa.string(),
    },
    "messages-only": {"messages": MESSAGES},
}


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    datasets.disable_progress_bars()
    for argument in sys.argv[1:]:
        check(Path(argument))


def check(folder: Path) -> None:
    facts = json.loads((folder / "less-select.json").read_text())
    subset = facts["subset"]
    loaded = datasets.load_dataset(str(folder))
    expect(folder, "splits", list(loaded), ["train"])
    rows = loaded["train"]
    expect(folder, "number of rows", rows.num_rows, subset["n_rows"])
    expect(folder, "columns", rows.column_names, list(subset["columns"]))
    schema = rows.features.arrow_schema
    for name, arrow_type in COLUMNS.get(subset["schema"], {}).items():
        expect(folder, f"type of `{name}`", plain(schema.field(name).type), plain(arrow_type))
    if subset["schema"] == "original":
        types = {field.name: plain(field.type) for field in schema}
        expect(folder, "types", types, {name: text for name, text in subset["columns"].items()})
    else:
        check_messages(folder, rows)
    if subset["schema"] == "messages":
        check_ranks(folder, rows)
        # Other selectors take rows in an order of their own.
        if facts["provenance"].get("settings", {}).get("selector", "top") == "top":
            scores = list(rows["less_score"])
            expect(folder, "scores", scores, sorted(scores, reverse=True))
    print(f"{folder}: {rows.num_rows} rows, {len(rows.column_names)} columns, datasets {datasets.__version__}")


def check_messages(folder: Path, rows: datasets.Dataset) -> None:
    for position, row in enumerate(rows):
        messages = row["messages"]
        expect(folder, f"row {position}: type of messages", type(messages), list)
        for message in messages:
            expect(folder, f"row {position}: keys of a message", sorted(message), ["content", "role"])
            if not all(isinstance(text, str) for text in message.values()):
                sys.exit(f"{folder}: row {position}: a message holds something that is not a string")


def check_ranks(folder: Path, rows: datasets.Dataset) -> None:
    expect(folder, "ranks", list(rows["less_rank"]), list(range(1, rows.num_rows + 1)))
    expect(folder, "number of distinct ids", len(set(rows["id"])), rows.num_rows)


def plain(arrow_type: pa.DataType) -> str:
    """A type as text, without the names that readers give to list items."""
    if pa.types.is_list(arrow_type):
        return f"list<{plain(arrow_type.value_type)}>"
    if pa.types.is_struct(arrow_type):
        return "struct<" + ", ".join(f"{field.name}: {plain(field.type)}" for field in arrow_type) + ">"
    return {"float": "float32", "double": "float64"}.get(str(arrow_type), str(arrow_type))


def expect(folder: Path, what: str, found: object, expected: object) -> None:
    if found != expected:
        sys.exit(f"{folder}: {what}: found {found}, expected {expected}")


if __name__ == "__main__":
    main()
