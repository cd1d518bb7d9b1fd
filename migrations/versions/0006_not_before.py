"""Keep the earliest time to send that a request asks for; `due_at` changes with every wait."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "not_before",
            sa.DateTime(timezone=True),
            comment="earliest time to send, as requested",
        ),
    )
    # of a job that was sent or put off since, the time is not known any more
    op.execute("UPDATE jobs SET not_before = due_at WHERE reason = 'not before'")
