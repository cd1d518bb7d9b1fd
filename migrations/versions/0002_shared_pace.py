"""What processes share of the pace, and indexes that keep a long queue cheap."""

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


def _create_index_where(name: str, condition: str, *columns: str | sa.TextClause) -> None:
    where = sa.text(condition)
    op.create_index(name, "jobs", list(columns), sqlite_where=where, postgresql_where=where)
