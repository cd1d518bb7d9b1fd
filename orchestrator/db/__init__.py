"""The database: connections that can be trusted, and the schema's version."""

from orchestrator.db.engine import Database, describe_url, lock_out_others
from orchestrator.db.patience import Patience
from orchestrator.db.schema import Schema

__all__ = ["Database", "Patience", "Schema", "describe_url", "lock_out_others"]
