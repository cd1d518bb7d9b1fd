"""``python -m benchmarks.bare``: sends what stdin names, and keeps nothing of it."""

from collections.abc import Iterator

import anyio
import httpx

from benchmarks.calls import IN_AIR, LIMITS, Calls, given, task_of


async def main() -> None:
    """As many at once as a run has."""
    calls, images = Calls(), iter(given())
    async with httpx.AsyncClient(limits=LIMITS) as http, anyio.create_task_group() as tasks:
        for _ in range(IN_AIR):
            tasks.start_soon(_send, http, calls, images)


async def _send(http: httpx.AsyncClient, calls: Calls, images: Iterator[dict[str, str]]) -> None:
    for image in images:
        task_of(await http.request(**calls.request(**image)))


anyio.run(main)
