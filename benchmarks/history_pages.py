"""``python -m benchmarks.history_pages FILE``: measure a page of the history for each filter.

A process of its own: a parent that imports the program would distort the memory of its children.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict
from datetime import UTC, datetime
from statistics import median
from typing import Any

from benchmarks.large_store import FIRST, SECONDS_APART
from orchestrator import JobFilter, Orchestrator

_TIMES = 5
_PAGE = 50


async def main(path: str) -> None:
    """Print the seconds for a page by each filter: the median for its slowest value."""
    seconds: dict[str, float] = defaultdict(float)
    async with Orchestrator(path, environ={}, create=False) as orchestrator:
        for name, wanted in await _filters(orchestrator):
            times = [await _seconds(orchestrator, wanted) for _ in range(_TIMES)]
            seconds[name] = max(seconds[name], median(times))
    print(json.dumps(seconds))


async def _filters(orchestrator: Orchestrator) -> list[tuple[str, JobFilter]]:
    """Return filters that match many jobs, only the oldest jobs, or no jobs."""
    (count,) = [newest.id async for newest in orchestrator.history(limit=1)]
    newest_batch, newest_image = f"night-{(count - 1) // 1000:05}", f"img-{count:08x}"
    asked: list[tuple[str, str, list[str]]] = [
        ("--batch", "batches", [newest_batch, "night-00000", "night-*", "*-00000", "none"]),
        ("--state", "states", ["verified", "failed", "unknown", "un*", "sending"]),
        ("--region", "regions", ["ap-tokyo", "sa-saopaulo", "ap-*", "*-saopaulo", "none"]),
        ("--bucket", "buckets", ["backup-ap-tokyo-1250000000", "*saopaulo*", "none"]),
        ("--image", "images", [newest_image, "img-00000001", "img-*", "img-0000000*", "none"]),
        ("--task-id", "task_ids", ["1000000148", "1*", "10000001*", "7*"]),
        ("--code", "codes", ["InvalidImageId.NotFound", "Rare.Code", "Rare*", "none"]),
        ("--job", "jobs", ["7", str(count), "0*", "00000*", "none"]),
    ]
    times = [
        datetime.fromtimestamp(FIRST + number * SECONDS_APART, UTC)
        for number in (0, 20, count // 2, count - 10, count + 10)
    ]
    return [
        ("none", JobFilter()),
        *((name, _only(field, value)) for name, field, values in asked for value in values),
        *(("--since", JobFilter(since=since)) for since in times),
        *(("--until", JobFilter(until=until)) for until in times),
    ]


def _only(field: str, value: str) -> JobFilter:
    fields: dict[str, Any] = {field: (value,)}
    return JobFilter(**fields)


async def _seconds(orchestrator: Orchestrator, wanted: JobFilter) -> float:
    began = time.perf_counter()
    async for _ in orchestrator.history(wanted, limit=_PAGE):
        pass
    return time.perf_counter() - began


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
