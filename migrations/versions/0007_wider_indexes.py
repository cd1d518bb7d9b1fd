"""Add to two indexes what the filter by TaskId and the progress of a run read."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

HISTORY = ("id", "batch", "state", "region", "bucket", "task_id", "attempt", "code", "created_at")
BATCH = ("batch", "state", "reason", "profile")


def upgrade() -> None:
    for name, columns in (("ix_jobs_history", HISTORY), ("ix_jobs_batch", BATCH)):
        op.drop_index(name, "jobs")
        op.create_index(name, "jobs", list(columns))
