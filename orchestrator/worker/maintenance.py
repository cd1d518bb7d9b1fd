"""Run maintenance: recover orphans, checkpoint the WAL, watch the vendor, re-check halts."""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial

import anyio

from orchestrator.cloud.clock_skew import ServerClock
from orchestrator.job_queue.orphan_recovery import discard_impossible_waits, recover_orphans
from orchestrator.job_queue.worker_registry import Registration
from orchestrator.run_warnings import RunWarnings
from orchestrator.store import BusyRetry, Database
from orchestrator.vendor_facts import VendorFact, all_facts, record_fact
from orchestrator.wakeup import Wakeup

_INTERVAL = 5.0
"""Seconds between two checks for orphaned jobs, two checkpoints, two records of clock offsets."""

_BUCKET_INTERVAL = 30.0
"""Seconds between two checks of the buckets, which read every accepted job."""

_RECHECK_INTERVAL = 300.0
"""Seconds between two checks whether an operator has fixed what halted a scope."""


async def prepare_store(
    database: Database, me: Registration, busy_retry: BusyRetry, warnings: RunWarnings
) -> None:
    """Recover what earlier runs have left, before this one claims anything."""
    await busy_retry.retry(partial(discard_impossible_waits, database))
    await busy_retry.retry(partial(recover_orphans, database, me.name))
    await busy_retry.retry(partial(warnings.remove_old, me.name))


async def run_maintenance(
    database: Database,
    me: Registration,
    busy_retry: BusyRetry,
    wakeup: Wakeup,
    *,
    record_offsets: Callable[[], Awaitable[None]],
    check_buckets: Callable[[], Awaitable[None]],
    recheck_halts: Callable[[], Awaitable[None]],
) -> None:
    """Do the background work of a run until cancelled.

    Args:
        me: this process's registration.
        record_offsets: records the clock offsets of servers.
        check_buckets: warns of buckets.
        recheck_halts: called every few minutes.
    """

    async def watch_other_processes() -> None:
        await busy_retry.retry(me.renew_lock)
        if await busy_retry.retry(partial(recover_orphans, database, me.name)):
            wakeup.notify()

    regular: Sequence[tuple[float, Callable[[], Awaitable[object]]]] = (
        (_INTERVAL, watch_other_processes),
        (_INTERVAL, partial(busy_retry.retry, database.checkpoint)),
        (_INTERVAL, partial(busy_retry.retry, record_offsets)),
        (_BUCKET_INTERVAL, partial(busy_retry.retry, check_buckets)),
    )
    async with anyio.create_task_group() as tasks:
        for seconds, action in regular:
            # Separate tasks: on a full disk only a checkpoint frees space.
            tasks.start_soon(busy_retry.run_guarded, partial(_repeat, seconds, action))
        tasks.start_soon(_repeat, _RECHECK_INTERVAL, recheck_halts)


async def record_clock_offsets(
    database: Database, profile: str, clocks: Collection[ServerClock]
) -> None:
    """Record the largest clock offset of each host, if it is larger than the one in the store."""
    async with database.read() as connection:
        known = {
            learned.subject: int(learned.value)
            for learned in await all_facts(connection)
            if (learned.profile, learned.fact) == (profile, VendorFact.CLOCK_OFFSET)
        }
    found = {
        host: round(offset.total_seconds())
        for clock in clocks
        for host, offset in clock.largest.items()
    }
    larger = {
        host: seconds
        for host, seconds in found.items()
        if host not in known or abs(seconds) > abs(known[host])
    }
    if larger:
        async with database.write() as connection:
            at = await database.now(connection)
            for host, seconds in larger.items():
                fact, value = VendorFact.CLOCK_OFFSET, str(seconds)
                await record_fact(connection, profile, host, fact, value, at)


async def _repeat(seconds: float, action: Callable[[], Awaitable[object]]) -> None:
    while True:
        await anyio.sleep(seconds)
        await action()
