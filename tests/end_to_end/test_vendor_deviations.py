"""A vendor that differs from its documents: a lost answer costs time, never a second export.

In virtual time; of every tenth request the answer is lost, and half of these never reached the
vendor. `make scale` runs this with 200 images, and exports that show only after ten minutes.
"""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.in_memory_transport import InMemoryTransport
from benchmarks.virtual import VirtualClock, in_virtual_time
from orchestrator.cli.exit_codes import exit_code_of_run
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials.base import Credential
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import HttpClient
from orchestrator.job_queue.enqueue import enqueue
from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.job_states import JobState
from orchestrator.limits.admission import Admission
from orchestrator.model import NOT_RULED_OUT, JobFilter
from orchestrator.reporting.history import Job, history
from orchestrator.reporting.run_summary import RunResult, RunSummary
from orchestrator.run_warnings import RunWarnings
from orchestrator.settings import load_settings
from orchestrator.simulator import DEFAULT_KEY, Duration, Entry, Settings, SimulatorOptions
from orchestrator.simulator.cloud import Clocks, Cloud
from orchestrator.store import Database, Schema
from orchestrator.worker.run_context import RunContext
from orchestrator.worker.worker import Worker
from tests.cloud.scripted_server import FixedCredentials
from tests.end_to_end.harness import make_image_ids, make_requests_for

PROFILE = "default"
KEYS = FixedCredentials(Credential(DEFAULT_KEY.secret_id, DEFAULT_KEY.secret_key))
DOCUMENTED = "as documented"
SILENT = "hides uploads, writes at the end"
DEVIATIONS: Mapping[str, Mapping[str, Any]] = {
    DOCUMENTED: {},
    "ignores the prefix": {"ignore_prefix": True},
    SILENT: {"hide_uploads": True},
    "lists nothing": {"empty_listings": True},
}


@dataclass(frozen=True)
class Workload:
    """How many images there are, and how long their export takes.

    Args:
        seconds: median time of an export, all of it before its first trace where uploads are
            hidden.
        resend_after: seconds of empty look-ups.
    """

    count: int
    lost: int
    seconds: float
    resend_after: float


class LossyTransport(InMemoryTransport):
    """A transport that loses some answers to ExportImages.

    Args:
        lost: by number of the request, whether it reaches the cloud before.
    """

    def __init__(self, cloud: Cloud, lost: Mapping[int, bool]) -> None:
        super().__init__(cloud, (0.02, 0.05), random.Random(3))
        self._lost = lost
        self._sent = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request, and lose the request or its answer."""
        if request.headers.get("x-tc-action") != "ExportImages":
            return await super().handle_async_request(request)
        self._sent += 1
        trace = request.extensions["trace"]
        await trace("http11.send_request_headers.started", {"request": _Core(b"POST")})
        if (reaches := self._lost.get(self._sent)) is None:
            return await super().handle_async_request(request)
        if reaches:
            await super().handle_async_request(request)
        raise httpx.ReadError("the connection broke", request=request)


@dataclass(frozen=True)
class _Core:
    """A request as httpcore's trace shows it."""

    method: bytes


@dataclass(frozen=True)
class Outcome:
    """The result of a run."""

    result: RunResult
    jobs: list[Job]
    requests: list[Entry]
    began: list[str]
    lookups: int


