"""The database: connections that can be trusted, and the schema's version."""

from orchestrator.store.busy_retry import Patience
from orchestrator.store.database import (
    Database,
    describe_url,
    insert_or_change,
    insert_or_leave,
    lock_out_others,
)
from orchestrator.store.group_commit import Grouped
from orchestrator.store.migrations import Schema

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
