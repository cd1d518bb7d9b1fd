"""Compare the times of two operations; they alternate, so that they meet the same load."""

import math
import time
from collections.abc import Awaitable, Callable

Operation = Callable[[], Awaitable[object]]


async def compare(before: Operation, after: Operation, *, times: int, part: float) -> float:
    """Return the ratio of a quantile of the second operation to that of the first."""
    took: tuple[list[float], list[float]] = ([], [])
    for _ in range(times):
        for act, seconds in zip((before, after), took, strict=True):
            began = time.perf_counter()
            await act()
            seconds.append(time.perf_counter() - began)
    least, most = (sorted(seconds)[math.ceil(part * times) - 1] for seconds in took)
    return most / least
