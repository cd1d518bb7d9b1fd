"""One run: find the credentials, open the clients, work to the end, and count the results."""

import time
from collections.abc import Callable, Mapping

import anyio

from orchestrator import __version__
from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.cloud.cos import CosClient
from orchestrator.cloud.credentials.chain import find_credentials
from orchestrator.cloud.cvm import CvmClient
from orchestrator.cloud.http_client import open_http_client
from orchestrator.cloud.proxies import EnvironmentProxies
from orchestrator.home_folder import home_folder
from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.limits.admission import HALT_TOPIC, Admission
from orchestrator.reporting.run_summary import RunResult, RunSummary
from orchestrator.run_warnings import RunWarnings
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.worker.account_check import check_account
from orchestrator.worker.run_context import RunContext
from orchestrator.worker.worker import Worker


async def run(
    database: Database,
    settings: Settings,
    environ: Mapping[str, str],
    notify: Callable[[str], None],
    *,
    batch: str | None,
    time_limit: float | None,
    forever: bool,
    stop: anyio.Event | None,
) -> RunResult:
    """Work on one batch or on all until no job can progress; see `Orchestrator.run`."""
    began = time.monotonic()
    summary = await RunSummary.begin(database, settings.profile, batch)
    if not summary.has_work and not forever:
        for profile, count in (await summary.living_jobs_of_other_profiles()).items():
            notify(
                f"Unfinished jobs of profile {profile!r}: {count}. This run skips them; use "
                f"--profile {profile} to work on them."
            )
        return await summary.finish(owner=None, seconds=0.0)
    endpoints = settings.cvm_endpoint, settings.cos_endpoint
    for sentence in EnvironmentProxies().describe(*endpoints, settings.sts_endpoint):
        notify(sentence)
    # each service has a clock of its own: a wrong Date header must not mislead the others
    sts_clock, cvm_clock, cos_clock = (ServerClock(database.clock) for _ in range(3))
    credentials = await find_credentials(
        settings.profile,
        environ,
        home_folder(environ),
        is_named=settings.is_profile_named,
        sts_endpoint=settings.sts_endpoint,
        metadata_endpoint=settings.metadata_endpoint,
        clock=sts_clock,
        notify=notify,
    )
    await check_account(database, settings, credentials, sts_clock, notify)
    timeout = settings.request_timeout.total_seconds()
    async with (
        register_worker(database) as me,
        open_http_client(f"orchestrator/{__version__}", *endpoints) as http,
    ):
        cvm = CvmClient(http, endpoint=settings.cvm_endpoint, clock=cvm_clock, timeout=timeout)
        cos = CosClient(
            http,
            endpoint=settings.cos_endpoint,
            credentials=credentials,
            clock=cos_clock,
            timeout=timeout,
        )
        warnings = RunWarnings(database, settings.profile, notify)
        admission = Admission(
            settings.profile,
            database,
            credentials,
            notify,
            clock=cvm_clock,
            warnings=warnings,
            rate=settings.rate,
            quota_wait=settings.quota_wait.total_seconds(),
            request_timeout=timeout,
        )
        context = RunContext(settings, database, cvm, cos, admission, warnings, sts_clock)
        worker = Worker(context, me, notify, batch=batch, time_limit=time_limit, forever=forever)
        async with anyio.create_task_group() as tasks:
            if stop is not None:
                tasks.start_soon(_finish_when, stop, worker)
            tasks.start_soon(credentials.keep_fresh)
            await worker.run()
            tasks.cancel_scope.cancel()
        with database.short_lock_timeout():
            return await summary.finish(
                owner=me.name,
                seconds=time.monotonic() - began,
                left=worker.eligibility.unfinished(),
                timed_out=worker.timed_out,
                blocked=tuple(admission.halts.active),
                warnings=tuple(
                    message
                    for key, message in warnings.messages.items()
                    if not key.startswith(HALT_TOPIC)
                ),
            )


async def _finish_when(stop: anyio.Event, worker: Worker) -> None:
    await stop.wait()
    worker.finish()
