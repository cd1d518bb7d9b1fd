from collections.abc import AsyncIterator

import pytest

from orchestrator.clock import SystemClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.signing import ServerClock
from orchestrator.cloud.transport import http_client
from orchestrator.db import Database
from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions

from .bench import KEYS, Bench, HeldKeys


@pytest.fixture
async def bench(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bench]:
    """A store beside a cloud in which uploads begin at once and end after 200 s of its clock."""
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings(duration=Duration(seconds=200), queue_delay=0, limits={}, cap=None)
    clock, keys = ServerClock(SystemClock()), HeldKeys(KEYS)
    async with (
        Simulator(SimulatorOptions(settings=settings)) as simulator,
        http_client(concurrency=4, user_agent="tests/1") as http,
    ):
        common = {"endpoint": simulator.url}
        cvm = CvmClient(http, **common, credentials=keys, clock=clock, timeout=5.0)
        cos = CosClient(http, **common, credentials=keys, clock=clock, timeout=5.0)
        yield Bench(database, simulator, cvm, cos, clock)
