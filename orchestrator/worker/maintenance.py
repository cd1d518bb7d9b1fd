"""What goes on beside the flow: the jobs of the dead, the length of the log, and hope."""

from collections.abc import Awaitable, Callable

import anyio

from orchestrator.job_queue.orphan_recovery import recover_orphans
from orchestrator.job_queue.worker_registry import Instance
from orchestrator.store import BusyRetry, Database
from orchestrator.wakeup import Wakeup

_HOUSEKEEPING = 5.0
_HOPE = 300.0


class Maintenance:
    """The chores of one run.

    Args:
        me: this process's instance.
        hope: what to try again every few minutes.
    """

    def __init__(
        self,
        database: Database,
        me: Instance,
        busy_retry: BusyRetry,
        wakeup: Wakeup,
        hope: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._me = me
        self._busy_retry = busy_retry
        self._wakeup = wakeup
        self._hope = hope

    async def run(self) -> None:
        """Does them until cancelled."""
        async with anyio.create_task_group() as chores:
            chores.start_soon(self._busy_retry.run_guarded, self._keep_house)
            chores.start_soon(self._busy_retry.run_guarded, self._keep_log_short)
            chores.start_soon(self._keep_hoping)

    async def recover_orphans(self) -> int:
        """Takes over what the dead have left behind; how many jobs it was."""
        return await self._busy_retry.retry(self._rescue)

    async def _rescue(self) -> int:
        return await recover_orphans(self._database, self._me.name)

    async def _keep_house(self) -> None:
        """Takes over what dies beside us."""
        while True:
            await anyio.sleep(_HOUSEKEEPING)
            await self._busy_retry.retry(self._me.renew_lock)
            if await self.recover_orphans():
                self._wakeup.notify()

    async def _keep_log_short(self) -> None:
        """Apart from what writes: on a full disk it is what makes room."""
        while True:
            await anyio.sleep(_HOUSEKEEPING)
            await self._busy_retry.retry(self._database.checkpoint)

    async def _keep_hoping(self) -> None:
        while True:
            await anyio.sleep(_HOPE)
            await self._hope()
            self._wakeup.notify()
