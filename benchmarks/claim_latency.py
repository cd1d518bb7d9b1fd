"""``python -m benchmarks.claim_latency SMALL LARGE``: compare claims in two stores."""

import asyncio
import json
import sys
from datetime import timedelta

import sqlalchemy as sa

from benchmarks.interleaved_timing import Operation, compare
from orchestrator.clock import SystemClock
from orchestrator.job_queue.claim import claim, claim_query
from orchestrator.limits.concurrency_limit import known_regions
from orchestrator.limits.halted_scopes import HaltedScopes
from orchestrator.limits.rate_limiter import RateKey, RateLimiter
from orchestrator.store import Database
from orchestrator.store.tables import scopes

_TIMES = 400
_PROFILE = "default"


async def main(small: str, large: str) -> None:
    """Print the ratio of the 99th percentiles of a claim: large store to small store."""
    opened = [Database(f"sqlite+aiosqlite:///{path}", SystemClock()) for path in (small, large)]
    before, after = [await _claiming(database) for database in opened]
    print(json.dumps(await compare(before, after, times=_TIMES, part=0.99)))
    for database in opened:
        await database.close()


async def _claiming(database: Database) -> Operation:
    async with database.write() as connection:
        # a ceiling that is never reached, so that each claim counts the running exports
        await connection.execute(scopes.update().values(ceiling=1_000_000))
    rate_limiter = RateLimiter(database, RateKey("ExportImages", "cvm.example", _PROFILE), 0)
    async with database.read() as connection:
        regions = tuple(await known_regions(connection, _PROFILE))
    what = claim_query(HaltedScopes().permitted_jobs(), lambda _table: sa.true())

    async def act() -> None:
        leases = await claim(
            database,
            what,
            regions,
            owner="benchmark",
            profile=_PROFILE,
            duration=timedelta(seconds=45),
            rate_limiter=rate_limiter,
            signed_at=database.clock.now(),
        )
        assert leases, "the queue is longer than the benchmark"

    return act


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
