from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from tests.cli_process import Shell


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """Run a simulated cloud whose exports take 0.2 s."""
    settings = Settings(cap=None, duration=Duration(seconds=0.2), queue_delay=0.01)
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@pytest.fixture
def shell(cloud: Simulator, tmp_path: Path) -> Shell:
    """Return a shell that uses the endpoints and keys of the simulated cloud."""
    return Shell.for_cloud(cloud, tmp_path)
