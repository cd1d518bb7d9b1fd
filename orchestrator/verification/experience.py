"""What an account's exports took, by region, remembered for a moment."""

from datetime import datetime

import anyio
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.forecast import FinishedExport, latest_finished_exports

_SAMPLES = 200
_REMEMBERED = 2.0
"""Seconds for which what was learned of a region is not asked for again."""


class Experience:
    """The exports that ended last."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[float, list[FinishedExport]]] = {}

    async def ended(
        self, connection: AsyncConnection, profile: str, region: str, now: datetime
    ) -> list[FinishedExport]:
        """Those of a scope, the newest first."""
        moment = anyio.current_time()
        asked_at, ended = self._known.get((profile, region), (-_REMEMBERED, []))
        if moment - asked_at >= _REMEMBERED:
            ended = await latest_finished_exports(connection, profile, region, now, limit=_SAMPLES)
            self._known[profile, region] = moment, ended
        return ended
