"""How SQLite goes about what is asked of a store."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa

from orchestrator.db import Database


@asynccontextmanager
async def plans(database: Database) -> AsyncIterator[list[str]]:
    """The steps of every query in this block; they are there when it has ended."""
    asked: list[tuple[str, Any]] = []

    def note(_: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        asked.append((statement, parameters))

    engine = database._reader.sync_engine
    steps: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield steps
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    queries = [(text, given) for text, given in asked if text.startswith(("SELECT", "WITH"))]
    async with database.read() as connection:
        for text, given in queries:
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given)
            steps += [row.detail for row in rows]
