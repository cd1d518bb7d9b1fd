"""Add the shared rate limit, and indexes for a long queue and a long history."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "rates",
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False, comment="of the endpoint"),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("next_at", MOMENT, nullable=False, comment="the next request leaves no sooner"),
        sa.Column(
            "pace", sa.Float(), nullable=True, comment="requests a second after the last slow-down"
        ),
        sa.Column("slowed_at", MOMENT, nullable=True),
        sa.Column(
            "strikes", sa.Integer(), nullable=False, comment="slow-downs close upon one another"
        ),
        sa.PrimaryKeyConstraint("profile", "host", "action", name=op.f("pk_rates")),
    )
    op.add_column(
        "scopes",
        sa.Column("streak", sa.Integer(), nullable=True, comment="accepted probes in a row"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column(
            "scopes",
            "misses",
            comment="twice the refused probes, less those accepted",
            existing_comment="refused probes in a row",
        )
    _renew_indexes_of_the_queue()
    _renew_indexes_of_the_history()


def _renew_indexes_of_the_queue() -> None:
    for name in ("ix_jobs_claim", "ix_jobs_due", "ix_jobs_scope"):
        op.drop_index(name, table_name="jobs")
    op.create_index("ix_jobs_scope", "jobs", ["state", "profile", "region", "reason"])
    _create_index_where(
        "ix_jobs_claim",
        "state = 'queued' AND described_at IS NOT NULL",
        "profile",
        "region",
        sa.text("priority DESC"),
        sa.text("size_gib DESC"),
        "id",
        "due_at",
    )
    _create_index_where(
        "ix_jobs_due",
        "state = 'queued' AND described_at IS NOT NULL",
        "profile",
        "region",
        "due_at",
    )
    _create_index_where(
        "ix_jobs_describe",
        "state = 'queued' AND described_at IS NULL",
        "profile",
        "region",
        sa.text("priority DESC"),
        "id",
    )
    _create_index_where("ix_jobs_look", "state IN ('accepted', 'unknown')", "due_at")
    _create_index_where(
        "ix_jobs_ended",
        "state = 'verified' AND accepted_at IS NOT NULL",
        "profile",
        "region",
        "finished_at",
    )


def _renew_indexes_of_the_history() -> None:
    op.drop_index("ix_jobs_batch", table_name="jobs")
    op.create_index("ix_jobs_batch", "jobs", ["batch", "state", "reason", "id"])
    op.create_index("ix_jobs_place", "jobs", ["state", "bucket", "region", "id"])
    _create_index_where("ix_jobs_code", "code IS NOT NULL", "code", "id")
    _create_index_where("ix_jobs_task_id", "task_id IS NOT NULL", "task_id", **_by_bytes("task_id"))
    op.create_index("ix_jobs_created", "jobs", [sa.text("(id / 1000)"), "created_at"])
    op.drop_index("ix_job_images_image_id", table_name="job_images")
    op.create_index(
        "ix_job_images_image_id", "job_images", ["image_id", "job_id"], **_by_bytes("image_id")
    )


def _by_bytes(column: str) -> dict[str, Any]:
    return {"postgresql_ops": {column: "text_pattern_ops"}}


def _create_index_where(
    name: str, condition: str, *columns: str | sa.TextClause, **options: Any
) -> None:
    where = sa.text(condition)
    op.create_index(
        name, "jobs", list(columns), sqlite_where=where, postgresql_where=where, **options
    )
