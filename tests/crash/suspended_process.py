"""A process that is suspended between claim and request, beyond its lease and signature."""

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
"""With these, one job is claimed at a time."""
_MAX_WAIT = 600.0


@dataclass(frozen=True)
class SuspensionResult:
    """The result of a run in which one process was suspended.

    Args:
        details: the job whose request the suspended process held.
        codes: the codes of all refused ExportImages.
    """

    counts: ExportCounts
    details: JobDetails
    codes: list[str]


@asynccontextmanager
async def start_suspended(spec: WorkerSpec) -> AsyncIterator[ChildProcess]:
    """Start a process that claims a job and suspends itself; resume it at the end."""
    async with (
        start_fork_server() as fork_server,
        fork_server.start_child(replace(spec, suspends=True)) as child,
    ):
        with anyio.fail_after(MAX_WAIT):
            while not await _is_stopped(child.pid):
                await anyio.sleep(0.02)
        try:
            yield child
        finally:
            resume(child)


def resume(child: ChildProcess) -> None:
    """Resume a suspended process."""
    if child.code is None:
        os.kill(child.pid, signal.SIGCONT)


async def _is_stopped(number: int) -> bool:
    told = await anyio.run_process(["ps", "-o", "stat=", "-p", str(number)], check=False)
    return told.stdout.startswith(b"T")


async def run_with_suspension(
    *, lease: float | None, signature_lifetime: float | None, resume_at: JobState
) -> SuspensionResult:
    """Suspend one process after its claim while another drains the store.

    Args:
        lease: duration of its lease in seconds; ``None`` is the default.
        signature_lifetime: assumed lifetime of its signature in seconds; ``None`` is the default.
            If set, the vendor's clock is advanced before the process resumes.
        resume_at: the state of its job at which it is resumed.
    """
    settings = Settings(limits={}, cap=None, duration=Duration(seconds=0.3), queue_delay=0.01)
    with TemporaryDirectory(prefix="nap-") as name:
        folder = Path(name)
        async with Simulator(SimulatorOptions(settings=settings)) as cloud:
            async with make_orchestrator(cloud.url, folder) as orchestrator:
                await orchestrator.enqueue(make_requests_for(BATCH))
                spec = WorkerSpec(
                    cloud.url, folder, _SETTINGS, signature_lifetime=signature_lifetime
                )
                async with start_suspended(replace(spec, lease=lease)) as suspended:
                    (held,) = await read_jobs(orchestrator, states=("sending",))
                    async with (
                        start_fork_server() as fork_server,
                        fork_server.start_child(spec) as other,
                    ):
                        with anyio.fail_after(_MAX_WAIT):
                            while (
                                await _read_job(orchestrator, held.id)
                            ).job.state is not resume_at:
                                await anyio.sleep(0.1)
                            if resume_at is JobState.VERIFIED and signature_lifetime is not None:
                                cloud.change(skew=301)
                            resume(suspended)
                            assert (await suspended.wait(), await other.wait()) == (0, 0)
                details = await _read_job(orchestrator, held.id)
                counts = compare_with_ledger(BATCH, cloud.ledger, await read_jobs(orchestrator))
            refusals = [e.code for e in cloud.ledger if e.action == "ExportImages" and e.code]
        counts.secrets = count_files_with_secret(folder)
    return SuspensionResult(counts, details, refusals)


async def _read_job(orchestrator: Any, number: int) -> JobDetails:
    details: JobDetails | None = await orchestrator.show(str(number))
    assert details is not None
    return details
