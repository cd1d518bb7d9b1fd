"""Unknown jobs: resolved by what the bucket holds, or queued again once absence is proven.

An empty bucket proves nothing if the vendor begins to write late, names objects in another way than
documented, or hides uploads. So absence counts only in a bucket where an accepted job was found
under its tag, and only after twice the longest time that one of the last jobs took to leave its
first trace there. It never counts where this store has seen that objects are not under the tag, or
that listings are wrong.
"""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.clock import Clock, iso
from orchestrator.cloud import clock_skew
from orchestrator.cloud.cos import CosClient
from orchestrator.job_states import JobState
from orchestrator.learned_vendor_facts import NO, VendorFact, facts_about, longest_first_trace
from orchestrator.model import NOT_RULED_OUT, bucket_location
from orchestrator.settings import ResendMode, Settings
from orchestrator.store import Database, events
from orchestrator.store.tables import (
    any_current,
    bucket_location_column,
    jobs,
    objects,
    vendor_facts,
)
from orchestrator.store.transitions import Transition, apply_transition
from orchestrator.verification.bucket_trust import BucketTrust
from orchestrator.verification.object_lookup import LookupResult, look
from orchestrator.verification.tracked_jobs import (
    TrackedJob,
    first_trace_column,
    save_cos_paths,
    save_seen_objects,
)
from orchestrator.wording import plural

_SAFETY_FACTOR = 2

_NEEDED = (VendorFact.PREFIX_HONOURED, VendorFact.LISTING_TRUSTED)
"""Without one of these a listing under the tag proves nothing if it is empty."""

_NO_TRACE = "The bucket has no trace of this export"
_NOT_LISTED = "its listings are refused, and HEAD shows only names that were expected"


