"""Run maintenance: recover orphaned jobs, checkpoint the WAL, re-check halted scopes."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from orchestrator.job_queue.orphan_recovery import discard_impossible_waits, recover_orphans
from orchestrator.job_queue.worker_registry import Registration
from orchestrator.run_warnings import RunWarnings
from orchestrator.store import BusyRetry, Database
from orchestrator.wakeup import Wakeup

_INTERVAL = 5.0
"""Seconds between two checks for orphaned jobs, and between two checkpoints."""

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
    recheck_halts: Callable[[], Awaitable[None]],
) -> None:
    """Do the background work of a run until cancelled.

    Args:
        me: this process's registration.
        recheck_halts: called every few minutes.
    """

    async def watch_other_processes() -> None:
        await busy_retry.retry(me.renew_lock)
        if await busy_retry.retry(partial(recover_orphans, database, me.name)):
            wakeup.notify()

    checkpoint = partial(busy_retry.retry, database.checkpoint)
    async with anyio.create_task_group() as tasks:
        for action in (watch_other_processes, checkpoint):
            # Separate tasks: on a full disk only a checkpoint frees space.
            tasks.start_soon(busy_retry.run_guarded, partial(_repeat, _INTERVAL, action))
        tasks.start_soon(_repeat, _RECHECK_INTERVAL, recheck_halts)


async def _repeat(seconds: float, action: Callable[[], Awaitable[object]]) -> None:
    while True:
        await anyio.sleep(seconds)
        await action()
