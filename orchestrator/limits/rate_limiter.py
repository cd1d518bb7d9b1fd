"""Requests per second, shared by all processes that use the store.

The vendor counts the requests that arrive within each second, per action, endpoint and sub-account.
One row per stream of requests hands out evenly spaced permits, so that no second holds more than
its share, wherever it begins. A process takes its permits in the transaction that claims the jobs,
so no permit is wasted. Within the process aiolimiter spaces the requests.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta

import anyio
import sqlalchemy as sa
from aiolimiter import AsyncLimiter
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.store import Database, insert_or_ignore
from orchestrator.store.tables import rates

HORIZON = timedelta(milliseconds=210)
"""Permits are handed out this far ahead, four to a claim at 20 a second: a claimed job waits no
longer than this to be sent."""

_MAX_LATE = timedelta(milliseconds=110)
"""A permit can be taken this much later. Without that every delay of a claim would lose one."""

_MARGIN = 0.98
"""Share of the allowed rate that is used. Network latency varies, so at the full rate a second
would sometimes see one request too many."""

_MAX_AHEAD = timedelta(seconds=2)
"""A next permit further ahead than this plus one interval means that a clock was set back."""

_DOCUMENTED_RATE = 20.0
"""Requests per second that the vendor allows. A stream without a limit is slowed down from here."""

_MIN_RATE = 0.5
"""Requests per second below which refusals do not slow a stream down; a lower configured rate stays
as it is. Without it a burst of refusals could leave minutes until the next request."""

_CUT = 0.03
"""Share of the rate that one refusal costs. A single refusal may be chance; many in a second mean
that other programs use the same allowance, and then the cuts add up."""

_RECOVERY = 0.005
"""Share of the allowed rate that is regained per second after a cut."""

_LEAD = 0.05
"""Seconds before its permit at which a job is claimed: the commit takes time, and a slow disk must
not bunch requests that the permits have spaced."""


@dataclass(frozen=True, slots=True, order=True)
class RateKey:
    """What the vendor counts separately (source: its page on request frequency limits)."""

    action: str
    host: str
    profile: str


@dataclass(frozen=True, slots=True)
class PermitStream:
    """The stored state of one stream of requests; pure functions of it and of the time.

    Args:
        next_at: earliest time of the next permit.
        pace: requests per second after the last slow-down; ``None`` before any.
        slowed_at: time of the last slow-down.
    """

    next_at: datetime
    pace: float | None = None
    slowed_at: datetime | None = None

    def allowed(self, rate: float, now: datetime) -> float | None:
        """Return the requests per second allowed now; ``None`` is no limit.

        Args:
            rate: the configured limit; 0 is no limit.
        """
        # a slow-down in the future was recorded by another clock, and is ignored
        if self.pace is not None and self.slowed_at is not None and self.slowed_at <= now:
            full = rate or _DOCUMENTED_RATE
            pace = self.pace + full * _RECOVERY * (now - self.slowed_at).total_seconds()
            if pace < full:
                return pace
        return rate or None

    def interval(self, rate: float, now: datetime) -> timedelta:
        """Return the time between two requests."""
        allowed = self.allowed(rate, now)
        return timedelta(seconds=1 / (allowed * _MARGIN)) if allowed else timedelta()

    def permits(self, rate: float, now: datetime, limit: int) -> list[datetime]:
        """Return the times of the permits that can be handed out now, earliest first."""
        first = self.begins(rate, now)
        step = self.interval(rate, now)
        if first > now + HORIZON:
            return []
        fitting = 1 + (now + HORIZON - first) // step if step else limit
        return [first + number * step for number in range(min(limit, fitting))]

    def begins(self, rate: float, now: datetime) -> datetime:
        """Return the time of the next permit; now, if the stream was idle."""
        furthest = now + _MAX_AHEAD + self.interval(rate, now)
        is_near = now - _MAX_LATE <= self.next_at <= furthest
        return self.next_at if is_near else now

    def slowed(self, rate: float, now: datetime) -> "PermitStream":
        """Return the stream after the vendor refused a request because of its rate."""
        allowed = self.allowed(rate, now) or _DOCUMENTED_RATE
        return replace(self, pace=max(_MIN_RATE, allowed * (1 - _CUT)), slowed_at=now)


class RateLimiter:
    """This process's access to one stream of permits.

    Args:
        rate: requests per second allowed; 0 is no limit.
    """

    def __init__(self, database: Database, key: RateKey, rate: float) -> None:
        self._database = database
        self.key = key
        self._rate = rate
        this = sa.and_(*(rates.c[name] == value for name, value in asdict(key).items()))
        columns = (rates.c[field.name] for field in fields(PermitStream))
        self._query = sa.select(*columns).where(this).with_for_update()
        self._update = rates.update().where(this)
        self._begins_at = 0.0
        # A slow commit or a stall of this process must not bunch what the permits have spaced.
        self._limiter = AsyncLimiter(1, 1 / rate) if rate else None

    @property
    def is_ahead(self) -> bool:
        """Whether the next permit is too far ahead to be taken yet."""
        return self._begins_at - _LEAD > anyio.current_time()

    async def wait_for_turn(self) -> None:
        """Wait until permits may be available in the store."""
        while self.is_ahead:
            await anyio.sleep_until(self._begins_at - _LEAD)

    async def free_permits(self, connection: AsyncConnection, limit: int) -> "FreePermits":
        """Return the permits that this transaction can take; it holds the stream's row."""
        stream = await self._read_locked(connection)
        # read the time now: waiting for the row may have taken long, and others may have changed it
        now = await self._database.now(connection)
        permits = stream.permits(self._rate, now, limit)
        free = FreePermits(stream, now, anyio.current_time(), permits)
        self._remember(free)
        return free

    async def take_permits(
        self, connection: AsyncConnection, free: "FreePermits", count: int
    ) -> list["Permit"]:
        """Take the earliest of the free permits."""
        taken = free.permits[:count]
        if taken and free.stream.allowed(self._rate, free.now) is not None:
            next_at = taken[-1] + free.stream.interval(self._rate, free.now)
            rest = replace(free.stream, next_at=next_at)
            await self._write(connection, replace(free, stream=rest))
        return [Permit(self._limiter, free.local_time(at)) for at in taken]

    async def acquire(self) -> "Permit":
        """Wait for one permit, for a request that needs no claim."""
        while True:
            await self.wait_for_turn()
            async with self._database.write() as connection:
                free = await self.free_permits(connection, 1)
                for taken in await self.take_permits(connection, free, 1):
                    return taken

    async def slow_down(self, connection: AsyncConnection) -> None:
        """Slow all processes down for a while.

        Call this after the vendor has refused a request because of its rate.
        """
        free = await self.free_permits(connection, 0)
        slowed = free.stream.slowed(self._rate, free.now)
        await self._write(connection, replace(free, stream=slowed))

    def _remember(self, free: "FreePermits") -> None:
        self._begins_at = free.local_time(free.stream.begins(self._rate, free.now))

    async def _read_locked(self, connection: AsyncConnection) -> PermitStream:
        """Read the stream and lock its row until the end of the transaction."""
        row = (await connection.execute(self._query)).first()
        if row is None:
            new = PermitStream(next_at=await self._database.now(connection))
            values = {**asdict(self.key), **asdict(new)}
            await connection.execute(insert_or_ignore(connection, rates).values(values))
            row = (await connection.execute(self._query)).one()
        return PermitStream(*row)

    async def _write(self, connection: AsyncConnection, free: "FreePermits") -> None:
        await connection.execute(self._update.values(asdict(free.stream)))
        self._remember(free)


@dataclass(frozen=True, slots=True)
class FreePermits:
    """The permits that a transaction has found free; no other process takes them while it lasts.

    Args:
        now: time of the store's clock when it looked.
        local_now: the same moment on the event loop's clock.
        permits: their times on the store's clock, earliest first.
    """

    stream: PermitStream
    now: datetime
    local_now: float
    permits: Sequence[datetime]

    def local_time(self, at: datetime) -> float:
        """Convert a time of the store's clock to the event loop's clock."""
        return self.local_now + (at - self.now).total_seconds()


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to send one request.

    Args:
        limiter: spaces the requests of this process; ``None`` without a limit.
        at: earliest time to send, on the event loop's clock.
    """

    limiter: AsyncLimiter | None
    at: float

    async def wait(self) -> None:
        """Wait until the request may be sent."""
        await anyio.sleep_until(self.at)
        if self.limiter is not None:
            await self.limiter.acquire()
