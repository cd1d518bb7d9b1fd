from collections.abc import AsyncIterator

import httpx
import pytest

from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Run a simulator in which any image exists and an export takes 250 s.

    The 250 s are measured on the simulator's clock. Tests move that clock on by the setting
    ``skew``; signatures still hold then.
    """
    settings = Settings(duration=Duration(seconds=200), queue_delay=50, limits={})
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """A client that ignores the proxy settings of the environment."""
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        yield client
