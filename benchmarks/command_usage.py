"""Measure the time and the peak memory of a child process."""

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
    """Time and peak memory of one child process."""

    seconds: float
    megabytes: float


@dataclass(frozen=True)
class Command:
    """A command to run; its output is discarded."""

    words: Sequence[str]
    environ: Mapping[str, str]

    def measure(self, *, ends: int = 0) -> Usage:
        """Run the command and measure it; it must end with this exit code."""
        program = shutil.which(self.words[0]) or self.words[0]
        launched = subprocess.run(
            [sys.executable, "-m", "benchmarks.measure_child", program, *self.words[1:]],
            stdout=subprocess.PIPE,
            check=True,
            env=self.environ,
        )
        seconds, peak, code = json.loads(launched.stdout)
        if code != ends:
            raise RuntimeError(f"{self.words} exited with {code}")
        return Usage(seconds, peak * _BYTES_OF_RSS / 1e6)


def median_seconds(times: int, *commands: Command) -> list[float]:
    """Return the median time of each command; alternating runs meet the same load."""
    for command in commands:
        command.measure()  # the first run also compiles and caches, so it does not count
    turns = [[command.measure().seconds for command in commands] for _ in range(times)]
    return [median(seconds) for seconds in zip(*turns, strict=True)]
