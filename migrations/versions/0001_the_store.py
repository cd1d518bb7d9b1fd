"""Create the schema: jobs, attempts, objects, events, and shared limits."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "instances",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
    )
    op.create_table(
        "jobs",
        sa.Column("id", ID, nullable=False),
        sa.Column("tag", sa.Text(), nullable=False, comment="the job's own, in its names"),
        sa.Column("object_prefix", sa.Text(), nullable=False, comment="leads its objects' names"),
        sa.Column("batch", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False, comment="the account's name here"),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("bucket", sa.Text(), nullable=False),
        sa.Column("format", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("exact_names", sa.Boolean(), nullable=False),
        sa.Column("only_root_disk", sa.Boolean(), nullable=False),
        sa.Column("role_name", sa.Text(), nullable=True),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("image_ids", sa.JSON(), nullable=False),
        sa.Column(
            "fingerprint", sa.Text(), nullable=False, comment="the same request has the same"
        ),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False, comment="why it is in this state"),
        sa.Column("due_at", MOMENT, nullable=False, comment="no sooner sent, or looked at again"),
        sa.Column("described_at", MOMENT, nullable=True, comment="disks and sizes were asked for"),
        sa.Column("size_gib", sa.Integer(), nullable=False, comment="all its disks; 0 is unknown"),
        sa.Column(
            "attempt", sa.Integer(), nullable=False, comment="last attempt; fences its writes"
        ),
        sa.Column("spent", sa.Integer(), nullable=False, comment="attempts that counted"),
        sa.Column("waits", sa.Integer(), nullable=False, comment="postponements in a row"),
        sa.Column("owner", sa.Text(), nullable=True, comment="the process that holds the lease"),
        sa.Column("expires_at", MOMENT, nullable=True, comment="end of the lease"),
        sa.Column(
            "doubted", sa.Boolean(), nullable=False, comment="an attempt may have taken effect"
        ),
        sa.Column(
            "clean_since",
            MOMENT,
            nullable=True,
            comment="first look that found nothing, since the doubt",
        ),
        sa.Column(
            "fenced_until",
            MOMENT,
            nullable=True,
            comment="an unsent request may still leave until then",
        ),
        sa.Column(
            "deadline_at",
            MOMENT,
            nullable=True,
            comment="an accepted export counts as lost after it",
        ),
        sa.Column(
            "task_id",
            sa.Text(),
            nullable=True,
            comment="unsigned 64-bit, larger than the databases' integers",
        ),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("remedy", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("sent_at", MOMENT, nullable=True),
        sa.Column("accepted_at", MOMENT, nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint("(state = 'sending') = (owner IS NOT NULL)", name=op.f("ck_jobs_owner")),
        sa.CheckConstraint(
            "format IN ('RAW', 'QCOW2', 'VHD', 'VMDK')", name=op.f("ck_jobs_format")
        ),
        sa.CheckConstraint(
            "state IN ('queued', 'sending', 'unknown', 'accepted', 'verified', "
            "'failed', 'cancelled')",
            name=op.f("ck_jobs_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("tag", name=op.f("uq_jobs_tag")),
    )
    op.create_index(
        "ix_jobs_claim",
        "jobs",
        ["state", "profile", sa.text("priority DESC"), sa.text("size_gib DESC"), "id"],
    )
    op.create_index("ix_jobs_batch", "jobs", ["batch", "state"])
    op.create_index("ix_jobs_due", "jobs", ["state", "due_at"])
    op.create_index("ix_jobs_fingerprint", "jobs", ["fingerprint"])
    op.create_index("ix_jobs_scope", "jobs", ["state", "profile", "region"])
    op.create_table(
        "scopes",
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column(
            "ceiling",
            sa.Integer(),
            nullable=True,
            comment="exports that may run; none was learned if null",
        ),
        sa.Column("misses", sa.Integer(), nullable=False, comment="refused probes in a row"),
        sa.Column("full_since", MOMENT, nullable=True),
        sa.Column("probe_at", MOMENT, nullable=True, comment="when the next probe may leave"),
        sa.Column("probe_job", ID, nullable=True, comment="the job that probes now"),
        sa.Column(
            "probe_until", MOMENT, nullable=True, comment="after this the prober counts as dead"
        ),
        sa.PrimaryKeyConstraint("profile", "region", name=op.f("pk_scopes")),
    )
    op.create_table(
        "attempts",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("probe", sa.Boolean(), nullable=False, comment="sent to find out about the gate"),
        sa.Column("claimed_at", MOMENT, nullable=False),
        sa.Column("signed_at", MOMENT, nullable=False, comment="in the server's time"),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("answered_at", MOMENT, nullable=True),
        sa.Column("code", sa.Text(), nullable=True),
        sa.Column("reaction", sa.Text(), nullable=True),
        sa.Column("effect", sa.Text(), nullable=True),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("request_id", sa.Text(), nullable=True),
        sa.Column("task_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_attempts_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "number", name=op.f("pk_attempts")),
    )
    op.create_index("ix_attempts_owner", "attempts", ["owner"])
    op.create_table(
        "events",
        sa.Column("id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=True),
        sa.Column("at", MOMENT, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("actor", sa.Text(), nullable=False, comment="the process, or who told it to"),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index("ix_events_job_id", "events", ["job_id"])
    op.create_table(
        "job_images",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("image_id", sa.Text(), nullable=False),
        sa.Column(
            "state",
            sa.Text(),
            nullable=True,
            comment="as DescribeImages said before the first send",
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_images_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "position", name=op.f("pk_job_images")),
    )
    op.create_index("ix_job_images_image_id", "job_images", ["image_id"])
    op.create_table(
        "objects",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="without a leading slash"),
        sa.Column(
            "expected", sa.Boolean(), nullable=False, comment="computed before the first send"
        ),
        sa.Column("cos_path", sa.Text(), nullable=True, comment="as the vendor wrote it"),
        sa.Column("disk_gib", sa.Integer(), nullable=True),
        sa.Column(
            "baseline_etag",
            sa.Text(),
            nullable=True,
            comment="what lay there before an exact name was sent",
        ),
        sa.Column("size", sa.BigInteger(), nullable=True, comment="bytes"),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("crc64", sa.Text(), nullable=True),
        sa.Column("storage_class", sa.Text(), nullable=True),
        sa.Column("last_modified", MOMENT, nullable=True),
        sa.Column("seen_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_objects_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "key", name=op.f("pk_objects")),
    )
    _make_events_append_only()


def _make_events_append_only() -> None:
    """Reject every statement that changes or deletes an event."""
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER events_no_{verb.lower()} BEFORE {verb} ON events "
                "BEGIN SELECT RAISE(ABORT, 'events are append-only'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION refuse_events_change() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'events are append-only'; END $$"
    )
    op.execute(
        "CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
        "FOR EACH STATEMENT EXECUTE FUNCTION refuse_events_change()"
    )
