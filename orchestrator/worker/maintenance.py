"""Run maintenance: recover orphaned jobs, checkpoint the WAL, re-check halted scopes."""

from collections.abc import Awaitable, Callable

import anyio

from orchestrator.job_queue.orphan_recovery import discard_impossible_waits, recover_orphans
from orchestrator.job_queue.worker_registry import Registration
from orchestrator.store import BusyRetry, Database
from orchestrator.wakeup import Wakeup

_INTERVAL = 5.0
"""Seconds between two checks for orphaned jobs, and between two checkpoints."""

_RECHECK_INTERVAL = 300.0
"""Seconds between two checks whether an operator has fixed what halted a scope."""


class Maintenance:
    """The background work of one run.

    Args:
        me: this process's registration.
        recheck_halts: called every few minutes.
    """

    def __init__(
        self,
        database: Database,
        me: Registration,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
        recheck_halts: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._me = me
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._recheck_halts = recheck_halts

    async def prepare_store(self) -> None:
        """Recover what earlier runs have left, before this one claims anything."""
        await self._busy_retry.retry(lambda: discard_impossible_waits(self._database))
        await self._recover_orphans()

    async def run(self) -> None:
        """Do the background work until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._busy_retry.run_guarded, self._watch_other_processes)
            # Separate from the task above: on a full disk only a checkpoint frees space.
            tasks.start_soon(self._busy_retry.run_guarded, self._checkpoint)
            tasks.start_soon(self._recheck)

    async def _recover_orphans(self) -> int:
        return await self._busy_retry.retry(lambda: recover_orphans(self._database, self._me.name))

    async def _watch_other_processes(self) -> None:
        while True:
            await anyio.sleep(_INTERVAL)
            await self._busy_retry.retry(self._me.renew_lock)
            if await self._recover_orphans():
                self._wakeup.notify()

    async def _checkpoint(self) -> None:
        while True:
            await anyio.sleep(_INTERVAL)
            await self._busy_retry.retry(self._database.checkpoint)

    async def _recheck(self) -> None:
        while True:
            await anyio.sleep(_RECHECK_INTERVAL)
            await self._recheck_halts()
            self._wakeup.notify()
