"""Warnings of runs: each is notified when it begins, and stored until its condition ends."""

import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

import anyio
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.store import Database, upsert
from orchestrator.store.error_classification import STORE_ERRORS
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

    Its methods write to the store, so they must not be called within a transaction. Those that
    begin and end warnings ignore its errors: a warning does not stop a run.

    Args:
        notify: takes a sentence for the user.
    """

    def __init__(self, database: Database, profile: str, notify: Callable[[str], None]) -> None:
        self._database = database
        self._profile = profile
        self._notify = notify
        self.messages: dict[str, str] = {}
        """By key: the warnings that hold."""
        self._stored_at: dict[str, float] = {}
        """By key of a warning that holds: when it was stored, on the event loop's clock."""

    async def warn(self, key: str, message: str, *, is_notified: bool = False) -> None:
        """Notify the user of a warning and store it.

        The user is notified again only after `clear`. What cannot be stored now is stored by a
        later call. Later calls renew the stored warning at intervals.

        Args:
            key: what the warning is about; one row per key.
            message: what was seen, what the program assumes, what the user can do. The word
                "Warning" is added here.
            is_notified: the user has been notified of it in another way.
        """
        self.messages[key] = message
        if key not in self._stored_at:
            self._stored_at[key] = -math.inf
            if not is_notified:
                self._notify(f"Warning: {message}")
        now = anyio.current_time()
        if now < self._stored_at[key] + _RENEWAL:
            return
        with suppress(*STORE_ERRORS):
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
            self._stored_at[key] = now

    async def clear(self, key: str) -> bool:
        """End a warning of this run; return whether there was one.

        Call this when the condition of the warning has ended. If the store cannot be written, the
        warning holds until a later call.
        """
        if key not in self._stored_at:
            return False
        this = (run_warnings.c.profile == self._profile) & (run_warnings.c.key == key)
        with suppress(*STORE_ERRORS):
            async with self._database.write() as connection:
                await connection.execute(run_warnings.delete().where(this))
            self.messages.pop(key, None)
            return self._stored_at.pop(key, None) is not None
        return False

    async def replace(
        self, topic: str, messages: Mapping[str, str], *, is_notified: bool = False
    ) -> None:
        """Make the warnings of a topic equal to these: end the others.

        Args:
            topic: what the keys of these warnings, and of no others, begin with.
            messages: by the rest of the key; see `warn`.
        """
        current = {f"{topic} {about}": message for about, message in messages.items()}
        for key in [key for key in self._stored_at if key.startswith(f"{topic} ")]:
            if key not in current:
                await self.clear(key)
        for key, message in current.items():
            await self.warn(key, message, is_notified=is_notified)

    async def remove_old(self, me: str) -> None:
        """Remove the warnings of earlier runs.

        Args:
            me: the name under which this process is registered.
        """
        started = sa.select(instances.c.started_at).where(instances.c.id == me).scalar_subquery()
        old = (run_warnings.c.profile == self._profile) & (run_warnings.c.seen_at < started)
        async with self._database.write() as connection:
            await connection.execute(run_warnings.delete().where(old))


async def stored_warnings(connection: AsyncConnection) -> tuple[StoredWarning, ...]:
    """Return the warnings of all profiles, oldest first."""
    rows = await connection.execute(run_warnings.select())
    found = (StoredWarning(row.profile, row.message, row.since, row.seen_at) for row in rows)
    return tuple(sorted(found, key=lambda warning: warning.since))
