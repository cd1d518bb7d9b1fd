"""Where a case plays: a cloud, and a store of its own."""

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.simulator_process import SimulatorProcess, start_simulator
from benchmarks.store import Store

_PATIENCE = 300
"""Seconds, far more than any part of a case takes."""


@contextmanager
def start_cloud_and_store(**settings: Any) -> Iterator[tuple[SimulatorProcess, Store]]:
    """A cloud with these settings and an empty store, gone at the end of the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with start_simulator(folder, **settings) as here:
            yield here, Store(folder, here.variables)


def wait_until(holds: Callable[[], bool], run: subprocess.Popen[bytes]) -> None:
    """Returns when something holds that a run brings about, which must not end before."""
    given_up_at = time.monotonic() + _PATIENCE
    while not holds():
        if run.poll() is not None:
            raise RuntimeError(f"the run ended too soon, with {run.returncode}")
        if time.monotonic() > given_up_at:
            raise RuntimeError(f"the run did not come so far in {_PATIENCE} s")
        time.sleep(0.05)  # nothing tells this process when to look


def wait_for_success(*runs: subprocess.Popen[bytes]) -> None:
    """Returns when runs have ended: each with 0, which says that nothing is left or failed."""
    codes = [run.wait() for run in runs]
    if any(codes):
        raise RuntimeError(f"the runs ended with {codes}")
