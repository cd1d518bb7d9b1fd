"""Index the TaskIds of all attempts, which a filter of the history searches."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_attempts_task_id", "attempts", ["task_id"])
