"""Add what was learned of the vendor, and the warnings of runs."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)
LAST_SEEN = "when it was last seen to hold"


def upgrade() -> None:
    op.create_table(
        "vendor_facts",
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False, comment="region/bucket, or a host"),
        sa.Column("fact", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False, comment=LAST_SEEN),
        sa.PrimaryKeyConstraint("profile", "subject", "fact", name=op.f("pk_vendor_facts")),
    )
    op.create_table(
        "run_warnings",
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False, comment="what the warning is about"),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("seen_at", MOMENT, nullable=False, comment=LAST_SEEN),
        sa.PrimaryKeyConstraint("profile", "key", name=op.f("pk_run_warnings")),
    )
