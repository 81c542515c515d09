"""Measures less-select beside other programs; see docs/performance.md. Started by `run`."""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import machine
import parts
import table
from tools import Tools


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/compare/run", description=__doc__)
    parser.add_argument("--program", type=Path, help="less-select; by default the checkout's")
    parser.add_argument(
        "--only", action="append", choices=list(parts.PARTS), help="one part; may be given again"
    )
    parser.add_argument("--rows", type=int, default=1000, help="rows of the pool (default: 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of this many (default: 3)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: all cores")
    parser.add_argument("--json", type=Path, default=Path("compare.json"), help="where to write")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print FILE's numbers again")
    return parser.parse_args()


def main():
    wanted = arguments()
    if wanted.table:
        print(table.markdown(json.loads(wanted.table.read_text())))
        return
    if wanted.rows < parts.LEAST_ROWS:
        sys.exit(f"--rows: at least {parts.LEAST_ROWS}")
    found = {
        "machine": machine.facts(),
        "versions": machine.versions(wanted.program),
        "settings": {"rows": wanted.rows, "rounds": wanted.rounds, "threads": wanted.threads},
    }
    with tempfile.TemporaryDirectory(prefix="less-select-compare-") as folder:
        tools = Tools(wanted.program.resolve(), wanted.threads, Path(folder))
        for name in wanted.only or parts.PARTS:
            found[name] = parts.PARTS[name](tools, wanted.rows, wanted.rounds)
            # What is measured is kept, whatever becomes of the next part.
            wanted.json.write_text(json.dumps(found, indent=2) + "\n")
    print(table.markdown(found))


if __name__ == "__main__":
    main()
