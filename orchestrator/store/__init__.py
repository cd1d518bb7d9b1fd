"""The database: connections, transactions, retries, and the version of the schema."""

from orchestrator.store.busy_retry import BusyRetry
from orchestrator.store.database import (
    Database,
    acquire_exclusive_lock,
    insert_or_ignore,
    upsert,
)
from orchestrator.store.group_commit import GroupCommit
from orchestrator.store.migrations import Schema

__all__ = [
    "BusyRetry",
    "Database",
    "GroupCommit",
    "Schema",
    "acquire_exclusive_lock",
    "insert_or_ignore",
    "upsert",
]
