"""Add first traces, warnings and cloud accounts; simplify the shared rate limit."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column(
        "jobs",
        sa.Column(
            "trace_from",
            MOMENT,
            nullable=True,
            comment="when it was sent; null if the clock was set since",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column(
            "first_trace_at",
            MOMENT,
            nullable=True,
            comment="an object or upload was found under its tag",
        ),
    )
    op.add_column(
        "jobs",
        sa.Column("warnings", sa.JSON(), nullable=True, comment="sentences; none if null"),
    )
    where = sa.text("first_trace_at >= trace_from")
    op.create_index(
        "ix_jobs_traced",
        "jobs",
        ["profile", "region", "bucket", "id"],
        sqlite_where=where,
        postgresql_where=where,
    )
    op.create_table(
        "accounts",
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("account_id", sa.Text(), nullable=False, comment="the main account's UIN"),
        sa.Column("seen_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("profile", name=op.f("pk_accounts")),
    )
    op.drop_column("rates", "strikes")
