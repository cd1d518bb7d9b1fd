"""The database tables. A test checks that a migrated database has exactly these."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from orchestrator.job_states import JobState
from orchestrator.model import ImageFormat


class UtcDateTime(sa.TypeDecorator[datetime]):
    """An aware datetime in UTC: sortable text in SQLite, ``timestamptz`` in PostgreSQL."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert the value to UTC, because SQLite stores it without an offset."""
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Make the value aware; SQLite returns it without an offset."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


def current(moment: Callable[[], datetime]) -> sa.BindParameter[datetime]:
    """Return a parameter for a time; each execution of the query asks for its value."""
    return sa.bindparam("moment", callable_=moment, type_=UtcDateTime, unique=True)


def any_current(values: Callable[[], Collection[str]]) -> sa.BindParameter[Collection[str]]:
    """Return a parameter for the list of an IN; each execution asks for its values."""
    return sa.bindparam("list", callable_=values, type_=sa.Text, expanding=True, unique=True)


def _one_of(column: str, values: type[JobState] | type[ImageFormat]) -> str:
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)

CLAIMABLE = "jobs.state = 'queued' AND jobs.described_at IS NOT NULL"
UNDESCRIBED = "jobs.state = 'queued' AND jobs.described_at IS NULL"
TRACED = "jobs.first_trace_at >= jobs.sent_at"
TRACKED = "jobs.state IN ('accepted', 'unknown')"
ENDED = "jobs.state = 'verified' AND jobs.accepted_at IS NOT NULL"
"""Conditions of the partial indexes.

SQLite uses a partial index only for a query that has its condition. So queries repeat these texts
word for word.
"""


def _index_where(
    name: str, condition: str, *columns: str | sa.ColumnElement[Any], **options: Any
) -> sa.Index:
    """Return a partial index: it holds only the jobs for which the condition is true."""
    where = sa.text(condition.replace("jobs.", ""))
    return sa.Index(name, *columns, sqlite_where=where, postgresql_where=where, **options)


_Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("tag", sa.Text, nullable=False, unique=True, comment="part of its object keys"),
    sa.Column("object_prefix", sa.Text, nullable=False, comment="prefix of its object keys"),
    sa.Column("batch", sa.Text, nullable=False),
    sa.Column("profile", sa.Text, nullable=False, comment="name of the account in this program"),
    sa.Column("region", sa.Text, nullable=False),
    sa.Column("bucket", sa.Text, nullable=False),
    sa.Column("format", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False),
    sa.Column("exact_names", sa.Boolean, nullable=False),
    sa.Column("only_root_disk", sa.Boolean, nullable=False),
    sa.Column("role_name", sa.Text),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("not_before", UtcDateTime, comment="earliest time to send, as requested"),
    # a copy of what `job_images` has in rows: the history needs no second query for it
    sa.Column("image_ids", sa.JSON, nullable=False),
    sa.Column("fingerprint", sa.Text, nullable=False, comment="equal for equal requests"),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False, comment="why it is in this state"),
    sa.Column("due_at", UtcDateTime, nullable=False, comment="earliest time to send or look up"),
    sa.Column("described_at", UtcDateTime, comment="when DescribeImages was asked for its disks"),
    sa.Column("size_gib", sa.Integer, nullable=False, comment="sum of all its disks; 0 is unknown"),
    sa.Column("attempt", sa.Integer, nullable=False, comment="last attempt; fences its writes"),
    sa.Column("attempts_charged", sa.Integer, nullable=False, comment="attempts that counted"),
    sa.Column("deferrals", sa.Integer, nullable=False, comment="consecutive postponements"),
    sa.Column("owner", sa.Text, comment="the process that holds the lease"),
    sa.Column("expires_at", UtcDateTime, comment="end of the lease"),
    sa.Column(
        "maybe_applied", sa.Boolean, nullable=False, comment="an attempt may have taken effect"
    ),
    sa.Column(
        "absent_since",
        UtcDateTime,
        comment="first lookup since the lost answer that found nothing",
    ),
    sa.Column(
        "no_resend_before", UtcDateTime, comment="an older request may still be sent until then"
    ),
    sa.Column("deadline_at", UtcDateTime, comment="an accepted export counts as running until"),
    sa.Column("task_id", sa.Text, comment="unsigned 64-bit, larger than the databases' integers"),
    sa.Column("request_id", sa.Text),
    sa.Column("code", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("remedy", sa.Text),
    sa.Column("warnings", sa.JSON(none_as_null=True), comment="sentences; none if null"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("sent_at", UtcDateTime),
    sa.Column(
        "first_trace_at",
        UtcDateTime,
        comment="when an object or upload was first found under its tag",
    ),
    sa.Column("accepted_at", UtcDateTime),
    sa.Column("finished_at", UtcDateTime),
    sa.CheckConstraint(_one_of("state", JobState), name="state"),
    sa.CheckConstraint(_one_of("format", ImageFormat), name="format"),
    sa.CheckConstraint("(state = 'sending') = (owner IS NOT NULL)", name="owner"),
    sa.Index("ix_jobs_scope", "state", "profile", "region", "reason"),
    _index_where(
        "ix_jobs_claim",
        CLAIMABLE,
        *("profile", "region", sa.desc("priority"), sa.desc("size_gib"), "id", "due_at"),
    ),
    _index_where("ix_jobs_due", CLAIMABLE, "profile", "region", "due_at"),
    _index_where(
        "ix_jobs_describe",
        UNDESCRIBED,
        *("profile", "region", sa.desc("priority"), "id"),
    ),
    _index_where("ix_jobs_look", TRACKED, "due_at"),
    _index_where("ix_jobs_ended", ENDED, "profile", "region", "finished_at"),
    _index_where("ix_jobs_traced", TRACED, "profile", "region", "bucket", "id"),
    sa.Index("ix_jobs_batch", "batch", "state", "reason", "profile"),
    # What a filter of the history can name, in the order of its pages. A filter that few jobs match
    # reads this index from end to end, and not the table, which is five times as large.
    sa.Index(
        "ix_jobs_history",
        *("id", "batch", "state", "region", "bucket", "task_id", "attempt", "code", "created_at"),
    ),
    sa.Index("ix_jobs_fingerprint", "fingerprint"),
)

job_images = sa.Table(
    "job_images",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("image_id", sa.Text, nullable=False),
    sa.Column("state", sa.Text, comment="as DescribeImages returned it before the first send"),
    sa.Index(
        "ix_job_images_image_id",
        *("image_id", "job_id"),
        # lets PostgreSQL use it for prefix patterns in any locale
        postgresql_ops={"image_id": "text_pattern_ops"},
    ),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("probe", sa.Boolean, nullable=False, comment="sent to test the concurrency limit"),
    sa.Column("claimed_at", UtcDateTime, nullable=False),
    sa.Column("signed_at", UtcDateTime, nullable=False, comment="time of the vendor's clock"),
    sa.Column("expires_at", UtcDateTime, nullable=False),
    sa.Column("answered_at", UtcDateTime),
    sa.Column("code", sa.Text),
    sa.Column("reaction", sa.Text),
    sa.Column("effect", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("http_status", sa.Integer),
    sa.Column("request_id", sa.Text),
    sa.Column("task_id", sa.Text),
    sa.Index("ix_attempts_owner", "owner"),
)

objects = sa.Table(
    "objects",
    metadata,
    sa.Column("job_id", sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("key", sa.Text, primary_key=True, comment="without a leading slash"),
    sa.Column("expected", sa.Boolean, nullable=False, comment="computed before the first send"),
    sa.Column("cos_path", sa.Text, comment="as the vendor returned it"),
    sa.Column("disk_gib", sa.Integer),
    sa.Column("baseline_etag", sa.Text, comment="of the object there before the first send"),
    sa.Column("size", sa.BigInteger, comment="bytes"),
    sa.Column("etag", sa.Text),
    sa.Column("crc64", sa.Text),
    sa.Column("storage_class", sa.Text),
    sa.Column("last_modified", UtcDateTime),
    sa.Column("seen_at", UtcDateTime),
)

events = sa.Table(
    "events",
    metadata,
    sa.Column("id", _Id, primary_key=True),
    sa.Column("job_id", sa.ForeignKey("jobs.id")),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("from_state", sa.Text),
    sa.Column("to_state", sa.Text),
    sa.Column("attempt", sa.Integer),
    sa.Column("actor", sa.Text, nullable=False, comment="the process or the operator"),
    sa.Column("details", sa.JSON, nullable=False),
    sa.Index("ix_events_job_id", "job_id"),
)

scopes = sa.Table(
    "scopes",
    metadata,
    sa.Column("profile", sa.Text, primary_key=True),
    sa.Column("region", sa.Text, primary_key=True),
    sa.Column("ceiling", sa.Integer, comment="exports that may run; null before any refusal"),
    sa.Column(
        "misses", sa.Integer, nullable=False, comment="refused probes less accepted ones, never < 0"
    ),
    sa.Column("full_since", UtcDateTime),
    sa.Column("probe_at", UtcDateTime, comment="earliest time of the next probe"),
)

rates = sa.Table(
    "rates",
    metadata,
    sa.Column("profile", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, primary_key=True, comment="of the endpoint"),
    sa.Column("action", sa.Text, primary_key=True),
    sa.Column("next_at", UtcDateTime, nullable=False, comment="earliest time of the next request"),
    sa.Column("pace", sa.Float, comment="requests per second after the last slow-down"),
    sa.Column("slowed_at", UtcDateTime),
)

instances = sa.Table(
    "instances",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
)

accounts = sa.Table(
    "accounts",
    metadata,
    sa.Column("profile", sa.Text, primary_key=True),
    sa.Column("account_id", sa.Text, nullable=False, comment="UIN of the main account"),
    sa.Column("seen_at", UtcDateTime, nullable=False),
)

vendor_facts = sa.Table(
    "vendor_facts",
    metadata,
    sa.Column("profile", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True, comment="region/bucket, or a host"),
    sa.Column("fact", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False, comment="when it was last seen to hold"),
)

run_warnings = sa.Table(
    "run_warnings",
    metadata,
    sa.Column("profile", sa.Text, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True, comment="what the warning is about"),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("since", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False, comment="when it was last seen to hold"),
)


def bucket_location_column(table: sa.FromClause = jobs) -> sa.ColumnElement[str]:
    """Return `orchestrator.model.bucket_location` as an expression on a jobs table."""
    location: sa.ColumnElement[str] = table.c.region + "/" + table.c.bucket
    return location
