"""Processes that are killed at bad moments: no image is lost, and none is exported twice.

A short form of what `make crash` does a thousand times.
"""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from orchestrator.simulator import DEFAULT_KEY, Duration, Settings, Simulator, SimulatorOptions
from tests.crash.child_processes import ForkServer, start_fork_server
from tests.crash.export_counts import ExportCounts, compare_with_ledger, count_files_with_secret
from tests.crash.scenario import KILL_KINDS, Kill, Scenario, make_kill, run_scenario
from tests.crash.worker_process import KillPoint, WorkerSpec
from tests.end_to_end.harness import (
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    read_jobs,
    read_ledger,
    wait_until,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def fork_server(anyio_backend: str) -> AsyncIterator[ForkServer]:
    """A running fork server."""
    async with start_fork_server() as running:
        yield running


@pytest.mark.parametrize("kind", sorted(set(KILL_KINDS)))
async def test_two_killed_processes_lose_nothing(fork_server: ForkServer, kind: str) -> None:
    """After two processes are killed, the third one finishes each export once.

    The cloud is at its cap and loses answers.
    """
    chance = random.Random(kind)
    kills = [make_kill(kind, chance) for _ in range(2)]
    counts = await run_scenario(Scenario(kills, exports=24, capped=True, losing=True), fork_server)
    assert counts.holds, counts.figures()
    assert counts.kills[kind] == 2


@pytest.mark.parametrize("number", [1, 2, 3, 5, 13, 34])
async def test_killed_before_a_commit(fork_server: ForkServer, number: int) -> None:
    """After a kill at any commit the next process continues from the stored state.

    Answers that arrive together share a commit, so a process can have fewer commits than the
    number; then another process is killed at an earlier commit.
    """
    scenario = Scenario([Kill("commit", KillPoint(number))], exports=12)
    counts = await run_scenario(scenario, fork_server)
    assert counts.holds, counts.figures()
    assert counts.kills["commit"] == 1


@pytest.mark.parametrize("kind", ["answer in hand", "in flight"])
async def test_killed_processes_on_postgresql(
    fork_server: ForkServer, postgresql_url: str, kind: str
) -> None:
    """On PostgreSQL, too, a killed process is detected at once, and nothing is lost."""
    kills = [make_kill(kind, random.Random(kind)) for _ in range(2)]
    settings = {"database_url": postgresql_url}
    # under a cap answers arrive in many groups, however fast the machine is
    scenario = Scenario(kills, exports=24, capped=True, losing=True, settings=settings)
    counts = await run_scenario(scenario, fork_server)
    assert counts.holds, counts.figures()
    assert counts.kills[kind] == 2


async def test_two_processes_share_one_store(fork_server: ForkServer, tmp_path: Path) -> None:
    """Two processes send each image once, although one of them is killed.

    The lock file of the killed process is removed.
    """
    batch = make_image_ids(130)
    settings = Settings(cap=6, limits={}, duration=Duration(seconds=0.3), queue_delay=0.02)
    async with (
        Simulator(SimulatorOptions(settings=settings)) as cloud,
        start_fork_server() as other_server,
    ):
        async with make_orchestrator(cloud.url, tmp_path) as orchestrator:
            await orchestrator.enqueue(make_requests_for(batch))
        spec = WorkerSpec(cloud.url, tmp_path)
        async with (
            fork_server.start_child(spec) as one,
            other_server.start_child(spec) as other,
        ):
            await wait_until(lambda: len(read_ledger(cloud, "HeadObject")) >= 5)
            one.kill()
            assert await one.wait() < 0
            with anyio.fail_after(300):
                assert await other.wait() == 0
        async with make_orchestrator(cloud.url, tmp_path) as orchestrator:
            counts = compare_with_ledger(batch, cloud.ledger, await read_jobs(orchestrator))
    assert counts.holds, counts.figures()
    assert not [left async for left in anyio.Path(tmp_path).glob("*.alive-*")]


async def test_counts_find_differences(tmp_path: Path) -> None:
    """A lost image, a doubled one, an open job and a wrong job are each counted."""
    async with Simulator(SimulatorOptions(settings=Settings(limits={}))) as cloud:
        async with make_orchestrator(cloud.url, tmp_path) as orchestrator:
            await orchestrator.enqueue(make_requests_for(make_image_ids(3)))
            await orchestrator.run()
            found = await read_jobs(orchestrator)
            await orchestrator.enqueue(make_requests_for(make_image_ids(1, first=3)))
            queued = (await read_jobs(orchestrator))[-1]
        entries = list(cloud.ledger)
    export = next(entry for entry in entries if entry.accepted)
    assert compare_with_ledger(make_image_ids(3), entries, found).holds
    assert compare_with_ledger(make_image_ids(3), [*entries, export], found).twice == 1
    assert compare_with_ledger(make_image_ids(4), entries, found).lost == 1
    assert compare_with_ledger(make_image_ids(4), entries, [*found, queued]).unfinished == 1
    without = [entry for entry in entries if entry is not export]
    assert compare_with_ledger(make_image_ids(3), without, found).disagreeing == 1


def test_files_with_a_secret_are_counted(tmp_path: Path) -> None:
    """A secret key in any file below the folder is counted."""
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "out.txt").write_text(f"key={DEFAULT_KEY.secret_key}!")
    assert count_files_with_secret(tmp_path) == 1
    assert not ExportCounts(secrets=1).holds