class AbsenceTracker:
    """Measures for how long the look-ups of this process have found nothing of an unknown job.

    It counts in memory, on the clock of this process. A clock that is set between two runs,
    or between the starts of two processes, can therefore never shorten the time in which an export
    may still leave its first object. After a restart it begins again.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._absent_since: dict[tuple[int, int], datetime] = {}
        """By id and attempt."""

    def absent_for(self, job: TrackedJob) -> timedelta:
        """Return the time since the first look-up that found nothing.

        The present look-up may be the first; then the time is 0.
        """
        now = self._clock.now()
        return now - self._absent_since.setdefault((job.job_id, job.attempt), now)

    def forget(self, job: TrackedJob) -> None:
        """Drop a job that is no longer unknown."""
        self._absent_since.pop((job.job_id, job.attempt), None)


async def look_up_unknown_job(
    database: Database,
    cos: CosClient,
    trust: BucketTrust,
    job: TrackedJob,
    settings: Settings,
    absence: AbsenceTracker,
    *,
    actor: str,
) -> JobState:
    """Look up an unknown job in the bucket once; return its state afterwards.

    Raises:
        CloudRefusal, httpx.HTTPError: the look-up failed, which proves nothing. Nothing is changed.
    """
    found = await look(cos, trust, job)
    await trust.save(database, job)  # before absence is decided on
    async with database.write() as connection:
        now = await database.now(connection)
        state = JobState.UNKNOWN
        if found:
            state = await reconcile(connection, job, found, settings, now, actor)
        elif found.is_listed or trust.is_listing_refused:
            absent_for = absence.absent_for(job) if found.is_listed else None
            state = await _record_absence(connection, job, settings, absent_for, now, actor)
    if state is not JobState.UNKNOWN:
        absence.forget(job)
    return state


async def reconcile(
    connection: AsyncConnection,
    job: TrackedJob,
    found: LookupResult,
    settings: Settings,
    now: datetime,
    actor: str,
) -> JobState:
    """Accept a job whose export was found in the bucket; its TaskId stays unknown."""
    reconciled = Transition(
        job.job_id,
        job.state,
        JobState.ACCEPTED,
        kind="reconciled",
        reason="found in the bucket",
        actor=actor,
        attempt=job.attempt,
        changes={
            "accepted_at": now,
            "deadline_at": now + settings.export_deadline,
            "due_at": now,
            "code": None,
            "message": None,
            "remedy": None,
            **first_trace_column(job, now, found.age),
        },
        details={
            "uploads": list(found.uploads),
            "objects": [facts.key for facts in found.objects],
        },
    )
    if not await apply_transition(connection, reconciled, at=now):
        return job.state
    keys = dict.fromkeys((*found.uploads, *(facts.key for facts in found.objects)))
    await save_cos_paths(connection, [(job.job_id, key, f"/{key}") for key in keys])
    await save_seen_objects(connection, job, found.objects, now)
    return JobState.ACCEPTED


async def required_absence(
    connection: AsyncConnection, job: TrackedJob, settings: Settings, *, is_listed: bool = True
) -> timedelta | str:
    """Return how long listings must show nothing before a resend.

    If the job is never resent, return the reason as a text.
    """
    facts = await facts_about(connection, job.profile, bucket_location(job.region, job.bucket))
    why = None
    if not job.is_locatable:
        why = "The keys of its objects are not known, so the bucket cannot be searched for them."
    elif not is_listed:
        why = f"{_NO_TRACE}, but {_NOT_LISTED}."
    elif job.exact_names:
        why = f"{_NO_TRACE}. With exact names that proves nothing."
    elif settings.resend is ResendMode.NEVER:
        why = f"{_NO_TRACE}; resending is off (resend = never)."
    elif any(facts.get(fact) == NO for fact in _NEEDED):
        why = (
            f"{_NO_TRACE}. That proves nothing: exports of this bucket were seen to have other "
            "names than asked for, or its listings to be wrong."
        )
    if why is not None:
        return why
    if settings.resend is ResendMode.ALWAYS:
        return settings.resend_after
    found = await longest_first_trace(connection, job.profile, job.region, job.bucket)
    if found is None:
        return (
            f"{_NO_TRACE}. No accepted export of this bucket has been found under its tag yet, so "
            "that does not prove that it never began."
        )
    longest, _ = found
    return max(settings.resend_after, _SAFETY_FACTOR * longest)


def left_to_operator(
    settings: Settings,
    now: Callable[[timedelta], sa.ColumnElement[datetime]],
    unlisted: Callable[[], Sequence[str]],
    table: sa.FromClause = jobs,
) -> sa.ColumnElement[bool]:
    """Return the condition for unknown jobs that are left to an operator.

    Only an operator or a late object can resolve them. They are looked up when they are due, but
    no run waits for that.

    Args:
        now: returns the time of the store, moved by an offset, as an expression.
        unlisted: returns the buckets whose listings are refused.
    """
    traced = jobs.alias("traced")
    is_bucket_proven = (
        sa.select(sa.literal(1))
        .select_from(traced)
        .where(
            traced.c.first_trace_at >= traced.c.sent_at,
            traced.c.profile == table.c.profile,
            traced.c.region == table.c.region,
            traced.c.bucket == table.c.bucket,
        )
        .correlate(table)
        .exists()
    )
    are_listings_useless = (
        sa.select(sa.literal(1))
        .where(
            vendor_facts.c.profile == table.c.profile,
            vendor_facts.c.subject == bucket_location_column(table),
            vendor_facts.c.fact.in_(_NEEDED),
            vendor_facts.c.value == NO,
        )
        .correlate(table)
        .exists()
    )
    is_never_resent = {
        ResendMode.NEVER: sa.true(),
        ResendMode.ALWAYS: table.c.exact_names | are_listings_useless,
        ResendMode.PROVEN: table.c.exact_names | ~is_bucket_proven | are_listings_useless,
    }
    long_ago = now(-settings.resend_after)
    is_absent = table.c.absent_since.is_not(None) & (table.c.absent_since <= long_ago)
    is_told_why = table.c.reason == NOT_RULED_OUT
    is_unlisted = bucket_location_column(table).in_(any_current(unlisted))
    # no look-up of a job without a key under its tag is answered there: its request counts instead
    prefix = table.c.object_prefix
    is_tagged = sa.func.substr(objects.c.key, 1, sa.func.length(prefix)) == prefix
    tagged = sa.select(objects.c.job_id).where(objects.c.job_id == table.c.id, is_tagged)
    is_silent = ~table.c.exact_names & ~tagged.correlate(table).exists()
    was_sent = sa.func.coalesce(table.c.absent_since, table.c.sent_at) <= long_ago
    return sa.and_(
        table.c.state == JobState.UNKNOWN,
        (is_absent & is_told_why & (is_never_resent[settings.resend] | is_unlisted))
        | (is_unlisted & was_sent & is_silent),
    )


async def _record_absence(
    connection: AsyncConnection,
    job: TrackedJob,
    settings: Settings,
    absent_for: timedelta | None,
    now: datetime,
    actor: str,
) -> JobState:
    """Queue the job again, or fail it, once its absence is proven; return its state.

    Args:
        absent_for: how long listings have not shown it; ``None`` if they are refused.
    """
    if job.absent_since is None:
        this = jobs.update().where(jobs.c.id == job.job_id, jobs.c.attempt == job.attempt)
        await connection.execute(this.values(absent_since=now))
        return job.state
    is_listed = absent_for is not None
    absent_for = now - job.absent_since if absent_for is None else absent_for
    if absent_for < settings.resend_after:
        return job.state
    required = await required_absence(connection, job, settings, is_listed=is_listed)
    if isinstance(required, str):
        await _leave_to_operator(connection, job, required, now, actor)
        return job.state
    if job.no_resend_before is not None:
        # a suspended process may still send its request until the signature has expired
        required += clock_skew.SIGNATURE_LIFETIME
    if absent_for < required:
        return job.state
    target, message = JobState.QUEUED, {}
    if job.attempts_charged >= settings.max_attempts:
        target = JobState.FAILED
        message = {
            "message": f"{plural(job.attempts_charged, 'request')} got no answer, and the bucket "
            "holds nothing of this job.",
            "remedy": "Check the image's state in the console; then `orchestrator retry "
            f"--job {job.job_id}`, which looks for a late object first.",
        }
    absent = Transition(
        job.job_id,
        JobState.UNKNOWN,
        target,
        kind="absent",
        reason="not in the bucket",
        actor=actor,
        attempt=job.attempt,
        known={"absent_since": job.absent_since},
        changes={"due_at": now, **message},
        details={"absent_since": iso(job.absent_since), "attempts": job.attempts_charged},
    )
    return target if await apply_transition(connection, absent, at=now) else job.state


async def _leave_to_operator(
    connection: AsyncConnection, job: TrackedJob, why: str, now: datetime, actor: str
) -> None:
    """Record once, with the job, why it is not sent again automatically."""
    remedy = (
        "Look for the export in the console and in the bucket; then "
        f"`orchestrator resolve {job.job_id} --as accepted|absent --why '...'`."
    )
    this = jobs.update().where(
        jobs.c.id == job.job_id,
        jobs.c.attempt == job.attempt,
        jobs.c.state == JobState.UNKNOWN,
        jobs.c.reason != NOT_RULED_OUT,
    )
    changed = await connection.execute(
        this.values(reason=NOT_RULED_OUT, message=why, remedy=remedy)
    )
    if changed.rowcount:
        event = events.Event(
            "not resent", actor, job.job_id, attempt=job.attempt, details={"message": why}
        )
        await events.append(connection, event, at=now)
