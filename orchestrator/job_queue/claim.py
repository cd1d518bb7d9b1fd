"""Claim jobs: the committed claim is the durable intent to send them.

After a crash, therefore, only claimed jobs can have an unknown effect.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import fields
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from orchestrator.job_states import UNDER_WAY, JobState
from orchestrator.limits import concurrency_limit
from orchestrator.limits.rate_limiter import Permit, RateLimiter
from orchestrator.model import ExportOrder, ImageFormat, Lease
from orchestrator.store import Database
from orchestrator.store.tables import CLAIMABLE, UtcDateTime, attempts, job_images, jobs
from orchestrator.store.transitions import Transition, write_transitions

BROKEN_IMAGE_STATES = ("CREATEFAILED", "IMPORTFAILED")
"""States of images that can never be exported, although the vendor reports them as busy."""


def claim_query(
    sendable: sa.ColumnElement[bool],
    is_tracked: Callable[[sa.FromClause], sa.ColumnElement[bool]],
) -> sa.Select[Any]:
    """Return the query for sendable jobs.

    The order is by priority, then largest first, then oldest first. The columns have the names of
    the fields of `Lease` and `ExportOrder`; the parameters are ``profile``, ``region``, ``now`` and
    ``limit``. A job waits while another job of this store exports one of its images, because the
    vendor exports an image once at a time. It does not wait for a job whose end this run cannot
    see.

    Args:
        sendable: condition on the table of jobs.
        is_tracked: returns, for a table of jobs, the condition for those whose end will be seen.
    """
    other = jobs.alias("other")
    mine, theirs = job_images.alias("mine"), job_images.alias("theirs")
    shares_an_image = (
        sa.select(other.c.id)
        .select_from(mine)
        .join(theirs, theirs.c.image_id == mine.c.image_id)
        .join(other, other.c.id == theirs.c.job_id)
        .where(
            mine.c.job_id == jobs.c.id,
            other.c.id != jobs.c.id,
            other.c.profile == jobs.c.profile,
            other.c.region == jobs.c.region,
            other.c.state.in_(sorted(UNDER_WAY)),
            (other.c.state == JobState.SENDING) | is_tracked(other),
        )
        .correlate(jobs)
    )
    broken = (
        sa.select(job_images.c.job_id)
        .where(job_images.c.job_id == jobs.c.id, job_images.c.state.in_(BROKEN_IMAGE_STATES))
        .exists()
    )
    not_shown = (
        sa.select(job_images.c.job_id)
        .where(job_images.c.job_id == jobs.c.id, job_images.c.state.is_(None))
        .exists()
    )
    order = (
        *(jobs.c.region, jobs.c.image_ids, jobs.c.bucket, jobs.c.format),
        *(jobs.c.object_prefix.label("name_prefix"), jobs.c.only_root_disk, jobs.c.role_name),
    )
    lease = (
        *(jobs.c.id.label("job_id"), (jobs.c.attempt + 1).label("attempt"), jobs.c.profile),
        *(jobs.c.maybe_applied, jobs.c.exact_names, jobs.c.attempts_charged, jobs.c.deferrals),
        *(broken.label("image_broken"), (~not_shown).label("images_shown")),
        jobs.c.code.label("last_code"),
    )
    is_due = jobs.c.due_at <= sa.bindparam("now", type_=UtcDateTime)
    return (
        sa.select(*order, *lease)
        .where(
            sa.text(CLAIMABLE),
            jobs.c.profile == sa.bindparam("profile"),
            jobs.c.region == sa.bindparam("region"),
            # as a CASE: otherwise SQLite would use the index on due_at and sort all due jobs
            sa.case((is_due, sa.true()), else_=sa.false()),
            sendable,
            ~shares_an_image.exists(),
        )
        .order_by(jobs.c.priority.desc(), jobs.c.size_gib.desc(), jobs.c.id)
        .limit(sa.bindparam("limit", type_=sa.Integer))
        .with_for_update(of=jobs, skip_locked=True)
    )


def in_order_of_probes(query: sa.Select[Any]) -> sa.Select[Any]:
    """Return a query for the same jobs, those with the fewest deferrals first.

    So every job is tried once before one is tried again. The order among equals is random, because
    similar jobs are often next to each other.
    """
    return query.order_by(None).order_by(jobs.c.deferrals, sa.func.random())


async def claim(
    database: Database,
    next_jobs: sa.Select[Any],
    regions: Sequence[str],
    *,
    owner: str,
    profile: str,
    duration: timedelta,
    rate_limiter: RateLimiter,
    signed_at: datetime,
    limit: int = 1,
    suspected_regions: Collection[str] = (),
) -> list[tuple[Lease, Permit]]:
    """Claim the next jobs that may be sent now, each with a permit.

    One transaction takes permits of the shared rate limit, counts the running exports of each
    region from the job rows, takes jobs only where the concurrency limit has room or needs a
    probe, and stamps owner, attempt and expiry.

    Args:
        next_jobs: what `claim_query` returns.
        regions: in the order of their turn; a later region gets what the earlier ones leave.
        owner: registration of the process that will send.
        duration: of the lease.
        rate_limiter: provides a permit for each claimed job.
        signed_at: the server's time, for the signatures of these attempts.
        limit: maximum number of jobs.
        suspected_regions: those that may be the cause of refusals; their order is that of probes.
    """
    async with database.write() as connection:
        free = await rate_limiter.free_permits(connection, limit)
        now, leases = free.now, list[Lease]()
        if free.permits:
            for found in await concurrency_limit.limits_with_waiting_jobs(
                connection, profile, regions, now
            ):
                sendable = found.sendable(now, len(free.permits) - len(leases))
                if sendable == 0:
                    continue
                stamps = {
                    "owner": owner,
                    "probe": not found.has_free_slot,
                    "claimed_at": now,
                    "signed_at": signed_at,
                    "expires_at": now + duration,
                }
                here = {"profile": profile, "region": found.region, "now": now}
                query = next_jobs
                if found.region in suspected_regions:
                    query = in_order_of_probes(next_jobs)
                rows = await connection.execute(query, {**here, "limit": sendable})
                images: set[str] = set()
                for row in rows.mappings():
                    # of several jobs that share an image only the first
                    if images.isdisjoint(row["image_ids"]):
                        images.update(row["image_ids"])
                        leases.append(_lease(row, stamps))
        if leases:
            # this transaction has read and locked their rows
            await write_transitions(connection, [_taking(lease) for lease in leases], at=now)
            await connection.execute(attempts.insert(), [_attempt(lease) for lease in leases])
        for lease in leases:
            if lease.probe:
                await concurrency_limit.begin_probe(connection, lease)
        permits = await rate_limiter.take_permits(connection, free, len(leases))
    return list(zip(leases, permits, strict=True))


def _lease(row: sa.RowMapping, stamps: dict[str, Any]) -> Lease:
    values = {**row, "image_ids": tuple(row["image_ids"]), "format": ImageFormat(row["format"])}
    order = ExportOrder(**{field.name: values.pop(field.name) for field in fields(ExportOrder)})
    return Lease(order=order, **values, **stamps)


def _taking(lease: Lease) -> Transition:
    return Transition(
        lease.job_id,
        JobState.QUEUED,
        JobState.SENDING,
        kind="claimed",
        reason="probe" if lease.probe else "sending",
        actor=lease.owner,
        attempt=lease.attempt - 1,
        changes={
            "attempt": lease.attempt,
            "owner": lease.owner,
            "expires_at": lease.expires_at,
            "sent_at": lease.claimed_at,
            # the TaskId of an earlier attempt stays in that attempt's row
            "task_id": None,
        },
    )


def _attempt(lease: Lease) -> dict[str, Any]:
    same = ("job_id", "owner", "probe", "claimed_at", "signed_at", "expires_at")
    return {"number": lease.attempt, **{name: getattr(lease, name) for name in same}}
