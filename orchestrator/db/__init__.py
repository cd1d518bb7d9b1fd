"""The database: connections that can be trusted, and the schema's version."""

from orchestrator.db.engine import (
    Database,
    describe_url,
    insert_or_change,
    insert_or_leave,
    lock_out_others,
)
from orchestrator.db.grouped import Grouped
from orchestrator.db.patience import Patience
from orchestrator.db.schema import Schema

__all__ = [
    "Database",
    "Grouped",
    "Patience",
    "Schema",
    "describe_url",
    "insert_or_change",
    "insert_or_leave",
    "lock_out_others",
]
