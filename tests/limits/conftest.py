"""What the tests of pacing share."""

import pytest

from orchestrator.clock import SystemClock
from orchestrator.store import Database


@pytest.fixture
def still(sqlite_url: str) -> Database:
    """A store that nobody opens."""
    return Database(sqlite_url, SystemClock())
