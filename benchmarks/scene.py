"""Where a case plays: a cloud, and a store of its own."""

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.cloud import Cloud, cloud
from benchmarks.store import Store


@contextmanager
def scene(**settings: Any) -> Iterator[tuple[Cloud, Store]]:
    """A cloud with these settings and an empty store, gone at the end of the block."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with cloud(folder, **settings) as here:
            yield here, Store(folder, here.variables)


def wait_until(holds: Callable[[], bool]) -> None:
    """Returns when something holds that another process brings about."""
    while not holds():
        time.sleep(0.05)  # nothing tells this process when to look
