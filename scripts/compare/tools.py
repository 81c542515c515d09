"""What every part of the comparison works with."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import measure

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Tools:
    """The program, the number of threads, and a folder for everything that is made."""

    program: Path
    threads: int
    folder: Path
    interpreter: str = sys.executable
    cache: Path = Path(os.environ["LESS_SELECT_CACHE"])

    def python(self, script, *words):
        """Runs a script of this folder and says what it took."""
        return measure.run([self.interpreter, HERE / script, *words], self.threads)

    def python_output(self, script, *words):
        """The last line that a script of this folder prints."""
        command = [self.interpreter, HERE / script, *map(str, words)]
        environment = measure.environment(self.threads)
        done = subprocess.run(command, check=False, env=environment, text=True, capture_output=True)
        if done.returncode != 0:
            sys.exit(f"{done.stderr}\nfailed: {script}")
        return done.stdout.splitlines()[-1]
