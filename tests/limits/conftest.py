"""Fixtures of the tests of limits."""

import pytest

from orchestrator.clock import SystemClock
from orchestrator.store import Database


@pytest.fixture
def still(sqlite_url: str) -> Database:
    """Return a store that is never opened."""
    return Database(sqlite_url, SystemClock())
