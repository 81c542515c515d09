"""What a measurement was made with."""

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Of a processor's many flags those that decide how fast matrices are multiplied.
FLAGS = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"]


def facts():
    """Processor, memory and system, and how busy the machine was before."""
    cpu = key_values("/proc/cpuinfo")
    memory_kib = int(key_values("/proc/meminfo")["MemTotal"].split()[0])
    return {
        "processor": cpu["model name"],
        "cores": os.cpu_count(),
        "instructions": [flag for flag in FLAGS if flag in cpu["flags"].split()],
        "memory, GiB": round(memory_kib / 2**20),
        "system": platform.freedesktop_os_release()["PRETTY_NAME"],
        "load before": round(os.getloadavg()[0], 2),
    }


def has_bf16():
    """Whether the processor multiplies bf16 matrices, or has it emulated."""
    return any("bf16" in flag for flag in facts()["instructions"])


def versions(program):
    """less-select, its commit, and the packages of requirements.txt."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    names = [line.split("==")[0] for line in lines if "==" in line]
    git = ["git", "-C", str(HERE), "describe", "--always", "--dirty"]
    return {
        "less-select": subprocess.check_output([program, "--version"], text=True).split()[-1],
        "commit": subprocess.check_output(git, text=True).strip(),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in names},
    }


def key_values(path):
    """The first `key: value` of every key in a file of /proc."""
    found = {}
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found
