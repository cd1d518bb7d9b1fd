"""Make jobs for tests through the program's own functions, and advance their time."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from orchestrator.cloud.error_classification import code_for_reply
from orchestrator.cloud.error_codes import code_for
from orchestrator.job_queue.claim import claim
from orchestrator.job_queue.claim import claim_query as make_claim_query
from orchestrator.job_queue.enqueue import enqueue
from orchestrator.job_states import JobState
from orchestrator.limits.rate_limiter import Permit, RateKey, RateLimiter
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import Lease, Outcome, Reply
from orchestrator.settings import Settings
from orchestrator.store import Database
from orchestrator.store.tables import UtcDateTime, attempts, events, jobs, metadata, objects, scopes
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import AttemptResult, record

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PROFILE, REGION, BUCKET, TESTER = "default", "ap-singapore", "backup-1250000000", "tester"
REGIONS = (REGION, "ap-tokyo", "ap-seoul")
EXPORT_RATE_KEY = RateKey("ExportImages", "cvm.example", PROFILE)
LEASE_DURATION = timedelta(seconds=45)
DEADLINE = timedelta(hours=6)
SETTINGS = Settings(max_attempts=5, export_deadline=DEADLINE)

CAP_REACHED = "LimitExceeded.ExportImageTaskLimitExceeded"
IMAGE_BUSY = "InvalidParameterValue.InvalidImageState"


@dataclass
class FakeClock:
    """A clock that moves only when a test advances it."""

    moment: datetime = NOON

    def now(self) -> datetime:
        """Return the current time of this clock."""
        return self.moment

    def advance(self, span: timedelta) -> None:
        """Move the clock forward."""
        self.moment += span


def make_request(number: int = 1, **fields: Any) -> ExportRequest:
    """Make a request; requests with different numbers have different images."""
    plain = ExportRequest(image_ids=(f"img-{number:08}",), region=REGION, bucket=BUCKET)
    return replace(plain, **fields)


def make_requests(count: int, *, first: int = 1, **fields: Any) -> list[ExportRequest]:
    """Make this many requests, each for another image."""
    return [make_request(number, **fields) for number in range(first, first + count)]


async def make_jobs(
    database: Database,
    requests: Sequence[ExportRequest] | None = None,
    *,
    sizes: Sequence[int] = (),
    described: bool = True,
    again: bool = False,
    batch: str = "night",
) -> list[int]:
    """Enqueue requests, by default one, and return the job ids in the same order.

    Args:
        sizes: GiB of each image, as DescribeImages would return them.
        described: whether the images are already described, so that the jobs can be claimed.
    """
    before = await _last_id(database)
    given = [make_request()] if requests is None else requests
    await enqueue(database, given, profile=PROFILE, batch=batch, again=again, actor=TESTER)
    async with database.write() as connection:
        moment = await database.now(connection)
        query = sa.select(jobs.c.id).where(jobs.c.id > before).order_by(jobs.c.id)
        ids = list((await connection.execute(query)).scalars())
        for position, job_id in enumerate(ids if described else ()):
            size = sizes[position] if sizes else 50
            this = jobs.update().where(jobs.c.id == job_id)
            await connection.execute(this.values(described_at=moment, size_gib=size))
    return ids


async def make_job(database: Database, state: JobState = JobState.QUEUED, **columns: Any) -> int:
    """Make a job and put it into a state, with the columns that this state needs."""
    number = await _last_id(database) + 1
    (job_id,) = await make_jobs(database, [make_request(number)])
    owner = {"owner": TESTER, "expires_at": await now(database) + LEASE_DURATION}
    held = owner if state is JobState.SENDING else {}
    await update_job(database, job_id, state=state, sent_at=await now(database), **held, **columns)
    return job_id


async def make_verified_job(database: Database, *, took: float, **columns: Any) -> int:
    """Make a verified job whose export took ``took`` seconds."""
    moment = await now(database)
    times = {"accepted_at": moment - timedelta(seconds=took), "finished_at": moment}
    given = {"task_id": "1", "size_gib": 50, **times, **columns}
    return await make_job(database, JobState.VERIFIED, **given)


async def make_traced_job(database: Database, *, took: float = 1.0, **columns: Any) -> int:
    """Make a job whose first trace was found ``took`` seconds after it was sent."""
    job_id = await make_verified_job(database, took=took, **columns)
    sent_at = (await read_job(database, job_id)).sent_at
    first_trace_at = sent_at + timedelta(seconds=took)
    await update_job(database, job_id, first_trace_at=first_trace_at)
    return job_id


async def _last_id(database: Database) -> int:
    async with database.read() as connection:
        query = sa.select(sa.func.coalesce(sa.func.max(jobs.c.id), 0))
        return int((await connection.execute(query)).scalar_one())


async def update_job(database: Database, job_id: int, **columns: Any) -> None:
    """Set columns of a job directly, without the checks of a transition."""
    async with database.write() as connection:
        await connection.execute(jobs.update().where(jobs.c.id == job_id).values(columns))


async def read_job(database: Database, job_id: int) -> Any:
    """Return the row of a job."""
    async with database.read() as connection:
        return (await connection.execute(sa.select(jobs).where(jobs.c.id == job_id))).one()


async def read_rows(database: Database, table: sa.Table, job_id: int) -> list[Any]:
    """Return the rows of a job in another table, in the order of their keys."""
    query = sa.select(table).where(table.c.job_id == job_id).order_by(*table.primary_key.columns)
    async with database.read() as connection:
        return list((await connection.execute(query)).all())


async def read_event_kinds(database: Database, job_id: int) -> list[str]:
    """Return the kinds of a job's events, oldest first."""
    return [event.kind for event in await read_rows(database, events, job_id)]