async def _run(night: Workload, world: Mapping[str, Any], folder: Path) -> Outcome:
    clock, loop = VirtualClock(), asyncio.get_running_loop()
    duration = Duration("uniform", seconds=night.seconds, spread=0.3)
    settings = Settings(cap=None, duration=duration, queue_delay=1.0, **world)
    cloud = Cloud(
        SimulatorOptions(settings=settings), Clocks(lambda: clock.now().timestamp(), loop.time)
    )
    numbers = random.Random(9).sample(range(1, night.count + 1), night.lost)
    lost = {number: position % 2 == 0 for position, number in enumerate(numbers)}
    database = Database(f"sqlite+aiosqlite:///{folder}/store.db", clock)
    await Schema(database).require(create=True)
    await enqueue(
        database,
        make_requests_for(make_image_ids(night.count)),
        profile=PROFILE,
        batch="b",
        actor="test",
    )
    async with LossyTransport(cloud, lost) as way:
        over_memory = httpx.AsyncClient(transport=way)
        result = await _run_to_end(database, HttpClient(over_memory), night)
    jobs = [job async for job in history(database, JobFilter())]
    await database.close()
    requests = [entry for entry in cloud.ledger.entries if entry.action == "ExportImages"]
    lookups = sum(entry.service == "cos" for entry in cloud.ledger.entries)
    began = [export.image_id for export in cloud.exports.all]
    return Outcome(result, jobs, requests, began, lookups)


async def _run_to_end(database: Database, http: HttpClient, night: Workload) -> RunResult:
    settings = load_settings({"profile": PROFILE, "resend_after": night.resend_after}, {})
    clock, warnings = ServerClock(database.clock), RunWarnings(database, PROFILE, print)
    context = RunContext(
        settings,
        database,
        CvmClient(http, endpoint="https://cvm", clock=clock, timeout=30),
        CosClient(
            http,
            endpoint="https://cos",
            credentials=KEYS,
            clock=ServerClock(database.clock),
            timeout=30,
        ),
        Admission(
            PROFILE,
            database,
            KEYS,
            print,
            clock=clock,
            warnings=warnings,
            rate=20,
            quota_wait=3600,
            request_timeout=30,
        ),
        warnings,
    )
    summary = await RunSummary.begin(database, PROFILE, None)
    async with register_worker(database) as me:
        worker = Worker(context, me, print)
        await worker.run()
        return await summary.finish(owner=me.name, seconds=0, left=worker.eligibility.unfinished())


def check_no_export_is_doubled(name: str, night: Workload, folder: Path) -> str:
    """Run a workload with a deviation and check it; return a line for the report."""
    seen = in_virtual_time(lambda: _run(night, DEVIATIONS[name], folder))
    assert len(seen.began) == len(set(seen.began)), "an image was exported twice"
    for job in seen.jobs:
        if job.state is JobState.UNKNOWN:
            assert job.reason == NOT_RULED_OUT
            assert job.remedy
    counts = {state: count for state, count in seen.result.counts.items() if count}
    if name in {DOCUMENTED, SILENT}:
        assert counts == {JobState.VERIFIED: night.count}
        assert exit_code_of_run(seen.result) == 0
    else:
        verified = night.count - night.lost
        assert counts == {JobState.VERIFIED: verified, JobState.UNKNOWN: night.lost}
        assert exit_code_of_run(seen.result) == 4
    told = ", ".join(f"{count} {state}" for state, count in counts.items())
    return f"{name}: {told}; 0 exported twice; exit {exit_code_of_run(seen.result)}"


@pytest.mark.parametrize("name", DEVIATIONS)
def test_no_lost_answer_becomes_a_second_export(name: str, tmp_path: Path) -> None:
    """Each image is exported at most once, and each unknown job has a reason.

    A job whose export is not found stays unknown.
    """
    night = Workload(count=40, lost=4, seconds=20.0, resend_after=5.0)
    check_no_export_is_doubled(name, night, tmp_path)


def test_beliefs_cost_a_few_look_ups_a_bucket(tmp_path: Path) -> None:
    """The checks of a bucket add at most five look-ups if COS is as documented.

    Without any check of what COS answers there were 737 look-ups for 40 images.
    """
    night = Workload(count=40, lost=0, seconds=20.0, resend_after=120.0)
    seen = in_virtual_time(lambda: _run(night, DEVIATIONS[DOCUMENTED], tmp_path))
    assert seen.result.counts[JobState.VERIFIED] == 40
    assert seen.lookups <= 737 + 5
