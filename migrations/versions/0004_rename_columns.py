"""Rename columns and stored values, give the history one index, and reword column comments."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

RENAMED = {
    "doubted": "maybe_applied",
    "spent": "attempts_charged",
    "waits": "deferrals",
    "clean_since": "absent_since",
    "fenced_until": "no_resend_before",
}

COMMENTS = {
    ("accounts", "account_id"): "UIN of the main account",
    ("attempts", "probe"): "sent to test the concurrency limit",
    ("attempts", "signed_at"): "time of the vendor's clock",
    ("events", "actor"): "the process or the operator",
    ("job_images", "state"): "as DescribeImages returned it before the first send",
    ("jobs", "absent_since"): "first lookup since the lost answer that found nothing",
    ("jobs", "deadline_at"): "an accepted export counts as running until",
    ("jobs", "deferrals"): "consecutive postponements",
    ("jobs", "described_at"): "when DescribeImages was asked for its disks",
    ("jobs", "due_at"): "earliest time to send or look up",
    ("jobs", "fingerprint"): "equal for equal requests",
    ("jobs", "first_trace_at"): "when an object or upload was first found under its tag",
    ("jobs", "no_resend_before"): "an older request may still be sent until then",
    ("jobs", "object_prefix"): "prefix of its object keys",
    ("jobs", "profile"): "name of the account in this program",
    ("jobs", "size_gib"): "sum of all its disks; 0 is unknown",
    ("jobs", "tag"): "part of its object keys",
    ("objects", "baseline_etag"): "of the object there before the first send",
    ("objects", "cos_path"): "as the vendor returned it",
    ("rates", "next_at"): "earliest time of the next request",
    ("rates", "pace"): "requests per second after the last slow-down",
    ("scopes", "ceiling"): "exports that may run; null before any refusal",
    ("scopes", "misses"): "refused probes less accepted ones, never < 0",
    ("scopes", "probe_at"): "earliest time of the next probe",
}


def upgrade() -> None:
    # not through Alembic's batch mode, which would copy the table and lose the triggers of others
    for old, new in RENAMED.items():
        op.execute(sa.text(f"ALTER TABLE jobs RENAME COLUMN {old} TO {new}"))
    # events are append-only: those of older stores keep the names of their kinds
    op.execute(sa.text("UPDATE attempts SET reaction = 'halt' WHERE reaction = 'stop'"))
    op.execute(
        sa.text(
            "UPDATE jobs SET reason = replace(reason, 'stopped: ', 'halted: ') "
            "WHERE reason LIKE 'stopped: %'"
        )
    )
    for name in ("batch", "place", "code", "task_id", "created"):
        op.drop_index(f"ix_jobs_{name}", table_name="jobs")
    op.create_index("ix_jobs_batch", "jobs", ["batch", "state", "reason"])
    op.create_index(
        "ix_jobs_history",
        "jobs",
        ["id", "batch", "state", "region", "bucket", "task_id", "code", "created_at"],
    )
    if op.get_bind().dialect.name == "postgresql":  # SQLite keeps no comments
        for (table, column), comment in COMMENTS.items():
            op.alter_column(table, column, comment=comment)
    # the time of sending is in sent_at already
    op.drop_index("ix_jobs_traced", table_name="jobs")
    op.drop_column("jobs", "trace_from")
    where = sa.text("first_trace_at >= sent_at")
    op.create_index(
        "ix_jobs_traced",
        "jobs",
        ["profile", "region", "bucket", "id"],
        sqlite_where=where,
        postgresql_where=where,
    )
    # the concurrency limit needs no more than the time of the next probe
    for unused in ("streak", "probe_job", "probe_until"):
        op.drop_column("scopes", unused)
