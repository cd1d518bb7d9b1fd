"""The facade for CLI and Python callers: opens the store, and calls one function per operation.

`run` is imported when it is called, so that listing jobs does not wait for the import of the HTTP
client.
"""

import getpass
import logging
import os
import socket
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from typing import Self

import anyio

from orchestrator.clock import SystemClock
from orchestrator.errors import NoStoreError, StoreError
from orchestrator.job_queue.enqueue import EnqueueResult, enqueue
from orchestrator.job_queue.job_filter import check_printable, is_named, matches, require_batch
from orchestrator.job_queue.worker_registry import refuse_while_in_use
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import JobFilter
from orchestrator.operations import CancelResult, RetryResult, Verdict, cancel, resolve, retry
from orchestrator.reporting.history import Job, JobDetails, history, job_details
from orchestrator.reporting.run_summary import RunResult
from orchestrator.reporting.status import Status, status, unfinished_batches
from orchestrator.settings import Settings, load_settings
from orchestrator.store import Database, Schema
from orchestrator.store.migrations import HEAD

_log = logging.getLogger("orchestrator")


class Orchestrator:
    """A store of export jobs and the operations on it; use it with ``async with``.

    Operations record who decided: `actor`, by default the user of this process.

    Args:
        database: SQLAlchemy URL or file path; overrides the settings.
        settings: default: read from the environment and the configuration file.
        environ: variables to read settings and credentials from.
        notify: called with messages for the user; default: log them.
        create: create the store if it does not exist.
        read_only: only `status`, `history` and `show`: changes nothing, and works where this user
            may only read.

    Raises:
        NoStoreError: on entering, if there is no store and none is created.
        OrchestratorError: on entering, if the store cannot be used.
    """

    def __init__(
        self,
        database: str | None = None,
        *,
        settings: Settings | None = None,
        environ: Mapping[str, str] = os.environ,
        notify: Callable[[str], None] = _log.info,
        create: bool = True,
        read_only: bool = False,
    ) -> None:
        flags = {} if database is None else {"database_url": database}
        self.settings = settings or load_settings(flags, environ)
        self._environ = environ
        self._clock = SystemClock()
        self._notify = notify
        self._create = create and not read_only
        self._read_only = read_only

    async def __aenter__(self) -> Self:
        self._database = _open(
            self.settings, self._clock, create=self._create, read_only=self._read_only
        )
        try:
            await Schema(self._database).require(create=self._create)
        except BaseException:
            await self._database.close()
            raise
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._database.close()

    async def enqueue(
        self,
        requests: Iterable[ExportRequest],
        *,
        batch: str | None = None,
        again: bool = False,
    ) -> EnqueueResult:
        """Add a job for each request, except duplicates of existing jobs.

        Args:
            batch: name of the batch; default: a generated one.
            again: enqueue duplicates too.
        """
        check_printable(batch or "", "batch name")
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
    ) -> RunResult:
        """Send, wait and verify until no job can progress.

        This also continues what an earlier run left.

        Args:
            batch: only this batch.
            time_limit: seconds after which nothing more is sent.
            forever: wait for new jobs instead of returning.
            stop: set it to send nothing more, wait for the requests in flight, and return.

        Raises:
            CredentialError: there are jobs to do, but no usable credentials.
            UsageError: no job of the profile has this batch.
        """
        from orchestrator.worker.run_setup import run

        await self._database.check_sessions()
        if batch is not None:
            await require_batch(self._database, batch, profile=self.settings.profile)
        return await run(
            self._database,
            self.settings,
            self._environ,
            self._notify,
            batch=batch,
            time_limit=time_limit,
            forever=forever,
            stop=stop,
        )

    async def status(self, *, batch: str | None = None) -> Status:
        """Return counts per state, limits per scope, and the ETA of an active run.

        Args:
            batch: count only the jobs of this batch.

        Raises:
            UsageError: no job has this batch.
        """
        if batch is not None:
            await require_batch(self._database, batch)
        batches = None if batch is None else {batch}
        return await status(self._database, batches=batches, rate=self.settings.rate)

    async def progress(self, batches: Collection[str]) -> Status:
        """Return the same, with the counts of this profile's jobs in these batches.

        Raises:
            UsageError: a name has a control character, or bytes that are not UTF-8.
        """
        for batch in batches:
            check_printable(batch, "batch name")
        profile, rate = self.settings.profile, self.settings.rate
        return await status(self._database, batches=batches, profile=profile, rate=rate)

    async def unfinished_batches(self) -> frozenset[str]:
        """Return the batches in which a run of this profile has work."""
        return await unfinished_batches(self._database, self.settings.profile)

    def history(
        self, wanted: JobFilter | None = None, *, limit: int | None = None
    ) -> AsyncIterator[Job]:
        """Yield the jobs that match the filter, newest first."""
        return history(self._database, wanted or JobFilter(), limit=limit)

    async def show(self, job: str) -> JobDetails | None:
        """Return one job by id or tag, with its attempts, objects and events."""
        return await job_details(self._database, job)

    async def resolve(
        self, job: str, verdict: Verdict, *, why: str, actor: str | None = None
    ) -> int:
        """Resolve an unknown job by what an operator has found out; return its id.

        Args:
            job: id or tag.
            verdict: ``accepted``: the export is running or has run; ``absent``: it never began.
            why: the operator's evidence; stored in the job's events.

        Raises:
            UsageError: another verdict, not exactly one job, not an unknown job, or too early for
                ``absent``.
        """
        return await resolve(
            self._database,
            is_named((job,)),
            verdict,
            why=why,
            export_deadline=self.settings.export_deadline,
            actor=actor or _operator(),
        )

    async def retry(
        self, wanted: JobFilter, *, dry_run: bool = False, actor: str | None = None
    ) -> RetryResult:
        """Retry failed and cancelled jobs, or with `dry_run` only count them.

        Where an export may exist, the bucket is searched first. Where a request delivered only some
        of its images, the missing ones become a new job.
        """
        who = actor or _operator()
        return await retry(self._database, matches(wanted), actor=who, dry_run=dry_run)

    async def cancel(
        self, wanted: JobFilter, *, dry_run: bool = False, actor: str | None = None
    ) -> CancelResult:
        """Cancel queued jobs, or with `dry_run` only count them; others are skipped."""
        who = actor or _operator()
        return await cancel(self._database, matches(wanted), actor=who, dry_run=dry_run)


def _operator() -> str:
    """Return user and host, to record who decided an operation."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # the user id has no name, as in some containers
        user = f"user-{os.getuid()}"
    return f"{user}@{socket.gethostname()}"


def _open(
    settings: Settings, clock: SystemClock, *, create: bool = True, read_only: bool = False
) -> Database:
    try:
        return Database(
            settings.sqlalchemy_url,
            clock,
            create=create,
            read_only=read_only,
            allow_network=settings.allow_network_store,
        )
    except StoreError as error:
        if isinstance(error, NoStoreError) or "database_url" in settings.model_fields_set:
            raise
        raise StoreError(
            error.message, f"{error.remedy} The default path comes from HOME or XDG_DATA_HOME."
        ) from error


async def upgrade_store(settings: Settings) -> tuple[str | None, str | None]:
    """Upgrade a store to this program's version; return the old and the new version.

    Raises:
        StoreError: the store is of a newer version, or a run works on it.
    """
    database = _open(settings, SystemClock())
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
