"""Jobs for tests, made by the program's own ways, and a way to let time pass over them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa

from orchestrator.cloud.error_classification import code_for_reply
from orchestrator.cloud.error_codes import code_for
from orchestrator.job_queue.claim import ClaimQuery, ClaimSettings, claim
from orchestrator.job_queue.claim import wanted as claim_of
from orchestrator.job_queue.enqueue import enqueue
from orchestrator.job_states import JobState
from orchestrator.limits.rate_limiter import RateKey, RateLimiters
from orchestrator.manifest.export_request import ExportRequest
from orchestrator.model import Lease, Outcome, Reply
from orchestrator.store import Database
from orchestrator.store.tables import UtcDateTime, attempts, events, jobs, metadata, objects, scopes
from orchestrator.worker.outcome_policy import decide
from orchestrator.worker.outcome_recorder import Answer, record

NOON = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
PROFILE, REGION, BUCKET, TESTER = "default", "ap-singapore", "backup-1250000000", "tester"
REGIONS = (REGION, "ap-tokyo", "ap-seoul")
EXPORT_RATE_KEY = RateKey("ExportImages", "cvm.example", PROFILE)
LEASE_DURATION = timedelta(seconds=45)
DEADLINE = timedelta(hours=6)

CAP_REACHED = "LimitExceeded.ExportImageTaskLimitExceeded"
IMAGE_BUSY = "InvalidParameterValue.InvalidImageState"


@dataclass
class FakeClock:
    """A clock that stands where it was put."""

    moment: datetime = NOON

    def now(self) -> datetime:
        """Where it was put."""
        return self.moment

    def advance(self, span: timedelta) -> None:
        """Puts it forward."""
        self.moment += span


def make_request(number: int = 1, **fields: Any) -> ExportRequest:
    """One request; its number makes it differ from others."""
    plain = ExportRequest(image_ids=(f"img-{number:08}",), region=REGION, bucket=BUCKET)
    return replace(plain, **fields)


def make_requests(count: int, *, first: int = 1, **fields: Any) -> list[ExportRequest]:
    """So many requests that differ in their image."""
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
    """Enqueues requests, by default one; the jobs' ids, in the requests' order.

    Args:
        sizes: GiB of each, as DescribeImages would have told them.
        described: they may be claimed at once.
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
    """One job, put into a state as if it had lived through all before it."""
    number = await _last_id(database) + 1
    (job_id,) = await make_jobs(database, [make_request(number)])
    owner = {"owner": TESTER, "expires_at": await now(database) + LEASE_DURATION}
    held = owner if state is JobState.SENDING else {}
    await update_job(database, job_id, state=state, sent_at=await now(database), **held, **columns)
    return job_id


async def make_verified_job(database: Database, *, took: float, **columns: Any) -> int:
    """A job whose export took so many seconds until it was seen to have ended."""
    moment = await now(database)
    times = {"accepted_at": moment - timedelta(seconds=took), "finished_at": moment}
    given = {"task_id": "1", "size_gib": 50, **times, **columns}
    return await make_job(database, JobState.VERIFIED, **given)


async def make_traced_job(database: Database, *, took: float = 1.0, **columns: Any) -> int:
    """Make a job whose first trace was found ``took`` seconds after its request was sent."""
    job_id = await make_verified_job(database, took=took, **columns)
    sent_at = (await read_job(database, job_id)).sent_at
    times = {"trace_from": sent_at, "first_trace_at": sent_at + timedelta(seconds=took)}
    await update_job(database, job_id, **times)
    return job_id


async def _last_id(database: Database) -> int:
    async with database.read() as connection:
        query = sa.select(sa.func.coalesce(sa.func.max(jobs.c.id), 0))
        return int((await connection.execute(query)).scalar_one())


async def update_job(database: Database, job_id: int, **columns: Any) -> None:
    """Sets columns of a job, past every guard."""
    async with database.write() as connection:
        await connection.execute(jobs.update().where(jobs.c.id == job_id).values(columns))


async def read_job(database: Database, job_id: int) -> Any:
    """The row of a job."""
    async with database.read() as connection:
        return (await connection.execute(sa.select(jobs).where(jobs.c.id == job_id))).one()


async def read_rows(database: Database, table: sa.Table, job_id: int) -> list[Any]:
    """The rows of a job in another table, in the order of their keys."""
    query = sa.select(table).where(table.c.job_id == job_id).order_by(*table.primary_key.columns)
    async with database.read() as connection:
        return list((await connection.execute(query)).all())


