"""``python -m benchmarks.looks history|status SMALL LARGE``: one store beside another.

In a process of its own, for what is measured of other children would count its memory.
"""

import asyncio
import json
import math
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from benchmarks.past import APART, FIRST
from orchestrator import JobFilter, Orchestrator

_TIMES = 40
_NEWEST = 50

Look = Callable[[], Awaitable[object]]


async def main(what: str, small: str, large: str) -> None:
    """Prints how many times as long each look takes in the large store."""
    async with _opened(small) as here, _opened(large) as there:
        looks = _by_filter if what == "history" else _at_status
        before, after = await looks(here), await looks(there)
        ratios: dict[str, float] = {}
        for (name, look), (_, other) in zip(before, after, strict=True):
            ratios[name] = max(ratios.get(name, 0.0), await _against(look, other))
    print(json.dumps(ratios))


def _opened(path: str) -> Orchestrator:
    return Orchestrator(path, environ={}, create=False)


async def _at_status(orchestrator: Orchestrator) -> list[tuple[str, Look]]:
    return [("status", orchestrator.status)]


async def _by_filter(orchestrator: Orchestrator) -> list[tuple[str, Look]]:
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


def _newest(orchestrator: Orchestrator, wanted: JobFilter) -> Look:
    async def look() -> object:
        return [job async for job in orchestrator.history(wanted, limit=_NEWEST)]

    return look


async def _against(before: Look, after: Look) -> float:
    """The 95th percentile of one look against that of the other; by turns, for equal luck."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(_TIMES):
        for look, times in zip((before, after), took, strict=True):
            began = time.perf_counter()
            await look()
            times.append(time.perf_counter() - began)
    least, most = (sorted(times)[math.ceil(0.95 * _TIMES) - 1] for times in took)
    return most / least


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
