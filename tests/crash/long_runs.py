"""Longer runs on one store: several processes at the same time, and repeated restarts."""

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import anyio

from orchestrator.simulator import Duration, Fault, Settings, Simulator, SimulatorOptions
from tests.cli_process import Shell, wait_until
from tests.crash.child_processes import ForkServer, start_fork_server
from tests.crash.export_counts import ExportCounts, compare_with_ledger, count_files_with_secret
from tests.crash.scenario import count_requests, wait_for_requests
from tests.crash.worker_process import WorkerSpec
from tests.end_to_end.harness import make_image_ids, make_orchestrator, make_requests_for, read_jobs

_LOST = Fault("reset", action="ExportImages", after=True, chance=0.05)
_SETTINGS: dict[str, object] = {"rate": 20}


@asynccontextmanager
async def _open_store(
    settings: Settings, batch: list[str]
) -> AsyncIterator[tuple[Simulator, Path]]:
    """Start a cloud, and make a store with the batch in its queue."""
    with TemporaryDirectory(prefix="shift-") as name:
        async with Simulator(SimulatorOptions(settings=settings)) as cloud:
            async with make_orchestrator(cloud.url, Path(name)) as orchestrator:
                await orchestrator.enqueue(make_requests_for(batch))
            yield cloud, Path(name)


async def _compare(cloud: Simulator, folder: Path, batch: list[str]) -> ExportCounts:
    async with make_orchestrator(cloud.url, folder) as orchestrator:
        counts = compare_with_ledger(batch, cloud.ledger, await read_jobs(orchestrator))
    counts.secrets = count_files_with_secret(folder)
    return counts


async def run_side_by_side(seconds: float, chance: random.Random) -> ExportCounts:
    """Run four processes on one file; two of them are killed again and again."""
    batch = make_image_ids(int(seconds * 60) + 40)
    settings = Settings(
        limits={}, cap=60, duration=Duration(seconds=0.5), queue_delay=0.01, faults=(_LOST,)
    )
    kills = 0
    async with AsyncExitStack() as stack:
        cloud, folder = await stack.enter_async_context(_open_store(settings, batch))
        fork_servers = [await stack.enter_async_context(start_fork_server()) for _ in range(4)]
        spec = WorkerSpec(cloud.url, folder, _SETTINGS)
        over = anyio.current_time() + seconds

        async def run_steady(fork_server: ForkServer) -> None:
            async with fork_server.start_child(spec) as child:
                assert await child.wait() == 0, (folder / "children.log").read_text()

        async def run_killed(fork_server: ForkServer) -> None:
            nonlocal kills
            while anyio.current_time() < over:
                async with fork_server.start_child(spec) as child:
                    await wait_for_requests(cloud, child, chance.randint(5, 80))
                    child.kill()
                    kills += await child.wait() < 0
            await run_steady(fork_server)

        async with anyio.create_task_group() as tasks:
            for fork_server in fork_servers[:2]:
                tasks.start_soon(run_steady, fork_server)
            for fork_server in fork_servers[2:]:
                tasks.start_soon(run_killed, fork_server)
        counts = await _compare(cloud, folder, batch)
    counts.kills["one of four processes"] = kills
    return counts


async def run_with_restarts(times: int) -> ExportCounts:
    """Kill and restart the command line; measure the time to its first request."""
    batch = make_image_ids(times * 25)
    settings = Settings(limits={}, cap=None, duration=Duration(seconds=0.5), queue_delay=0.01)
    counts = ExportCounts()
    async with _open_store(settings, batch) as (cloud, folder):
        shell = Shell.for_cloud(
            cloud,
            folder,
            ORCHESTRATOR_DATABASE_URL=str(folder / "orchestrator.db"),
            ORCHESTRATOR_RESEND_AFTER="1",
        )
        for _ in range(times):
            before, began = count_requests(cloud), anyio.current_time()
            async with shell.start("run") as process:
                await wait_until(lambda goal=before + 1: count_requests(cloud) >= goal)
                counts.restarts.append(anyio.current_time() - began)
                await wait_until(lambda goal=before + 8: count_requests(cloud) >= goal)
                process.kill()
                await process.wait()
        assert (await shell.run("run")).code == 0
        counts.add(await _compare(cloud, folder, batch))
    counts.kills["command line, sending"] = times
    return counts
