"""The facade for CLI and Python callers: opens the store, the clients and the worker from settings.

Methods import what they need when they are called, so that listing jobs does not wait for the
import of the HTTP client.
"""

import getpass
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import anyio

from orchestrator import __version__
from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import CredentialError
from orchestrator.job_queue.job_filter import is_named, matches
from orchestrator.model import JobFilter
from orchestrator.reporting.history import Job, JobDetails, history, job_details
from orchestrator.settings import Settings, load_settings
from orchestrator.store import Database, Schema
from orchestrator.store.migrations import HEAD

if TYPE_CHECKING:
    from orchestrator.cloud.clock_skew import ServerClock
    from orchestrator.cloud.credentials.base import CredentialSource
    from orchestrator.job_queue.enqueue import EnqueueResult
    from orchestrator.manifest.export_request import ExportRequest
    from orchestrator.operations.cancel import CancelResult
    from orchestrator.operations.resolve_unknown import Verdict
    from orchestrator.operations.retry import RetryResult
    from orchestrator.reporting.run_summary import RunResult
    from orchestrator.reporting.status import Status
    from orchestrator.worker.run_settings import RunContext, RunSettings
    from orchestrator.worker.worker import Worker

_log = logging.getLogger("orchestrator")
_IDENTITY_TIMEOUT = 5.0
"""Seconds to wait for STS; a run can do without its answer."""


