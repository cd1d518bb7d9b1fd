from collections.abc import AsyncIterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from orchestrator.orchestrator import Orchestrator
from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from orchestrator.verification import bucket_access, bucket_trust, evidence, poller
from orchestrator.worker import pre_send_check
from tests.end_to_end.harness import OpenStore, make_orchestrator


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to loopback directly, even if this machine uses a proxy."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def _short_permission_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a bucket that refuses every look-up as unreadable after 0.3 s.

    With the look-up interval of these tests it otherwise takes 5 s.
    """
    monkeypatch.setattr(bucket_access, "_MIN_REFUSED_FOR", 0.3)
    monkeypatch.setattr(bucket_access, "_REFUSED_LOOKUPS", 1.5)
    monkeypatch.setattr(bucket_access, "_RETRY_FACTOR", 30)


@pytest.fixture(autouse=True)
def _short_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at the first objects of a bucket again after 0.2 s instead of 3 s."""
    monkeypatch.setattr(bucket_trust, "_SECOND_LOOK", timedelta(seconds=0.2))


@pytest.fixture(autouse=True)
def _short_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept doubtful objects after 0.3 s without a new object instead of 10 s."""
    monkeypatch.setattr(evidence, "_MIN_REST", timedelta(seconds=0.3))


@pytest.fixture
def short_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeat a failed look-up after 0.2 s instead of 2 s, or 5 s before a request."""
    monkeypatch.setattr(poller, "_AFTER_FAILURE", timedelta(seconds=0.2))
    monkeypatch.setattr(pre_send_check, "_RETRY", timedelta(seconds=0.2))


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A cloud without limits, in which any image exists and an export takes 0.2 s."""
    settings = Settings(cap=None, limits={}, duration=Duration(seconds=0.2), queue_delay=0.02)
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@pytest.fixture
def open_store(cloud: Simulator, tmp_path: Path) -> OpenStore:
    """Open the test's store; each call can have other settings."""
    return partial(make_orchestrator, cloud.url, tmp_path)


@pytest.fixture
async def orchestrator(open_store: OpenStore) -> AsyncIterator[Orchestrator]:
    """An orchestrator with the settings that most tests use."""
    async with open_store() as opened:
        yield opened
