"""Rename the columns of the jobs table that had names of their own."""

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


def upgrade() -> None:
    # not through Alembic's batch mode, which would copy the table and lose the triggers of others
    for old, new in RENAMED.items():
        op.execute(sa.text(f"ALTER TABLE jobs RENAME COLUMN {old} TO {new}"))
    # the concurrency limit needs no more than the time of the next probe
    for unused in ("streak", "probe_job", "probe_until"):
        op.drop_column("scopes", unused)
    if op.get_bind().dialect.name == "postgresql":
        comment = "refused probes less accepted ones, never < 0"
        op.alter_column("scopes", "misses", comment=comment)
