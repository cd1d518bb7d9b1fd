"""A process that is stopped between claim and request, for longer than lease and signature."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio

from orchestrator.job_states import JobState
from orchestrator.reporting.history import JobDetails
from orchestrator.simulator import Duration, Settings, Simulator, SimulatorOptions
from tests.crash.child_processes import ChildProcess, start_fork_server
from tests.crash.export_counts import ExportCounts, compare_with_ledger, count_files_with_secret
from tests.crash.worker_process import WorkerSpec
from tests.end_to_end.harness import (
    MAX_WAIT,
    make_image_ids,
    make_orchestrator,
    make_requests_for,
    read_jobs,
)

BATCH = make_image_ids(3)
_SETTINGS: dict[str, Any] = {"concurrency": 1, "rate": 5}
"""With which one job is claimed at a time."""
_A_NIGHT = 600.0


@dataclass(frozen=True)
class SuspensionResult:
    """What came of a night on which one process slept.

    Args:
        story: of the job whose request the sleeper held.
        codes: of every refusal of an ExportImages.
    """

    tally: ExportCounts
    story: JobDetails
    codes: list[str]


@asynccontextmanager
async def start_suspended(life: WorkerSpec) -> AsyncIterator[ChildProcess]:
    """A process that has claimed a job and fallen asleep over it; woken in the end."""
    async with (
        start_fork_server() as fork_server,
        fork_server.start_child(replace(life, falls_asleep=True)) as child,
    ):
        with anyio.fail_after(MAX_WAIT):
            while not await _is_stopped(child.pid):
                await anyio.sleep(0.02)
        try:
            yield child
        finally:
            resume(child)


def resume(child: ChildProcess) -> None:
    """Lets a sleeper go on."""
    if child.code is None:
        os.kill(child.pid, signal.SIGCONT)


async def _is_stopped(number: int) -> bool:
    told = await anyio.run_process(["ps", "-o", "stat=", "-p", str(number)], check=False)
    return told.stdout.startswith(b"T")


async def run_with_suspension(
    *, lease: float | None, fence: float | None, woken_by: JobState
) -> SuspensionResult:
    """One process sleeps over its claim while another drains the store.

    Args:
        lease: duration of the sleeper's lease in seconds, if not the usual one.
        fence: seconds for which its signature is feared, where not the usual ones; then the
            vendor's clock is put forward instead, before the sleeper wakes.
        woken_by: the state of its job in which it is woken.
    """
    settings = Settings(limits={}, cap=None, duration=Duration(seconds=0.3), queue_delay=0.01)
    with TemporaryDirectory(prefix="nap-") as name:
        folder = Path(name)
        async with Simulator(SimulatorOptions(settings=settings)) as cloud:
            async with make_orchestrator(cloud.url, folder) as orchestrator:
                await orchestrator.enqueue(make_requests_for(BATCH))
                life = WorkerSpec(cloud.url, folder, _SETTINGS, fence=fence)
                async with start_suspended(replace(life, lease=lease)) as sleeper:
                    (held,) = await read_jobs(orchestrator, states=("sending",))
                    async with (
                        start_fork_server() as fork_server,
                        fork_server.start_child(life) as other,
                    ):
                        with anyio.fail_after(_A_NIGHT):
                            while (await _job(orchestrator, held.id)).job.state is not woken_by:
                                await anyio.sleep(0.1)
                            if woken_by is JobState.VERIFIED and fence is not None:
                                cloud.change(skew=301)
                            resume(sleeper)
                            assert (await sleeper.wait(), await other.wait()) == (0, 0)
                story = await _job(orchestrator, held.id)
                tally = compare_with_ledger(BATCH, cloud.ledger, await read_jobs(orchestrator))
            refusals = [e.code for e in cloud.ledger if e.action == "ExportImages" and e.code]
        tally.secrets = count_files_with_secret(folder)
    return SuspensionResult(tally, story, refusals)


async def _job(orchestrator: Any, number: int) -> JobDetails:
    story: JobDetails | None = await orchestrator.show(str(number))
    assert story is not None
    return story