class Orchestrator:
    """A store of export jobs and the operations on it; use it with ``async with``.

    Args:
        database: SQLAlchemy URL or file path; overrides the settings.
        settings: default: read from the environment and the configuration file.
        environ: variables to read settings and credentials from.
        notify: called with messages for the user; default: log them.
        create: create the store if it does not exist.

    Raises:
        OrchestratorError: on entering, if the store cannot be used.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        settings: Settings | None = None,
        environ: Mapping[str, str] = os.environ,
        clock: Clock | None = None,
        notify: Callable[[str], None] = _log.info,
        create: bool = True,
    ) -> None:
        flags = {} if database is None else {"database_url": database}
        self.settings = settings or load_settings(flags, environ)
        self._environ = environ
        self._home = Path(environ.get("HOME", "~")).expanduser()
        self._clock = clock or SystemClock()
        self._notify = notify
        self._create = create
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self._database = Database(self.settings.sqlalchemy_url, self._clock)
        self._stack.push_async_callback(self._database.close)
        try:
            await Schema(self._database).require(create=self._create)
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def enqueue(
        self,
        requests: Iterable["ExportRequest"],
        *,
        batch: str | None = None,
        again: bool = False,
    ) -> "EnqueueResult":
        """Add a job for each request, except duplicates of existing jobs.

        Args:
            batch: name of the batch; default: a generated one.
            again: enqueue duplicates too.
        """
        from orchestrator.job_queue.enqueue import enqueue

        return await enqueue(
            self._database,
            requests,
            profile=self.settings.profile,
            batch=batch,
            again=again,
            actor=f"enqueue-{os.getpid()}",
        )

    async def run(
        self,
        *,
        batch: str | None = None,
        time_limit: float | None = None,
        forever: bool = False,
        stop: anyio.Event | None = None,
    ) -> "RunResult":
        """Send, wait and verify until no job can progress; continue what an earlier run left.

        Args:
            batch: only this batch.
            time_limit: seconds after which nothing more is sent.
            forever: wait for new jobs instead of returning.
            stop: set it to send nothing more, wait for the requests in flight, and return.

        Raises:
            CredentialError: there are jobs to do, but no usable credentials.
        """
        from orchestrator.cloud.clock_skew import ServerClock
        from orchestrator.job_queue.worker_registry import register_worker
        from orchestrator.reporting.run_summary import RunSummary
        from orchestrator.worker.worker import Worker

        began = time.monotonic()
        summary = await RunSummary.begin(self._database, self.settings.profile, batch)
        if not summary.has_work and not forever:
            for profile, count in (await summary.living_jobs_of_other_profiles()).items():
                self._notify(
                    f"{count} unfinished jobs belong to profile {profile!r}; this run skips them."
                )
            return await summary.finish(owner=None, seconds=0.0)
        clock = ServerClock(self._database.clock)
        credentials = await self._credentials(clock)
        await self._check_account(credentials)
        async with (
            register_worker(self._database) as me,
            self._context(credentials, clock) as context,
        ):
            worker = Worker(
                context, self._run_settings(batch, time_limit, forever=forever), me, self._notify
            )
            async with anyio.create_task_group() as tasks:
                if stop is not None:
                    tasks.start_soon(_finish_when, stop, worker)
                tasks.start_soon(credentials.keep_fresh)
                await worker.run()
                tasks.cancel_scope.cancel()
            with self._database.short_lock_timeout():
                return await summary.finish(
                    owner=me.name,
                    seconds=time.monotonic() - began,
                    left=worker.eligibility.unfinished(),
                    timed_out=worker.timed_out,
                    blocked=tuple(context.admission.halts.active),
                )

    async def status(self, *, batch: str | None = None) -> "Status":
        """Return the counts of each state, the limits of each scope, and the ETA."""
        from orchestrator.reporting.status import status

        return await status(self._database, batch=batch, rate=self.settings.rate)

    def history(
        self, wanted: JobFilter | None = None, *, limit: int | None = None
    ) -> AsyncIterator[Job]:
        """Yield the jobs that match the filter, newest first."""
        return history(self._database, wanted or JobFilter(), limit=limit)

    async def show(self, job: str) -> JobDetails | None:
        """Return one job by id or tag, with its attempts, objects and events."""
        return await job_details(self._database, job)

    async def resolve(
        self, job: str, verdict: "Verdict", *, why: str, actor: str | None = None
    ) -> int:
        """Resolve an unknown job by what an operator has found out; return its id.

        Args:
            job: id or tag.
            why: the operator's evidence; stored in the job's events.
            actor: who decided; default: the user of this process.

        Raises:
            UsageError: not exactly one job, not an unknown job, or too early for `absent`.
        """
        from orchestrator.operations.resolve_unknown import resolve

        return await resolve(
            self._database,
            is_named((job,)),
            verdict,
            why=why,
            export_deadline=timedelta(seconds=self.settings.export_deadline),
            actor=actor or _operator(),
        )

    async def retry(
        self, wanted: JobFilter, *, dry_run: bool = False, actor: str | None = None
    ) -> "RetryResult":
        """Retry failed and cancelled jobs; search the bucket first where an export may exist.

        Where a request delivered only some of its images, the missing ones become a new job.

        Args:
            dry_run: only count.
            actor: who decided; default: the user of this process.
        """
        from orchestrator.operations.retry import retry

        actor = actor or _operator()
        return await retry(self._database, matches(wanted), actor=actor, dry_run=dry_run)

    async def cancel(
        self, wanted: JobFilter, *, dry_run: bool = False, actor: str | None = None
    ) -> "CancelResult":
        """Cancel queued jobs; jobs in other states are skipped.

        Args:
            dry_run: only count.
            actor: who decided; default: the user of this process.
        """
        from orchestrator.operations.cancel import cancel

        actor = actor or _operator()
        return await cancel(self._database, matches(wanted), actor=actor, dry_run=dry_run)

    async def _credentials(self, clock: "ServerClock") -> "CredentialSource":
        from orchestrator.cloud.credentials.chain import find_credentials

        return await find_credentials(
            self.settings.profile,
            self._environ,
            self._home,
            sts_endpoint=self.settings.sts_endpoint,
            metadata_endpoint=self.settings.metadata_endpoint,
            clock=clock,
            notify=self._notify,
        )

    async def _check_account(self, credentials: "CredentialSource") -> None:
        """Check that the credentials belong to the account that the profile used before.

        The check is skipped if STS does not answer: a run must not depend on one more service.

        Raises:
            CredentialError: they belong to another account.
        """
        from orchestrator.cloud.clock_skew import ServerClock
        from orchestrator.cloud.sts import caller_account
        from orchestrator.worker.account_check import check_account

        credential = await credentials.current()
        try:
            account = await caller_account(
                credential,
                endpoint=self.settings.sts_endpoint,
                clock=ServerClock(self._database.clock),
                seconds=_IDENTITY_TIMEOUT,
            )
        except CredentialError as error:
            _log.debug("Could not look up the account of the credentials: %s", error.message)
            return
        await check_account(self._database, self.settings.profile, account)

    @asynccontextmanager
    async def _context(
        self, credentials: "CredentialSource", clock: "ServerClock"
    ) -> AsyncIterator["RunContext"]:
        """Open the clients of CVM and COS.

        Args:
            clock: CVM's time. COS gets a separate clock: its time must not sign CVM requests.
        """
        from orchestrator.cloud.clock_skew import ServerClock
        from orchestrator.cloud.cos import CosClient
        from orchestrator.cloud.cvm import CvmClient
        from orchestrator.cloud.http_client import open_http_client
        from orchestrator.limits.admission import Admission
        from orchestrator.worker.run_settings import RunContext

        settings = self.settings
        async with open_http_client(f"orchestrator/{__version__}") as http:
            cvm = CvmClient(
                http,
                endpoint=settings.cvm_endpoint,
                clock=clock,
                timeout=settings.request_timeout,
            )
            cos = CosClient(
                http,
                endpoint=settings.cos_endpoint,
                credentials=credentials,
                clock=ServerClock(self._database.clock),
                timeout=settings.request_timeout,
            )
            admission = Admission(
                settings.profile,
                self._database,
                credentials,
                self._notify,
                rate=settings.rate,
                quota_wait=settings.quota_wait,
            )
            yield RunContext(database=self._database, cvm=cvm, cos=cos, admission=admission)

    def _run_settings(
        self, batch: str | None, time_limit: float | None, *, forever: bool
    ) -> "RunSettings":
        from orchestrator.verification.bucket_access import VerifyMode
        from orchestrator.verification.resend_policy import ResendMode, ResolvePolicy
        from orchestrator.worker.run_settings import RunSettings

        settings = self.settings
        interval = settings.verify_interval
        return RunSettings(
            profile=settings.profile,
            batch=batch,
            concurrency=settings.concurrency,
            verify=VerifyMode(settings.verify),
            verify_interval=None if interval is None else timedelta(seconds=interval),
            request_timeout=timedelta(seconds=settings.request_timeout),
            resolve=ResolvePolicy(
                resend_after=timedelta(seconds=settings.resend_after),
                max_attempts=settings.max_attempts,
                export_deadline=timedelta(seconds=settings.export_deadline),
                resend=ResendMode(settings.resend),
            ),
            forever=forever,
            time_limit=time_limit,
        )


def _operator() -> str:
    """Return user and host, to record who decided an operation."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user id has no name, as in some containers
        user = f"user-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


async def _finish_when(stop: anyio.Event, worker: "Worker") -> None:
    await stop.wait()
    worker.finish()


async def upgrade_store(settings: Settings) -> tuple[str | None, str | None]:
    """Upgrade a store to this program's version; return its versions before and after.

    Raises:
        StoreError: the store is of a newer version, or a run works on it.
    """
    from orchestrator.job_queue.worker_registry import refuse_while_in_use

    database = Database(settings.sqlalchemy_url, SystemClock())
    try:
        schema = Schema(database)
        before = await schema.revision()
        if before is not None and before < HEAD:
            # a run that works on the store knows the columns by their old names
            await refuse_while_in_use(database)
        await schema.upgrade()
        return before, await schema.revision()
    finally:
        await database.close()
