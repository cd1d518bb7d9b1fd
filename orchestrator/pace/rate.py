"""Requests a second, evenly spaced: the limit that the vendor counts on arrival."""

from collections import defaultdict
from dataclasses import dataclass

import anyio
from aiolimiter import AsyncLimiter

LEAD = 0.03
"""Seconds between a permit and the moment its request may leave: time for the claim's commit,
so that a slow disk does not bunch the requests that the limiter has spaced."""

_MARGIN = 0.98
"""Part of the allowance that is used; the rest absorbs jitter on the way to the server."""

_SAVED = 0.25
"""Part of a permit that idle time may save up."""

_CLOSEST = 0.995
"""Part of the interval that two requests are apart at least: after a delay, time is caught up,
but never so fast that a second could see one request more than the allowance."""

_LONGEST_PAUSE = 8.0


@dataclass(frozen=True, slots=True)
class RateKey:
    """What the vendor counts apart (source: its page on request frequency limits)."""

    action: str
    host: str
    account: str


class Pacer:
    """Permits for requests, one limiter for each key.

    Args:
        rate: requests a second allowed under each key; 0 is no limit.
    """

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lanes: dict[RateKey, _Lane] = {}
        self._strikes: defaultdict[RateKey, int] = defaultdict(int)

    async def permit(self, key: RateKey) -> "Slot":
        """Waits for the next place in the stream of requests under this key."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = _Lane(self._rate)
        return await lane.next()

    def slow_down(self, key: RateKey) -> float:
        """Pauses the stream after the vendor counted too many; returns the pause in seconds.

        Requests that were in the air together are refused together: they count as one refusal.
        """
        lane = self._lanes[key]
        now = anyio.current_time()
        if now < lane.resumes_at:
            return lane.resumes_at - now
        pause = min(_LONGEST_PAUSE, 0.5 * 2.0 ** self._strikes[key])
        self._strikes[key] += 1
        lane.resumes_at = now + pause
        return pause

    def accepted(self, key: RateKey) -> None:
        """Forgets earlier refusals: the stream flows."""
        self._strikes.pop(key, None)


class _Lane:
    """One stream of evenly spaced permits.

    A limiter of one permit per interval, because a limiter of twenty per second lets all
    twenty go at once and as many again while it leaks. A quarter of a permit may be saved up,
    so that a loop which wakes a little late does not lose that time for good.
    """

    def __init__(self, rate: float) -> None:
        self.resumes_at = 0.0
        self.interval = 1 / (rate * _MARGIN) if rate else 0.0
        self._free_at = 0.0
        held = 1 + _SAVED
        self._limiter = AsyncLimiter(held, held * self.interval) if rate else None

    async def next(self) -> "Slot":
        if self._limiter is not None:
            await self._limiter.acquire()
        while (pause := self.resumes_at - anyio.current_time()) > 0:
            await anyio.sleep(pause)
        return Slot(self, anyio.current_time() + (LEAD if self._limiter is not None else 0.0))

    def departure(self, at: float) -> float:
        """When a request that is ready now may leave: not before `at`, nor close behind another.

        A claim that took its time would otherwise bring its request next to the following one.
        """
        departure = max(at, self._free_at, anyio.current_time())
        self._free_at = departure + self.interval * _CLOSEST
        return departure


@dataclass(frozen=True, slots=True)
class Slot:
    """The right to one request, at a moment of the event loop's clock."""

    _lane: _Lane
    at: float

    async def reached(self) -> None:
        """Returns when the request may leave."""
        wait = self._lane.departure(self.at) - anyio.current_time()
        await anyio.sleep(max(0.0, wait))