async def read_event_kinds(database: Database, job_id: int) -> list[str]:
    """What has happened to a job, in order."""
    return [event.kind for event in await read_rows(database, events, job_id)]


async def read_last_attempt(database: Database, job_id: int) -> Any:
    """The row of a job's latest attempt."""
    return (await read_rows(database, attempts, job_id))[-1]


async def read_scope(database: Database, region: str = REGION) -> Any:
    """The row of a scope."""
    async with database.read() as connection:
        query = sa.select(scopes).where(scopes.c.profile == PROFILE, scopes.c.region == region)
        return (await connection.execute(query)).one()


async def update_scope(database: Database, **columns: Any) -> None:
    """Sets columns of a scope, past every guard."""
    async with database.write() as connection:
        await connection.execute(scopes.update().values(columns))


async def add_expected_objects(database: Database, job_id: int, *keys: str, **columns: Any) -> None:
    """Writes down keys of a job, by default as those that DescribeImages let us expect."""
    async with database.write() as connection:
        for key in keys:
            row = {"job_id": job_id, "key": key, "expected": True, **columns}
            await connection.execute(objects.insert().values(row))


async def now(database: Database) -> datetime:
    """The moment on the store's clock."""
    async with database.read() as connection:
        return await database.now(connection)


async def advance_time(database: Database, **span: float) -> None:
    """Lets time pass.

    PostgreSQL's clock cannot be put forward, so there everything that was written moves back.
    """
    passed = timedelta(**span)
    if database.is_sqlite:
        assert isinstance(database.clock, FakeClock)
        database.clock.advance(passed)
        return
    async with database.write() as connection:
        for table in set(metadata.tables.values()) - {events}:
            moments = [column for column in table.c if isinstance(column.type, UtcDateTime)]
            if moments:
                moved = {column: column - sa.literal(passed, sa.Interval) for column in moments}
                await connection.execute(table.update().values(moved))


def claim_query(
    permitted: sa.ColumnElement[bool] | None = None,
    watched: Callable[[sa.FromClause], sa.ColumnElement[bool]] = lambda _table: sa.true(),
) -> ClaimQuery:
    """What a claim may take; by default anything of the account."""
    anything = sa.true() if permitted is None else permitted
    return claim_of(PROFILE, anything, watched)


def claim_settings(database: Database, owner: str = TESTER) -> ClaimSettings:
    """Who claims in a stream of requests without a limit."""
    return ClaimSettings(owner, LEASE_DURATION, RateLimiters(database, 0).for_key(EXPORT_RATE_KEY))


async def claim_all(
    database: Database,
    want: ClaimQuery | None = None,
    regions: tuple[str, ...] = REGIONS,
    *,
    owner: str = TESTER,
    limit: int = 100,
) -> list[Lease]:
    """Claims all that one claim takes."""
    moment, who = await now(database), claim_settings(database, owner)
    claimed = await claim(
        database, who, want or claim_query(), regions, signed_at=moment, limit=limit
    )
    return [lease for lease, _ in claimed]


async def try_claim(
    database: Database,
    want: ClaimQuery | None = None,
    regions: tuple[str, ...] = REGIONS,
    *,
    owner: str = TESTER,
) -> Lease | None:
    """Claims the next job, if there is one."""
    leases = await claim_all(database, want, regions, owner=owner, limit=1)
    return leases[0] if leases else None


async def claim_one(database: Database, *, owner: str = TESTER) -> Lease:
    """Claims the next job, which must be there."""
    lease = await try_claim(database, owner=owner)
    assert lease is not None
    return lease


def make_refusal(code: str, message: str = "no") -> Outcome:
    """An answer with a code."""
    return Outcome(code_for(code), message, request_id="request-1", http_status=200)


def make_acceptance(task_id: int = 2**63 + 1, *cos_paths: str) -> Outcome:
    """An answer with a task whose number needs all of its 64 bits."""
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
    """Decides and records an outcome, as the worker does."""
    decision = decide(lease, outcome, max_attempts=5, jitter=0.0)
    rate_limiter = claim_settings(database).rate_limiter
    await record(
        database, [Answer(lease, outcome, decision, rate_limiter, is_end_visible)], DEADLINE
    )
