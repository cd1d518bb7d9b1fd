"""What a child process took: its time, and its memory at the peak."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

_BYTES_OF_RSS = 1 if sys.platform == "darwin" else 1024


@dataclass(frozen=True)
class Usage:
    """By one child, from its start to its end."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Command:
    """What is to be run, its own words unheard."""

    words: Sequence[str]
    environ: Mapping[str, str]

    def measure(self, *, ends: int = 0) -> Usage:
        """Runs it to its end, which must be with this exit code."""
        program = shutil.which(self.words[0]) or self.words[0]
        launched = subprocess.run(
            [sys.executable, "-m", "benchmarks.process_launcher", program, *self.words[1:]],
            stdout=subprocess.PIPE,
            check=True,
            env=self.environ,
        )
        seconds, peak, code = json.loads(launched.stdout)
        if code != ends:
            raise RuntimeError(f"{self.words} ended with {code}")
        return Usage(seconds, peak * _BYTES_OF_RSS / 1e6)


def median_seconds(times: int, *commands: Command) -> list[float]:
    """Of each command's runs; they take turns, so that what else goes on meets them all."""
    for command in commands:
        command.measure()  # what is compiled or cached once is no part of it
    turns = [[command.measure().seconds for command in commands] for _ in range(times)]
    return [median(seconds) for seconds in zip(*turns, strict=True)]
