"""Run maintenance: recover orphans, checkpoint the WAL, watch the vendor, re-check halts."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import timedelta
from functools import partial

import anyio

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_queue.worker_registry import Registration, is_run_active
from orchestrator.job_states import LIVING
from orchestrator.learned_vendor_facts import VendorFact, facts_about, record_fact
from orchestrator.run_warnings import RunWarnings
from orchestrator.store import BusyRetry, Database
from orchestrator.store.tables import jobs, scopes
from orchestrator.verification.bucket_warnings import BucketWarnings
from orchestrator.wakeup import Wakeup
from orchestrator.worker.run_context import RunContext

_INTERVAL = 5.0
"""Seconds between two checks for orphaned jobs, two checkpoints, two records of halts and of clock
offsets."""

_BUCKET_INTERVAL = 30.0
"""Seconds between two checks of the buckets, which read every accepted job."""

_RECHECK_INTERVAL = 300.0
"""Seconds between two checks whether an operator has fixed what halted a scope."""


_MAX_JOB_WAIT = timedelta(minutes=10)
_MAX_PROBE_WAIT = timedelta(days=1)
"""No back-off of a job and no probe of a region is scheduled further ahead, nor is a poll with the
default settings. With a longer `verify_interval`, a start of a run polls once too early."""


async def prepare_store(
    database: Database, me: Registration, busy_retry: BusyRetry, warnings: RunWarnings
) -> None:
    """Recover what earlier runs have left, before this one claims anything."""
    await busy_retry.retry(partial(discard_impossible_waits, database))
    await busy_retry.retry(partial(recover_orphans, database, me.name))
    if not await busy_retry.retry(partial(is_run_active, database, besides=me.name)):
        await busy_retry.retry(partial(warnings.remove_old, me.name))


async def discard_impossible_waits(database: Database) -> None:
    """Discard stored waits that are longer than any back-off.

    Their cause is a clock that was set meanwhile. Such a wait would delay a job for as long as the
    clock was ahead. The start time that a user has set for a job is not changed.
    """
    async with database.write() as connection:
        now = await database.now(connection)
        is_living = jobs.c.state.in_(sorted(LIVING))
        is_by_user = (jobs.c.attempt == 0) & (jobs.c.due_at > jobs.c.created_at)
        waits_too_long = is_living & ~is_by_user & (jobs.c.due_at > now + _MAX_JOB_WAIT)
        await connection.execute(jobs.update().where(waits_too_long).values(due_at=now))
        probes_too_late = scopes.update().where(scopes.c.probe_at > now + _MAX_PROBE_WAIT)
        await connection.execute(probes_too_late.values(probe_at=now))


async def run_maintenance(
    context: RunContext,
    me: Registration,
    bucket_warnings: BucketWarnings,
    busy_retry: BusyRetry,
    wakeup: Wakeup,
    recheck_halts: Callable[[], Awaitable[None]],
) -> None:
    """Do the background work of a run until cancelled.

    Args:
        me: this process's registration.
        recheck_halts: called every few minutes.
    """
    database, profile = context.database, context.settings.profile

    async def watch_other_processes() -> None:
        await busy_retry.retry(me.renew_lock)
        if await busy_retry.retry(partial(recover_orphans, database, me.name)):
            wakeup.notify()

    offsets = ClockOffsets(database, profile, context.clocks)
    regular: Sequence[tuple[float, Callable[[], Awaitable[object]]]] = (
        (_INTERVAL, watch_other_processes),
        (_INTERVAL, partial(busy_retry.retry, database.checkpoint)),
        (_INTERVAL, partial(busy_retry.retry, offsets.record)),
        (_INTERVAL, context.admission.store_halts),
        (_BUCKET_INTERVAL, partial(busy_retry.retry, bucket_warnings.check)),
    )
    async with anyio.create_task_group() as tasks:
        for seconds, action in regular:
            # Separate tasks: on a full disk only a checkpoint frees space.
            tasks.start_soon(busy_retry.run_guarded, partial(_repeat, seconds, action))
        tasks.start_soon(_repeat, _RECHECK_INTERVAL, recheck_halts)


class ClockOffsets:
    """Records the largest clock offset of each host, in whole seconds.

    Args:
        clocks: those of the services. Two of them may have learned from the same host.
    """

    def __init__(self, database: Database, profile: str, clocks: Collection[ServerClock]) -> None:
        self._database = database
        self._profile = profile
        self._clocks = clocks
        self._recorded: dict[str, int] = {}
        """By host: the largest offset of this run that was compared with the store."""

    async def record(self) -> None:
        """Record offsets that are larger than in the store; use it only if one has grown."""
        found: dict[str, int] = {}
        for clock in self._clocks:
            for host, offset in clock.largest.items():
                seconds = round(offset.total_seconds())
                found[host] = max(found.get(host, seconds), seconds, key=abs)
        grown = {
            host: seconds
            for host, seconds in found.items()
            if _is_larger(seconds, self._recorded.get(host))
        }
        if not grown:
            return
        async with self._database.write() as connection:
            at = await self._database.now(connection)
            for host, seconds in grown.items():
                facts = await facts_about(connection, self._profile, host)
                fact, known = VendorFact.CLOCK_OFFSET, facts.get(VendorFact.CLOCK_OFFSET)
                if _is_larger(seconds, None if known is None else int(known)):
                    await record_fact(connection, self._profile, host, fact, str(seconds), at)
        self._recorded |= grown


def _is_larger(seconds: int, known: int | None) -> bool:
    return known is None or abs(seconds) > abs(known)


async def _repeat(seconds: float, action: Callable[[], Awaitable[object]]) -> None:
    while True:
        await anyio.sleep(seconds)
        await action()
