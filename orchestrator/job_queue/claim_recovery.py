"""Repeat a claim after a store error: jobs that an earlier try may have claimed are put back.

A commit that seems to fail may have been applied. The jobs that it claimed would then stay under
the lease of this living process, although it will never send them, and become unknown in the end.
"""

from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from orchestrator.errors import StoreGoneError
from orchestrator.job_queue.claim import ClaimQuery, ClaimSettings, claim
from orchestrator.job_states import JobState
from orchestrator.limits.rate_limiter import Permit
from orchestrator.model import NOT_SENT, Effect, Lease
from orchestrator.store import Database
from orchestrator.store.errors import STORE_ERRORS
from orchestrator.store.tables import attempts, jobs, scopes
from orchestrator.store.transitions import Transition, write_transitions


class Claims:
    """The claims of one process, each of which can be repeated after a store error.

    Claims of different regions may run at the same time, two of the same region may not.

    Args:
        owner: this process's instance.
    """

    def __init__(self, database: Database, owner: str) -> None:
        self._database = database
        self._owner = owner
        self._in_progress: dict[int, int] = {}
        self._in_doubt: set[str] = set()

    async def claim(
        self,
        who: ClaimSettings,
        what: ClaimQuery,
        regions: Sequence[str],
        *,
        signed_at: datetime,
        limit: int,
    ) -> list[tuple[Lease, Permit]]:
        """Claim jobs, after putting back what a failed claim of these regions may have left."""
        await self._put_back(self._in_doubt.intersection(regions))
        self._in_doubt.update(regions)
        claimed = await claim(self._database, who, what, regions, signed_at=signed_at, limit=limit)
        self._in_progress.update((lease.job_id, lease.attempt) for lease, _ in claimed)
        self._in_doubt.difference_update(regions)
        return claimed

    def recorded(self, lease: Lease) -> None:
        """Note that the outcome of an attempt is in the store.

        Before that an attempt stays in progress: its request may have been sent.
        """
        if self._in_progress.get(lease.job_id) == lease.attempt:
            del self._in_progress[lease.job_id]

    async def close(self) -> None:
        """Put back what the last failed claims may have left, where the store can be used.

        Where it cannot, the jobs become unknown once this process has ended.
        """
        with suppress(*STORE_ERRORS, StoreGoneError):
            await self._put_back(self._in_doubt)

    async def _put_back(self, regions: Collection[str]) -> None:
        if regions:
            in_progress = self._in_progress.items()
            await put_back_unsent(self._database, self._owner, sorted(regions), in_progress)
            self._in_doubt.difference_update(list(regions))


async def put_back_unsent(
    database: Database, owner: str, regions: Sequence[str], in_progress: Iterable[tuple[int, int]]
) -> int:
    """Put back jobs that an owner holds and does not send; return how many.

    They wait in the queue again, or are unknown where an earlier attempt may have taken effect.

    Args:
        owner: the instance of this very process.
        regions: those in which no claim of this owner is under way.
        in_progress: job and number of the owner's attempts that are being sent or recorded.
    """
    async with database.write() as connection:
        # as a claim does first: waits for one whose commit the server has not finished yet
        await connection.execute(_LOCK_SCOPES, {"regions": regions})
        asked = {"owner": owner, "regions": regions, "in_progress": list(in_progress)}
        held = (await connection.execute(_HELD, asked)).all()
        if held:
            now = await database.now(connection)
            await write_transitions(connection, [_back(row, owner, now) for row in held], at=now)
            these = [{"this_job": row.id, "this_number": row.attempt, "at": now} for row in held]
            await connection.execute(_NOT_SENT, these)
            # a probe that was not sent: the next one need not wait for the end of its lease
            probed = scopes.c.probe_at.in_([row.expires_at for row in held])
            await connection.execute(scopes.update().where(probed).values(probe_at=now))
    return len(held)


def _back(row: Any, owner: str, now: datetime) -> Transition:
    """Return the transition of a job back to where it waited before the claim."""
    return Transition(
        row.id,
        JobState.SENDING,
        JobState.UNKNOWN if row.maybe_applied else JobState.QUEUED,
        kind="not sent",
        reason="not sent",
        actor=owner,
        attempt=row.attempt,
        changes={"absent_since": None, "due_at": now},
        details={"message": "The store failed during the claim, so no request was sent."},
    )


_SOME_REGIONS = sa.bindparam("regions", type_=sa.Text, expanding=True)
_LOCK_SCOPES = (
    sa.select(scopes.c.region)
    .where(scopes.c.region.in_(_SOME_REGIONS))
    .order_by(scopes.c.profile, scopes.c.region)
    .with_for_update()
)
_HELD = (
    sa.select(jobs.c.id, jobs.c.attempt, jobs.c.maybe_applied, jobs.c.expires_at)
    .where(
        jobs.c.state == JobState.SENDING,
        jobs.c.owner == sa.bindparam("owner"),
        jobs.c.region.in_(_SOME_REGIONS),
        sa.tuple_(jobs.c.id, jobs.c.attempt).not_in(sa.bindparam("in_progress", expanding=True)),
    )
    .order_by(jobs.c.id)
    .with_for_update()
)
_NOT_SENT = (
    attempts.update()
    .where(
        attempts.c.job_id == sa.bindparam("this_job"),
        attempts.c.number == sa.bindparam("this_number"),
        attempts.c.answered_at.is_(None),
    )
    .values(answered_at=sa.bindparam("at"), code=NOT_SENT, effect=Effect.NO)
)
