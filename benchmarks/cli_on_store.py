"""Commands on a store of their own, run as a user's shell runs them."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.command_usage import Command

BUCKET = "backup-1250000000"
REGION = "ap-singapore"


@dataclass(frozen=True)
class Store:
    """A folder with a store, and the environment variables of its commands."""

    folder: Path
    variables: Mapping[str, str]

    @property
    def path(self) -> Path:
        """The database's file."""
        return self.folder / "exports.db"

    def run(self, *words: str, given: str = "") -> str:
        """Run a command and return its output; its exit code must be 0."""
        return self.python("orchestrator", *words, given=given)

    def python(self, module: str, *words: str, given: str = "") -> str:
        """Run a Python module and return its output; its exit code must be 0."""
        ended = subprocess.run(
            [sys.executable, "-m", module, *words],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            env=self._environ(),
        )
        if ended.returncode:
            raise RuntimeError(f"{words} exited with {ended.returncode}: {ended.stderr}")
        return ended.stdout

    def command(self, *words: str) -> Command:
        """Return a command whose output is discarded."""
        return Command([sys.executable, "-m", "orchestrator", *words], self._environ())

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start a command whose output is discarded."""
        command = self.command(*words)
        nothing = subprocess.DEVNULL
        return subprocess.Popen(
            command.words, stdin=nothing, stdout=nothing, stderr=nothing, env=command.environ
        )

    def enqueue(self, image_ids: Iterable[str], *regions: str) -> None:
        """Enqueue one job for each image, with the regions in turn."""
        placed = zip(image_ids, cycle(regions or (REGION,)), strict=False)
        rows = "".join(f"{image_id},{region},{BUCKET}\n" for image_id, region in placed)
        self.run("enqueue", "-", given=f"image_id,region,bucket\n{rows}")

    def drain(self, *words: str) -> dict[str, Any]:
        """Run to the end; return the counts of the run and the CPU seconds that it used."""
        before = child_cpu_seconds()
        result: dict[str, Any] = json.loads(self.run("run", "--json", *words))
        return {**result, "processor_seconds": child_cpu_seconds() - before}

    def _environ(self) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        own = {"HOME": str(self.folder), "ORCHESTRATOR_DATABASE_URL": str(self.path)}
        return {**kept, **own, **self.variables}


def make_image_ids(count: int, first: int = 0) -> list[str]:
    """Make this many image ids."""
    return [f"img-{number:08d}" for number in range(first, first + count)]


def child_cpu_seconds() -> float:
    """Return the CPU seconds of all child processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
