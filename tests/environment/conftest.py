import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from tests.cli_process import Shell
from tests.environment.harness import STORE, mount_disk


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connect to loopback directly, even if this machine uses a proxy."""
    for name in ("HTTP_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A cloud without limits, in which an export takes 0.2 s."""
    settings = Settings(cap=None, limits={}, duration=Duration(seconds=0.2), queue_delay=0.02)
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@pytest.fixture
def shell(cloud: Simulator, tmp_path: Path) -> Shell:
    """A shell whose commands use that cloud."""
    return Shell.for_cloud(cloud, tmp_path, ORCHESTRATOR_RATE="40", ORCHESTRATOR_RESEND_AFTER="1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system, which a test can fill or make read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or (why := mount_disk(folder, "-o", "size=12m")):
        pytest.skip(f"no disk can be mounted here ({why})")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def on_disk(shell: Shell, disk: Path) -> Shell:
    """A shell whose store is on the small file system."""
    return Shell(shell.folder, {**shell.variables, "ORCHESTRATOR_DATABASE_URL": str(disk / STORE)})
