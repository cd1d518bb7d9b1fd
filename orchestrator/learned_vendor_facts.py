"""What this store has learned of the vendor: beliefs that were seen to hold, and measurements."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.store import upsert
from orchestrator.store.tables import TRACED, jobs, vendor_facts


class VendorFact(StrEnum):
    """Something that the vendor does not promise, or that differs from its documents."""

    PREFIX_HONOURED = "prefix honoured"
    """Objects of a job are under the prefix that its request asked for."""
    UPLOADS_VISIBLE = "uploads visible"
    """An export in progress can be seen as an open upload."""
    FIRST_TRACE = "time to first trace"
    """What `longest_first_trace` returns, in seconds. It is not stored here, but with the jobs."""
    HEAD_TRUSTED = "HEAD trusted"
    """A HEAD of a key that does not exist is answered with 404."""
    LISTING_TRUSTED = "listing trusted"
    """Listings return the keys under the prefix that was asked for, and no others."""
    COS_PATHS_FORM = "form of CosPaths"
    """How the answers of ExportImages write the keys of objects."""
    OBJECTS_COMPLETE = "objects complete"
    """An object is complete when it shows, and does not grow."""
    CLOCK_OFFSET = "clock offset"
    """Largest difference of a host's clock from this machine's, in seconds; ahead is positive."""


YES, NO = "yes", "no"
"""Values of the facts that are answers to a question."""

_NO_HOLDS = timedelta(days=1)
"""For so long "yes" does not replace "no": what failed once is not trusted because of one success,
which another process may have seen."""

_KNOWN = vendor_facts.select().where(
    vendor_facts.c.fact.in_(sorted(set(VendorFact) - {VendorFact.FIRST_TRACE}))
)
"""Without the facts that another version of this program may have recorded."""

_TRACED_JOBS = 50
"""Number of newest jobs of a bucket whose first traces count."""


@dataclass(frozen=True, slots=True)
class LearnedFact:
    """One row of what is known.

    Args:
        subject: the bucket (``region/bucket``) or the host that it was learned of.
        value: text whose meaning depends on the fact.
        seen_at: when it was last seen to hold.
    """

    profile: str
    subject: str
    fact: VendorFact
    value: str
    seen_at: datetime


async def record_fact(
    connection: AsyncConnection,
    profile: str,
    subject: str,
    fact: VendorFact,
    value: str,
    at: datetime,
) -> None:
    """Record a fact, in place of what was known before; but "no" stays for a day.

    Args:
        subject: the bucket (``region/bucket``) or the host.
        at: when it was seen to hold.
    """
    if value == YES:
        table = vendor_facts.c
        is_recent_no = sa.select(table.fact).where(
            *(table.profile == profile, table.subject == subject, table.fact == fact),
            *(table.value == NO, table.seen_at > at - _NO_HOLDS),
        )
        if (await connection.execute(is_recent_no)).first() is not None:
            return
    row = {"profile": profile, "subject": subject, "fact": fact, "value": value, "seen_at": at}
    await connection.execute(upsert(connection, vendor_facts, "value", "seen_at").values(row))


async def facts_about(
    connection: AsyncConnection, profile: str, subject: str
) -> Mapping[VendorFact, str]:
    """Return the value of each fact that is known of a bucket or host."""
    table = vendor_facts.c
    query = _KNOWN.where(table.profile == profile, table.subject == subject)
    return {VendorFact(row.fact): row.value for row in await connection.execute(query)}


async def longest_first_trace(
    connection: AsyncConnection, profile: str, region: str, bucket: str
) -> tuple[timedelta, datetime] | None:
    """Return the longest time from a request to its first trace, and when that was.

    A trace is an upload or an object. Only the newest jobs of the bucket count. The result is
    ``None`` without any.
    """
    query = (
        sa.select(jobs.c.sent_at, jobs.c.first_trace_at)
        .where(
            sa.text(TRACED),
            jobs.c.profile == profile,
            jobs.c.region == region,
            jobs.c.bucket == bucket,
        )
        .order_by(jobs.c.id.desc())
        .limit(_TRACED_JOBS)
    )
    rows = await connection.execute(query)
    times = [(row.first_trace_at - row.sent_at, row.first_trace_at) for row in rows]
    return max(times, default=None)


async def all_facts(connection: AsyncConnection) -> tuple[LearnedFact, ...]:
    """Return everything that is known, of all profiles, by profile, subject and fact."""
    facts = [
        LearnedFact(row.profile, row.subject, VendorFact(row.fact), row.value, row.seen_at)
        for row in await connection.execute(_KNOWN)
    ]
    for profile, subject in {(one.profile, one.subject) for one in facts}:
        region, _, bucket = subject.partition("/")
        if bucket and (longest := await longest_first_trace(connection, profile, region, bucket)):
            took, at = longest
            seconds = str(math.ceil(took.total_seconds()))
            facts.append(LearnedFact(profile, subject, VendorFact.FIRST_TRACE, seconds, at))
    return tuple(sorted(facts, key=lambda one: (one.profile, one.subject, one.fact)))
