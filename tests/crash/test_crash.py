"""Processes that die at the worst moments: no image is lost, and none is exported twice."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import pytest
from anyio.abc import Process

from orchestrator.model import JobState
from orchestrator.simulator import Duration, Fault, Settings, Simulator, SimulatorOptions
from tests.flow.scene import (
    accepted,
    images,
    jobs_of,
    once_each,
    orchestrator_at,
    orders,
    requests,
    until,
)

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
BATCH = images(16)

CLAIM = "INSERT INTO attempts"
RECORD = "UPDATE attempts"
FINDING = "UPDATE objects"


@pytest.fixture
async def cloud(anyio_backend: str) -> AsyncIterator[Simulator]:
    """A cloud that outlives the processes which use it."""
    settings = Settings(cap=6, limits={}, duration=Duration(seconds=0.3), queue_delay=0.02)
    async with Simulator(SimulatorOptions(settings=settings)) as running:
        yield running


@pytest.fixture
async def folder(cloud: Simulator, tmp_path: Path) -> Path:
    """The folder of a store in which the whole batch waits."""
    async with orchestrator_at(cloud.url, tmp_path) as orchestrator:
        await orchestrator.enqueue(orders(BATCH))
    return tmp_path


@asynccontextmanager
async def child(cloud: Simulator, folder: Path, *options: str) -> AsyncIterator[Process]:
    """A process that drains the store; killed where it still lives in the end."""
    command = [sys.executable, "-m", "tests.crash.child", cloud.url, str(folder), *options]
    environ = {name: text for name, text in os.environ.items() if "proxy" not in name.lower()}
    async with await anyio.open_process(
        command, cwd=ROOT, env=environ, stdout=None, stderr=None
    ) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


async def ended(process: Process) -> int:
    """How a process ended by itself."""
    with anyio.fail_after(30):
        return await process.wait()


async def drains(cloud: Simulator, folder: Path) -> None:
    """A fresh process brings the store to its end."""
    async with child(cloud, folder) as process:
        assert await ended(process) == 0


async def assert_whole(cloud: Simulator, folder: Path) -> None:
    """Every image was accepted exactly once, and every job is verified."""
    async with orchestrator_at(cloud.url, folder) as orchestrator:
        found = await jobs_of(orchestrator)
    states = {job.image_ids[0]: job.state for job in found}
    assert accepted(cloud) == once_each(BATCH)
    assert states == dict.fromkeys(BATCH, JobState.VERIFIED)


@pytest.mark.parametrize(
    ("statement", "numbers"), [(CLAIM, (1, 4)), (RECORD, (1, 2, 1)), ("", (4, 20, 40))]
)
async def test_killed_at_a_commit(
    cloud: Simulator, folder: Path, statement: str, numbers: tuple[int, ...]
) -> None:
    """Killed at one commit after another, the last process exports what is left, each once."""
    for number in numbers:
        options = ("--kill-at", str(number), "--of", statement)
        async with child(cloud, folder, *options) as process:
            assert await ended(process) == -signal.SIGKILL
    await drains(cloud, folder)
    await assert_whole(cloud, folder)


async def test_killed_while_requests_are_in_the_air(cloud: Simulator, folder: Path) -> None:
    """Killed after the vendor accepted and before the answer came, no request is repeated."""
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=1))
    async with child(cloud, folder) as process:
        await until(lambda: len(requests(cloud)) >= 3)
        process.kill()
    cloud.set_faults()
    await drains(cloud, folder)
    await assert_whole(cloud, folder)


async def test_killed_while_looking(cloud: Simulator, folder: Path) -> None:
    """Killed between two looks, the next process looks on, and clears the dead one's lock away."""
    cloud.change(duration=Duration(seconds=1.5), cap=None)
    async with child(cloud, folder) as process:
        await until(lambda: len(requests(cloud, "HeadObject")) >= 5)
        process.kill()
    await drains(cloud, folder)
    await assert_whole(cloud, folder)
    assert len(requests(cloud)) == len(BATCH)
    assert not [left async for left in anyio.Path(folder).glob("*.alive-*")]


async def test_two_processes_share_one_store(cloud: Simulator, folder: Path) -> None:
    """Two processes at once on one file send each image once between them, under one cap."""
    async with child(cloud, folder) as one, child(cloud, folder) as other:
        assert await ended(one) == 0
        assert await ended(other) == 0
    await assert_whole(cloud, folder)
