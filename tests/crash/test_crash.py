"""Processes that die at the worst moments: no image is lost, and none is exported twice."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
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


def has_sent(cloud: Simulator, count: int) -> bool:
    """Whether so many requests have arrived."""
    return len(requests(cloud)) >= count


async def is_whole(cloud: Simulator, folder: Path) -> bool:
    """Whether every image was accepted exactly once, and every job is verified."""
    async with orchestrator_at(cloud.url, folder) as orchestrator:
        found = await jobs_of(orchestrator)
    states = {job.image_ids[0]: job.state for job in found}
    assert accepted(cloud) == once_each(BATCH)
    assert states == dict.fromkeys(BATCH, JobState.VERIFIED)
    return True


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
    assert await is_whole(cloud, folder)


async def test_killed_while_requests_are_in_the_air(cloud: Simulator, folder: Path) -> None:
    """Killed after the vendor accepted and before the answer came, no request is repeated."""
    cloud.set_faults(Fault("latency", action="ExportImages", seconds=1))
    async with child(cloud, folder) as process:
        await until(lambda: len(requests(cloud)) >= 3)
        process.kill()
    cloud.set_faults()
    await drains(cloud, folder)
    assert await is_whole(cloud, folder)


async def test_the_dead_leave_nothing_behind(cloud: Simulator, folder: Path) -> None:
    """The lock of a process that died is cleared away by the next, whether or not it held a job."""
    async with child(cloud, folder, "--kill-at", "1", "--of", CLAIM) as process:
        assert await ended(process) == -signal.SIGKILL
    assert [left async for left in anyio.Path(folder).glob("*.alive-*")]
    await drains(cloud, folder)
    assert not [left async for left in anyio.Path(folder).glob("*.alive-*")]


async def test_killed_while_looking(cloud: Simulator, folder: Path) -> None:
    """Killed between two looks into the bucket, the next process looks on from there."""
    cloud.change(duration=Duration(seconds=1.5), cap=None)
    async with child(cloud, folder) as process:
        await until(lambda: len(requests(cloud, "HeadObject")) >= 5)
        process.kill()
    await drains(cloud, folder)
    assert await is_whole(cloud, folder)
    assert len(requests(cloud)) == len(BATCH)


async def test_killed_again_and_again(cloud: Simulator, folder: Path) -> None:
    """Processes that never live longer than a few answers still come to the end together."""
    for _ in range(3):
        enough = len(requests(cloud)) + 3
        async with child(cloud, folder) as process:
            await until(partial(has_sent, cloud, enough))
            process.kill()
    await drains(cloud, folder)
    assert await is_whole(cloud, folder)


async def test_two_processes_share_one_store(cloud: Simulator, folder: Path) -> None:
    """Two processes at once on one file send each image once between them, under one cap."""
    async with child(cloud, folder) as one, child(cloud, folder) as other:
        assert await ended(one) == 0
        assert await ended(other) == 0
    assert await is_whole(cloud, folder)
