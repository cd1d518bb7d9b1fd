"""Record how SQLite executes the statements of a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa

from orchestrator.store import Database


@asynccontextmanager
async def plans(database: Database, *, writer: bool = False) -> AsyncIterator[list[str]]:
    """Record the query plan of each query and each update in the block.

    The yielded list is filled when the block ends.

    Args:
        writer: record the transactions that write, including their updates.
    """
    executed: list[tuple[str, Any]] = []

    def note(_: object, _cursor: object, statement: str, parameters: Any, *_more: object) -> None:
        executed.append((statement, parameters))

    engine = (database._writer if writer else database._reader).sync_engine
    steps: list[str] = []
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield steps
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
    explained = ("SELECT", "WITH", "UPDATE")
    queries = [(text, given) for text, given in executed if text.startswith(explained)]
    async with database.read() as connection:
        for text, given in queries:
            # of a statement that was executed with many sets of parameters, explain one
            one = given[0] if isinstance(given, list) else given
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", one)
            steps += [row.detail for row in rows]
