"""The database: connections that can be trusted, and the schema's version."""

from orchestrator.db.engine import Database, describe_url, lock_out_others
from orchestrator.db.schema import Schema

__all__ = ["Database", "Schema", "describe_url", "lock_out_others"]
