"""A simulated cloud and an empty store for one benchmark case."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cli_on_store import Store
from benchmarks.simulator_process import SimulatorProcess, start_simulator

_MAX_WAIT = 300
"""Maximum wait in seconds; far more than any part of a case takes."""


@contextmanager
def start_cloud_and_store(**settings: Any) -> Iterator[tuple[SimulatorProcess, Store]]:
    """Yield a cloud with these settings and an empty store; remove both at the end."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with start_simulator(folder, **settings) as here:
            yield here, Store(folder, here.variables)


def wait_until(holds: Callable[[], bool], run: subprocess.Popen[bytes]) -> None:
    """Wait until a condition holds; the run must not end before."""
    given_up_at = time.monotonic() + _MAX_WAIT
    while not holds():
        if run.poll() is not None:
            raise RuntimeError(f"the run ended too soon, with {run.returncode}")
        if time.monotonic() > given_up_at:
            raise RuntimeError(f"the condition did not hold within {_MAX_WAIT} s")
        time.sleep(0.05)  # nothing notifies this process


def wait_for_success(*runs: subprocess.Popen[bytes]) -> None:
    """Wait until all runs have ended with exit code 0.

    This code means that nothing is left and nothing failed.

    Raises:
        RuntimeError: a run has ended with another code.
    """
    codes = [run.wait() for run in runs]
    if any(codes):
        raise RuntimeError(f"the runs ended with {codes}")
