"""The composition root: settings become engine, clients, pace and worker, opened and closed.

What a single method works with is imported when it is called: to list jobs nobody waits for HTTP.
"""

import getpass
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
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
from orchestrator.reporting.lines import lines
from orchestrator.settings import Settings, load_settings
from orchestrator.store import Database, Schema

if TYPE_CHECKING:
    from orchestrator.cloud.clock_skew import ServerClock
    from orchestrator.cloud.credentials.base import CredentialSource
    from orchestrator.job_queue.enqueue import EnqueueResult
    from orchestrator.manifest.export_request import ExportRequest
    from orchestrator.operations.cancel import Cancel
    from orchestrator.operations.resolve_unknown import Verdict
    from orchestrator.operations.retry import Retry
    from orchestrator.reporting.run_summary import RunResult
    from orchestrator.reporting.status import Status
    from orchestrator.worker.run_settings import RunContext, RunSettings
    from orchestrator.worker.worker import Worker

_log = logging.getLogger("orchestrator")
_IDENTITY_SECONDS = 5.0


class Orchestrator:
    """A store of exports, and what can be done with it.

    Open it with ``async with``; a missing store is made, unless `create` is false.

    Args:
        database: SQLAlchemy URL or file path; by default what the settings say.
        settings: by default those of environment and configuration file.
        environ: where credentials are looked for.
        tell: takes sentences for a person; by default they are logged.
        create: make the tables where there are none.

    Raises:
        OrchestratorError: on opening, when the store cannot be used; the message says why.
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
        """Adds a job for each request that is not there yet; `again` adds duplicates too."""
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
        """Sends, waits and verifies until nothing can move; resumes what an earlier run left.

        Args:
            batch: only this one.
            time_limit: seconds after which nothing more is sent.
            forever: wait for more instead of ending.
            stop: when set, nothing more is sent, and what is in the air is waited for.

        Raises:
            CredentialError: there is work, and there are no keys to do it with.
        """
        from orchestrator.job_queue.clock_jump_recovery import reset_waits_after_clock_jump

        async with self._database.worked_on(
            partial(reset_waits_after_clock_jump, self._database, self._notify)
        ):
            return await self._run(batch, time_limit, stop, forever)

    async def _run(
        self, batch: str | None, time_limit: float | None, stop: anyio.Event | None, forever: bool
    ) -> "RunResult":
        from orchestrator.cloud.clock_skew import ServerClock
        from orchestrator.job_queue.worker_registry import instance
        from orchestrator.reporting.run_summary import Account
        from orchestrator.worker.worker import Worker

        began = time.monotonic()
        account = await Account.open(self._database, self.settings.profile, batch)
        if not account.has_work and not forever:
            for profile, count in (await account.others()).items():
                self._notify(f"{count} living jobs belong to profile {profile!r}, not to this one.")
            return await account.close(owner=None, seconds=0.0)
        clock = ServerClock(self._database.clock)
        credentials = await self._credentials(clock)
        await self._check_account(credentials)
        async with instance(self._database) as me, self._context(credentials, clock) as context:
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
                return await account.close(
                    owner=me.name,
                    seconds=time.monotonic() - began,
                    left=worker.eligibility.unfinished(),
                    timed_out=worker.timed_out,
                    blocked=tuple(context.admission.halts.active),
                )

    async def status(self, *, batch: str | None = None) -> "Status":
        """How things stand now."""
        from orchestrator.reporting.status import status

        return await status(self._database, batch=batch, rate=self.settings.rate)

    def history(
        self, wanted: JobFilter | None = None, *, limit: int | None = None
    ) -> AsyncIterator[Job]:
        """Jobs that the filter lets through, newest first."""
        return history(self._database, wanted or JobFilter(), limit=limit)

    def history_lines(
        self, fields: Sequence[str], wanted: JobFilter | None = None, *, limit: int | None = None
    ) -> AsyncIterator[str]:
        """The same as JSON Lines of these fields, many at a time: for a history of any length."""
        return lines(self._database, wanted or JobFilter(), fields, limit=limit)

    async def show(self, job: str) -> JobDetails | None:
        """One job, by number or tag, with all that happened to it."""
        return await job_details(self._database, job)

    async def settle(
        self, job: str, verdict: "Verdict", *, why: str, actor: str | None = None
    ) -> int:
        """Takes a person's word for what became of an unknown job; returns its number.

        Args:
            job: number or tag.
            why: what the person has seen; kept in the job's events.
            actor: who says so; by default the user of this process.

        Raises:
            UsageError: it is not one job, or not unknown.
        """
        from orchestrator.operations.resolve_unknown import settle

        return await settle(
            self._database,
            is_named((job,)),
            verdict,
            why=why,
            export_deadline=timedelta(seconds=self.settings.export_deadline),
            actor=actor or _operator(),
        )

    async def retry(
        self, wanted: JobFilter, *, dry_run: bool = False, actor: str | None = None
    ) -> "Retry":
        """Gives failed and cancelled jobs another try; what may run already is looked for first.

        Of several images of which some arrived, the missing ones become a job of their own.
        """
        from orchestrator.operations.retry import retry

        actor = actor or _operator()
        return await retry(self._database, matches(wanted), actor=actor, dry_run=dry_run)

    async def cancel(
        self, wanted: JobFilter, *, dry_run: bool = False, actor: str | None = None
    ) -> "Cancel":
        """Gives up jobs that wait in the queue; any other is left alone."""
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
        """Ask whose keys these are; where STS does not tell, the run goes on.

        Raises:
            CredentialError: they belong to another account than the profile did before.
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
                seconds=_IDENTITY_SECONDS,
            )
        except CredentialError as error:
            _log.debug("The account of these keys is not known: %s", error.message)
            return
        await check_account(self._database, self.settings.profile, account)

    @asynccontextmanager
    async def _context(
        self, credentials: "CredentialSource", clock: "ServerClock"
    ) -> AsyncIterator["RunContext"]:
        """Open the clients of both services.

        Args:
            clock: of the API; COS has one of its own, which must not date the API's signatures.
        """
        from orchestrator.cloud.clock_skew import ServerClock
        from orchestrator.cloud.cos import CosClient
        from orchestrator.cloud.cvm import CvmClient
        from orchestrator.cloud.http_client import open_http_client
        from orchestrator.limits.admission import Admission
        from orchestrator.limits.rate_limiter import RateLimiters
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
                RateLimiters(self._database, settings.rate),
                credentials,
                self._notify,
                quota_wait=settings.quota_wait,
            )
            yield RunContext(database=self._database, cvm=cvm, cos=cos, admission=admission)

    def _run_settings(
        self, batch: str | None, time_limit: float | None, *, forever: bool
    ) -> "RunSettings":
        from orchestrator.verification.bucket_permissions import VerifyMode
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
    """Who works at this machine, for the record of what a person decided."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a user id without a name, as in some containers
        user = f"user-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


async def _finish_when(stop: anyio.Event, worker: "Worker") -> None:
    await stop.wait()
    worker.finish()


async def upgrade_store(settings: Settings) -> tuple[str | None, str | None]:
    """Brings a store to this program's version; returns its versions before and after.

    Raises:
        StoreError: the store is of a newer version.
    """
    database = Database(settings.sqlalchemy_url, SystemClock())
    try:
        schema = Schema(database)
        before = await schema.revision()
        await schema.upgrade()
        return before, await schema.revision()
    finally:
        await database.close()
