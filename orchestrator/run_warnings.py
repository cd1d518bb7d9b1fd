"""Warnings of runs: each is notified once, and stored so that ``status`` can repeat it."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.store import Database, upsert
from orchestrator.store.error_classification import STORE_ERRORS, classify_store_error
from orchestrator.store.tables import instances, run_warnings

_RENEWAL = 60.0
"""Seconds after which the stored row of a warning that still holds gets a new time."""


@dataclass(frozen=True, slots=True)
class StoredWarning:
    """A warning whose condition has not ended yet, as far as is known.

    Args:
        since: when a run noticed it first.
        seen_at: when it was last seen to hold.
    """

    profile: str
    message: str
    since: datetime
    seen_at: datetime


class RunWarnings:
    """The warnings of one run.

    Its methods write to the store. So they must not be called within a transaction.

    Args:
        notify: takes a sentence for the user.
    """

    def __init__(self, database: Database, profile: str, notify: Callable[[str], None]) -> None:
        self._database = database
        self._profile = profile
        self._notify = notify
        self._notified: set[str] = set()
        self._stored: dict[str, tuple[str, float]] = {}
        """By key: the message in the store, and when it was written, on the event loop's clock."""
        self._cleared: set[str] = set()
        """Keys that have no row: `clear` need not delete it."""

    async def warn(self, key: str, message: str) -> None:
        """Store a warning, or renew it; notify the user the first time in this run.

        While the store cannot be written, only the user is notified; the next call stores it.

        Args:
            key: what the warning is about; one row per key.
            message: what was seen, what the program assumes, what the user can do. The word
                "Warning" is added here.
        """
        if key not in self._notified:
            self._notified.add(key)
            self._notify(f"Warning: {message}")
        stored, written_at = self._stored.get(key, ("", -math.inf))
        now = anyio.current_time()
        if message == stored and now < written_at + _RENEWAL:
            return
        self._cleared.discard(key)
        with self._tolerate_store_errors():
            async with self._database.write() as connection:
                at = await self._database.now(connection)
                row = {
                    "profile": self._profile,
                    "key": key,
                    "message": message,
                    "since": at,
                    "seen_at": at,
                }
                statement = upsert(connection, run_warnings, "message", "seen_at")
                await connection.execute(statement.values(row))
            self._stored[key] = message, now

    async def clear(self, key: str) -> None:
        """Remove a stored warning: its condition has ended. Repeating this costs nothing."""
        if key in self._cleared:
            return
        this = (run_warnings.c.profile == self._profile) & (run_warnings.c.key == key)
        with self._tolerate_store_errors():
            async with self._database.write() as connection:
                await connection.execute(run_warnings.delete().where(this))
            self._cleared.add(key)
            self._stored.pop(key, None)

    async def remove_old(self, me: str) -> None:
        """Remove the warnings of earlier runs, unless another run uses the store now.

        Args:
            me: the name under which this process is registered.
        """
        started = sa.select(instances.c.started_at).where(instances.c.id == me).scalar_subquery()
        others = sa.exists().where(instances.c.ended_at.is_(None), instances.c.id != me)
        old = (run_warnings.c.profile == self._profile) & (run_warnings.c.seen_at < started)
        async with self._database.write() as connection:
            await connection.execute(run_warnings.delete().where(old, ~others))

    @contextmanager
    def _tolerate_store_errors(self) -> Iterator[None]:
        """Ignore temporary errors of the store: a warning must not end a run."""
        try:
            yield
        except STORE_ERRORS as error:
            if not classify_store_error(error).is_temporary:
                raise


async def stored_warnings(connection: AsyncConnection) -> tuple[StoredWarning, ...]:
    """Return the warnings of all profiles, oldest first."""
    query = run_warnings.select().order_by(run_warnings.c.since, run_warnings.c.key)
    return tuple(
        StoredWarning(row.profile, row.message, row.since, row.seen_at)
        for row in await connection.execute(query)
    )
