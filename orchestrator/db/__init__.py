"""The database: connections that can be trusted, and the schema's version."""

from orchestrator.db.engine import Database, describe_url
from orchestrator.db.schema import Schema

__all__ = ["Database", "Schema", "describe_url"]
