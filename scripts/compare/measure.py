"""What a command takes: seconds on the wall, seconds of processors, and the most memory."""

import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass


@dataclass(frozen=True)
class Cost:
    """One run of a command, its child processes included."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int


def environment(threads):
    """The same number of threads for every library, no GPU, no network."""
    names = ["OMP", "MKL", "OPENBLAS", "NUMEXPR", "RAYON"]
    fixed = {f"{name}_NUM_THREADS": str(threads) for name in names}
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return os.environ | fixed | quiet


def run(command, threads):
    """Runs a command to its end; what it says is shown only if it fails.

    The peak is that of the largest process. Linux counts what this process had in memory
    when it forked, too, so nothing large is ever loaded here.
    """
    command = [str(word) for word in command]
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment(threads), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode != 0:
        sys.exit(f"{said.decode(errors='replace')}\nfailed: {' '.join(command)}")
    return Cost(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)


@dataclass(frozen=True)
class Pair:
    """The same work on fewer and on more rows: their difference has no start-up in it."""

    rows: tuple[int, int]
    costs: tuple[Cost, Cost]

    @property
    def seconds_a_row(self):
        return (self.costs[1].seconds - self.costs[0].seconds) / (self.rows[1] - self.rows[0])

    @property
    def start_seconds(self):
        """What a run takes before, after and beside its rows."""
        return self.costs[0].seconds - self.rows[0] * self.seconds_a_row


def summary(pairs):
    """Medians over the rounds, and the spread of what is compared."""
    rates = [1e3 * pair.seconds_a_row for pair in pairs]
    return {
        "rows": pairs[0].rows,
        "ms a row": statistics.median(rates),
        "ms a row, all rounds": rates,
        "start, s": statistics.median(pair.start_seconds for pair in pairs),
        "wall of the larger, s": statistics.median(pair.costs[1].seconds for pair in pairs),
        "processor of the larger, s": statistics.median(p.costs[1].cpu_seconds for p in pairs),
        "peak, MiB": max(pair.costs[1].peak_bytes for pair in pairs) / 2**20,
    }