async def read_last_attempt(database: Database, job_id: int) -> Any:
    """Return the row of a job's latest attempt."""
    return (await read_rows(database, attempts, job_id))[-1]


async def read_scope(database: Database, region: str = REGION) -> Any:
    """Return the row of a scope."""
    async with database.read() as connection:
        query = sa.select(scopes).where(scopes.c.profile == PROFILE, scopes.c.region == region)
        return (await connection.execute(query)).one()


async def update_scope(database: Database, **columns: Any) -> None:
    """Set columns of all scopes directly."""
    async with database.write() as connection:
        await connection.execute(scopes.update().values(columns))


async def add_expected_objects(database: Database, job_id: int, *keys: str, **columns: Any) -> None:
    """Record object keys of a job; by default as expected after DescribeImages."""
    async with database.write() as connection:
        for key in keys:
            row = {"job_id": job_id, "key": key, "expected": True, **columns}
            await connection.execute(objects.insert().values(row))


async def now(database: Database) -> datetime:
    """Return the time of the store's clock."""
    async with database.read() as connection:
        return await database.now(connection)


async def advance_time(database: Database, **span: float) -> None:
    """Advance the time of the store and of this process.

    The clock of PostgreSQL cannot be set, so there all stored times are moved back instead.
    """
    passed = timedelta(**span)
    assert isinstance(database.clock, FakeClock)
    database.clock.advance(passed)
    if database.is_sqlite:
        return
    async with database.write() as connection:
        for table in set(metadata.tables.values()) - {events}:
            moments = [column for column in table.c if isinstance(column.type, UtcDateTime)]
            if moments:
                moved = {column: column - sa.literal(passed, sa.Interval) for column in moments}
                await connection.execute(table.update().values(moved))


def claim_query(
    permitted: sa.ColumnElement[bool] | None = None,
    is_tracked: Callable[[sa.FromClause], sa.ColumnElement[bool]] = lambda _table: sa.true(),
) -> sa.Select[Any]:
    """Return a query for the jobs that a claim can take.

    Args:
        permitted: condition on the table of jobs; by default every job of the account.
    """
    anything = sa.true() if permitted is None else permitted
    return make_claim_query(anything, is_tracked)


def export_rate_limiter(database: Database) -> RateLimiter:
    """Return the rate limiter of ExportImages, without a limit."""
    return RateLimiter(database, EXPORT_RATE_KEY, 0)


async def claim_with_permits(
    database: Database,
    want: sa.Select[Any] | None = None,
    regions: tuple[str, ...] = REGIONS,
    *,
    owner: str = TESTER,
    signed_at: datetime | None = None,
    limit: int = 1,
    suspected_regions: Collection[str] = (),
) -> list[tuple[Lease, Permit]]:
    """Claim jobs without a rate limit, each with a permit.

    Args:
        signed_at: the server's time; by default the time of the store.
    """
    return await claim(
        database,
        claim_query() if want is None else want,
        regions,
        owner=owner,
        profile=PROFILE,
        duration=LEASE_DURATION,
        rate_limiter=export_rate_limiter(database),
        signed_at=signed_at or await now(database),
        limit=limit,
        suspected_regions=suspected_regions,
    )


async def claim_all(
    database: Database,
    want: sa.Select[Any] | None = None,
    regions: tuple[str, ...] = REGIONS,
    *,
    owner: str = TESTER,
    limit: int = 100,
) -> list[Lease]:
    """Claim as many jobs as one claim takes, up to the limit."""
    claimed = await claim_with_permits(database, want, regions, owner=owner, limit=limit)
    return [lease for lease, _ in claimed]


async def try_claim(
    database: Database,
    want: sa.Select[Any] | None = None,
    regions: tuple[str, ...] = REGIONS,
    *,
    owner: str = TESTER,
) -> Lease | None:
    """Claim the next job; return None if there is none."""
    leases = await claim_all(database, want, regions, owner=owner, limit=1)
    return leases[0] if leases else None


async def claim_one(database: Database, *, owner: str = TESTER) -> Lease:
    """Claim the next job; fail if there is none."""
    lease = await try_claim(database, owner=owner)
    assert lease is not None
    return lease


def make_refusal(code: str, message: str = "no") -> Outcome:
    """Make the outcome of a request that was refused with a code."""
    return Outcome(code_for(code), message, request_id="request-1", http_status=200)


def make_acceptance(task_id: int = 2**63 + 1, *cos_paths: str) -> Outcome:
    """Make the outcome of an accepted request; its TaskId needs 64 bits."""
    paths = cos_paths or ("/img-00000001_system_snap-1.raw",)
    reply = Reply(200, request_id="request-1", task_id=task_id, cos_paths=paths)
    return Outcome(
        code_for_reply(reply),
        request_id=reply.request_id,
        http_status=200,
        task_id=task_id,
        cos_paths=paths,
    )


async def record_outcome(
    database: Database, lease: Lease, outcome: Outcome, *, is_end_visible: bool = False
) -> None:
    """Decide on an outcome and record it, as the worker does."""
    decision = decide(lease, outcome, jitter=0.0)
    rate_limiter = export_rate_limiter(database)
    await record(
        database, [AttemptResult(lease, outcome, decision, rate_limiter, is_end_visible)], DEADLINE
    )
