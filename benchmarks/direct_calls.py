"""``python -m benchmarks.direct_calls httpx|ours``: export the images on stdin, store nothing.

It uses a plain client of httpx, as a script would, or the HTTP client of a run.
"""

import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import httpx

from benchmarks.export_call_factory import IN_FLIGHT, LIMITS, ExportCall, read_images, read_task_id
from orchestrator.cloud.http_client import open_http_client

Send = Callable[..., Awaitable[httpx.Response]]


async def main(client_name: str) -> None:
    """Send the calls with as many in flight as a run has."""
    if client_name == "httpx":
        async with httpx.AsyncClient(limits=LIMITS) as client:
            await _send_all(client.request)
        return
    async with open_http_client("benchmark") as http:

        async def send(**request: Any) -> httpx.Response:
            return await http.send(**request, seconds=30)

        await _send_all(send)


async def _send_all(send: Send) -> None:
    calls, images = ExportCall(), iter(read_images())
    async with anyio.create_task_group() as tasks:
        for _ in range(IN_FLIGHT):
            tasks.start_soon(_send, send, calls, images)


async def _send(send: Send, calls: ExportCall, images: Iterator[dict[str, str]]) -> None:
    for image in images:
        read_task_id(await send(**calls.request(**image)))


anyio.run(main, sys.argv[1])
