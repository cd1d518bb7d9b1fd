"""Requests a second, shared by all processes on a store: each takes its slots from one row.

Within a process aiolimiter keeps the requests of a stream apart.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime

import anyio
import sqlalchemy as sa
from aiolimiter import AsyncLimiter
from sqlalchemy.ext.asyncio import AsyncConnection

from orchestrator.limits.permit_stream import PermitStream
from orchestrator.store import Database, insert_or_ignore
from orchestrator.store.tables import rates

_LEAD = 0.05
"""Seconds before its slot at which a request is claimed: time for the claim's commit, so that a
slow disk does not bunch the requests that the slots have spaced."""

_KEPT = [field.name for field in fields(PermitStream)]


@dataclass(frozen=True, slots=True, order=True)
class RateKey:
    """What the vendor counts apart (source: its page on request frequency limits)."""

    action: str
    host: str
    profile: str


# made anew, each would cost more than its execution
_THIS = sa.and_(*(column == sa.bindparam(f"this_{column.name}") for column in rates.primary_key))
_READ = sa.select(*(rates.c[name] for name in _KEPT)).where(_THIS).with_for_update()
_WRITE = rates.update().where(_THIS).values({name: sa.bindparam(f"new_{name}") for name in _KEPT})


class RateLimiters:
    """The streams of requests, one for each key.

    Args:
        rate: requests a second allowed under each key; 0 is no limit.
    """

    def __init__(self, database: Database, rate: float) -> None:
        self._database = database
        self._rate = rate
        self._limiters: dict[RateKey, RateLimiter] = {}

    def rate_limiter(self, key: RateKey) -> "RateLimiter":
        """The stream of requests under this key."""
        if key not in self._limiters:
            self._limiters[key] = RateLimiter(self._database, key, self._rate)
        return self._limiters[key]


class RateLimiter:
    """This process's part in one stream.

    Slots are taken in the transaction that claims what is to be sent in them, so that none is
    given away for nothing.
    """

    def __init__(self, database: Database, key: RateKey, rate: float) -> None:
        self._database = database
        self.key = key
        self._this = {f"this_{name}": value for name, value in asdict(key).items()}
        self._rate = rate
        self._begins_at = 0.0
        self._limiter = AsyncLimiter(1, 1 / rate) if rate else None
        """Keeps the requests of this process apart: a slow commit, or a stall of the process, must
        not bring together what the permits have spaced."""

    @property
    def is_ahead(self) -> bool:
        """Whether the next slot is too far off to be asked for."""
        return self._begins_at - _LEAD > anyio.current_time()

    async def wait_for_turn(self) -> None:
        """Waits until it is worth asking the store for slots."""
        while self.is_ahead:
            await anyio.sleep_until(self._begins_at - _LEAD)

    async def free_permits(self, connection: AsyncConnection, limit: int) -> "FreePermits":
        """The slots that can be taken in this transaction."""
        stream = await self._held(connection)
        # only now: waiting for the row may have taken long, and others have written to it since
        now = await self._database.now(connection)
        permits = stream.permits(self._rate, now, limit)
        return self._learnt(FreePermits(stream, now, anyio.current_time(), permits))

    async def take_permits(
        self, connection: AsyncConnection, free: "FreePermits", count: int
    ) -> list["Permit"]:
        """Takes the earliest of the slots that are free."""
        taken = free.permits[:count]
        if taken and free.stream.allowed(self._rate, free.now) is not None:
            stream = free.stream.without(taken[-1], self._rate, free.now)
            await self._write(connection, stream)
            self._learnt(replace(free, stream=stream))
        return [Permit(self._limiter, free.moment(at)) for at in taken]

    async def acquire(self) -> "Permit":
        """Waits for one slot, for a request that needs no claim."""
        while True:
            await self.wait_for_turn()
            async with self._database.write() as connection:
                free = await self.free_permits(connection, 1)
                for taken in await self.take_permits(connection, free, 1):
                    return taken

    async def slow_down(self, connection: AsyncConnection) -> None:
        """The vendor has counted too many: all processes slow down a little, for a while."""
        free = await self.free_permits(connection, 0)
        stream = free.stream.slowed(self._rate, free.now)
        await self._write(connection, stream)
        self._learnt(replace(free, stream=stream))

    def _learnt(self, free: "FreePermits") -> "FreePermits":
        self._begins_at = free.moment(free.stream.begins(self._rate, free.now))
        return free

    async def _held(self, connection: AsyncConnection) -> PermitStream:
        """The stream as it is kept, until this transaction ends for nobody else."""
        row = (await connection.execute(_READ, self._this)).first()
        if row is None:
            begun = PermitStream(next_at=await self._database.now(connection))
            new = {**asdict(self.key), **asdict(begun)}
            await connection.execute(insert_or_ignore(connection, rates).values(new))
            row = (await connection.execute(_READ, self._this)).one()
        return PermitStream(*row)

    async def _write(self, connection: AsyncConnection, stream: PermitStream) -> None:
        new = {f"new_{name}": value for name, value in asdict(stream).items()}
        await connection.execute(_WRITE, {**self._this, **new})


@dataclass(frozen=True, slots=True)
class FreePermits:
    """What a transaction has found free: as long as it lasts, nobody else takes it.

    Args:
        now: the moment by the store's clock.
        told_at: the same by the event loop's.
    """

    stream: PermitStream
    now: datetime
    told_at: float
    permits: Sequence[datetime]

    def moment(self, at: datetime) -> float:
        """A moment of the store's clock on the event loop's."""
        return self.told_at + (at - self.now).total_seconds()


@dataclass(frozen=True, slots=True)
class Permit:
    """The right to one request, at a moment of the event loop's clock.

    Args:
        limiter: spaces the requests of this process; ``None`` without a limit.
    """

    limiter: AsyncLimiter | None
    at: float

    async def wait(self) -> None:
        """Return when the request may leave."""
        await anyio.sleep_until(self.at)
        if self.limiter is not None:
            await self.limiter.acquire()
