"""What goes on beside the flow: the jobs of the dead, the length of the log, and hope."""

from collections.abc import Awaitable, Callable

import anyio

from orchestrator.job_queue.orphan_recovery import rescue
from orchestrator.job_queue.worker_registry import Instance
from orchestrator.store import Database, Patience
from orchestrator.wakeup import News

_HOUSEKEEPING = 5.0
_HOPE = 300.0


class Upkeep:
    """The chores of one run.

    Args:
        me: this process's instance.
        hope: what to try again every few minutes.
    """

    def __init__(
        self,
        database: Database,
        me: Instance,
        patience: Patience,
        news: News,
        hope: Callable[[], Awaitable[None]],
    ) -> None:
        self._database = database
        self._me = me
        self._patience = patience
        self._news = news
        self._hope = hope

    async def run(self) -> None:
        """Does them until cancelled."""
        async with anyio.create_task_group() as chores:
            chores.start_soon(self._patience.guarded, self._keep_house)
            chores.start_soon(self._patience.guarded, self._keep_log_short)
            chores.start_soon(self._keep_hoping)

    async def rescue(self) -> int:
        """Takes over what the dead have left behind; how many jobs it was."""
        return await self._patience.until_done(self._rescue)

    async def _rescue(self) -> int:
        return await rescue(self._database, self._me.name)

    async def _keep_house(self) -> None:
        """Takes over what dies beside us."""
        while True:
            await anyio.sleep(_HOUSEKEEPING)
            await self._patience.until_done(self._me.keep_present)
            if await self.rescue():
                self._news.spread()

    async def _keep_log_short(self) -> None:
        """Apart from what writes: on a full disk it is what makes room."""
        while True:
            await anyio.sleep(_HOUSEKEEPING)
            await self._patience.until_done(self._database.checkpoint)

    async def _keep_hoping(self) -> None:
        while True:
            await anyio.sleep(_HOPE)
            await self._hope()
            self._news.spread()
