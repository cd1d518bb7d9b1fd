"""``python -m benchmarks.bare``: sends what stdin names, a line each, and keeps nothing of it."""

import sys
from collections.abc import Iterator

import anyio
import httpx

from benchmarks.calls import IN_AIR, Calls, task_of


async def main() -> None:
    """As many at once as a run has."""
    lines = iter(sys.stdin.read().split())
    calls = Calls()
    async with (
        httpx.AsyncClient(limits=httpx.Limits(max_connections=IN_AIR)) as http,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(IN_AIR):
            tasks.start_soon(_send, http, calls, lines)


async def _send(http: httpx.AsyncClient, calls: Calls, lines: Iterator[str]) -> None:
    for line in lines:
        image_id, region = line.split(",")
        task_of(await http.request(**calls.request(image_id, region)))


anyio.run(main)
