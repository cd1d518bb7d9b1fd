"""Figures from the ledger of a simulated cloud: the rate of requests, and the running exports."""

import heapq
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

_WIDTH = 72
_HEIGHT = 8
_FINE = 20
_NEARLY = 0.9


def accepted_per_second(requests: Sequence[dict[str, Any]]) -> float:
    """Return the accepted requests per second, from the first to the last."""
    times = sorted(one["monotonic"] for one in requests if one["accepted"])
    return float((len(times) - 1) / (times[-1] - times[0]))


def worst_second(requests: Sequence[dict[str, Any]]) -> int:
    """Return the most requests that arrived in any second, wherever it begins."""
    times = sorted(one["monotonic"] for one in requests)
    return max(bisect_left(times, start + 1) - n for n, start in enumerate(times))


def refused(requests: Sequence[dict[str, Any]]) -> float:
    """Return the share of the requests that was refused, for rate or capacity."""
    return refused_for(requests, "LimitExceeded") / len(requests)


def refused_for(requests: Sequence[dict[str, Any]], what: str) -> int:
    """Return how many requests were refused with a code that contains this text."""
    return sum(what in (one["code"] or "") for one in requests)


def makespan(exports: Sequence[dict[str, Any]]) -> float:
    """Return the seconds from the first acceptance to the last end."""
    return float(max(_ends(exports)) - min(one["accepted_at"] for one in exports))


def duration(export: dict[str, Any]) -> float:
    """Return the seconds for which one export held its slot."""
    return float(export["ends_at"] - export["accepted_at"])


def bound(exports: Sequence[dict[str, Any]], cap: int, rate: float = math.inf) -> float:
    """Return the seconds that these exports take at least, in whatever order.

    Args:
        cap: exports at once.
        rate: requests per second: a slot is not used before its request may be sent.
    """
    times = [duration(one) for one in exports]
    ramp = sum(slot / rate for slot in range(min(cap, len(times))))
    return max((sum(times) + ramp) / cap, *times)


def unhindered(exports: Sequence[dict[str, Any]], cap: int) -> float:
    """Return the seconds that these exports take if no slot is ever idle.

    The exports start in their order of acceptance.
    """
    free_at = [0.0] * cap
    for one in sorted(exports, key=lambda one: one["accepted_at"]):
        heapq.heapreplace(free_at, free_at[0] + duration(one))
    return max(free_at)


def tail(exports: Sequence[dict[str, Any]], cap: int) -> float:
    """Return the slot seconds that were idle because nothing was left to export."""
    since = max(one["accepted_at"] for one in exports)
    left = [max(0.0, end - since) for end in _ends(exports)]
    return float(cap * max(left) - sum(left))


def running(
    exports: Sequence[dict[str, Any]], cap: int, *, seconds: float | None = None
) -> list[str]:
    """Draw how many exports ran at once, over time, against the cap."""
    begin = min(one["accepted_at"] for one in exports)
    step = (seconds or makespan(exports)) / _WIDTH
    counts = [_at_once(exports, begin + (column + 0.5) * step) for column in range(_WIDTH)]
    top = max(cap, *counts)
    lines = []
    for row in range(_HEIGHT, 0, -1):
        level = top * (row - 0.5) / _HEIGHT
        bars = "".join("█" if count >= level else " " for count in counts)
        lines.append(f"{top * row / _HEIGHT:5.0f} │{bars}")
    return [*lines, f"      └{'─' * _WIDTH} {step * _WIDTH:.0f} s; cap {cap}"]


def time_to_reach(
    exports: Sequence[dict[str, Any]], changed: float, cap: int, lasts: float
) -> float:
    """Return the time until nearly as many exports run as a changed cap allows.

    The unit is the duration of one export. From then on the mean over each duration must stay so,
    until five durations have passed since the change.
    """
    step = lasts / _FINE
    counts = [_at_once(exports, changed + n * step) for n in range(6 * _FINE)]
    means = [sum(counts[n : n + _FINE]) / _FINE for n in range(5 * _FINE)]
    outside = [n + 1 for n, mean in enumerate(means) if not _NEARLY * cap <= mean <= cap]
    return max(outside, default=0) / _FINE


def _at_once(exports: Sequence[dict[str, Any]], moment: float) -> int:
    return sum(one["accepted_at"] <= moment < one["ends_at"] for one in exports)


def _ends(exports: Sequence[dict[str, Any]]) -> list[float]:
    return [one["ends_at"] for one in exports]
