"""``python -m benchmarks.looks SMALL LARGE``: the history of one store beside another's.

In a process of its own, for what is measured of other children would count its memory.
"""

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any

from benchmarks.interleaved_timing import Operation, compare
from benchmarks.past import APART, FIRST
from orchestrator import JobFilter, Orchestrator

_TIMES = 40
_NEWEST = 50


async def main(small: str, large: str) -> None:
    """Prints how many times as long each look takes in the large store, its 95th percentile."""
    async with _opened(small) as here, _opened(large) as there:
        before, after = await _by_filter(here), await _by_filter(there)
        ratios: dict[str, float] = {}
        for (name, look), (_, other) in zip(before, after, strict=True):
            ratio = await compare(look, other, times=_TIMES, part=0.95)
            ratios[name] = max(ratios.get(name, 0.0), ratio)
    print(json.dumps(ratios))


def _opened(path: str) -> Orchestrator:
    return Orchestrator(path, environ={}, create=False)


async def _by_filter(orchestrator: Orchestrator) -> list[tuple[str, Operation]]:
    """The newest jobs by each filter: of what is everywhere, and of what is rare and old."""
    (count,) = [job.id async for job in orchestrator.history(limit=1)]
    times = (FIRST + number * APART for number in (20, count // 2, count - 10))
    moments = [datetime.fromtimestamp(time, UTC) for time in times]
    newest, image = f"night-{(count - 1) // 1000:05}", f"img-{count:08x}"
    region = "ap-tokyo"
    asked: list[tuple[str, str, list[str]]] = [
        ("--batch", "batches", [newest, "night-00000", "night-*", "night-00000*", "*-00000"]),
        ("--state", "states", ["verified", "failed", "unknown", "*ed", "un*"]),
        ("--region", "regions", [region, "sa-saopaulo", "ap-*", "*-saopaulo"]),
        ("--bucket", "buckets", [f"backup-{region}-1250000000", "backup-*", "*saopaulo*"]),
        ("--image", "images", [image, "img-00000001", "img-*", "img-0000000*"]),
        ("--task-id", "task_ids", ["1000000148", "1*", "10000001*", "7*"]),
        ("--code", "codes", ["InvalidImageId.NotFound", "Rare.Code", "Invalid*", "Rare*"]),
        ("--job", "jobs", ["7", str(count), "0*", "00000*"]),
    ]
    filters = [
        ("none", JobFilter()),
        *((name, _only(field, value)) for name, field, values in asked for value in values),
        *(("--since", JobFilter(since=moment)) for moment in moments),
        *(("--until", JobFilter(until=moment)) for moment in moments),
    ]
    return [(name, _newest(orchestrator, wanted)) for name, wanted in filters]


def _only(field: str, value: str) -> JobFilter:
    fields: dict[str, Any] = {field: (value,)}
    return JobFilter(**fields)


def _newest(orchestrator: Orchestrator, wanted: JobFilter) -> Operation:
    async def look() -> object:
        return [job async for job in orchestrator.history(wanted, limit=_NEWEST)]

    return look


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
