"""What a server says when it cannot be used just now, and whether it is waited for."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from orchestrator.clock import SystemClock
from orchestrator.db import Database
from orchestrator.db.trouble import Trouble, trouble_of
from tests.servers import text_of

pytestmark = pytest.mark.anyio


async def trouble_with(database: Database, *statements: str) -> Trouble:
    """What the last of the statements runs into."""
    with pytest.raises(DBAPIError) as caught:
        await execute(database, *statements)
    return trouble_of(caught.value)


async def execute(database: Database, *statements: str) -> None:
    """Executes the statements in one transaction."""
    async with database.write() as connection:
        for statement in statements:
            await connection.execute(sa.text(statement))


async def test_a_table_that_another_holds_locked_may_become_free(postgresql: Database) -> None:
    """Whoever holds the lock can be named, and ended."""
    async with postgresql.write() as holder:
        await holder.execute(sa.text("LOCK TABLE jobs"))
        met = await trouble_with(postgresql, "SET lock_timeout = '20ms'", "LOCK TABLE jobs")
    assert met.passes
    assert "locked" in met.remedy


async def test_a_session_that_was_ended_may_begin_again(postgresql: Database) -> None:
    """As when the server shuts down, or its administrator makes room."""
    own = "SELECT pg_terminate_backend(pg_backend_pid())"
    assert (await trouble_with(postgresql, own)).passes


async def test_a_server_that_cannot_be_reached_may_come_back(postgresql: Database) -> None:
    """Nobody listens there."""
    away = Database(text_of(postgresql.url.set(port=1)), SystemClock())
    assert (await trouble_with(away, "SELECT 1")).passes


async def test_a_statement_that_is_wrong_stays_wrong(postgresql: Database) -> None:
    """Waiting mends no mistake."""
    assert not (await trouble_with(postgresql, "SELECT no_such_column")).passes
