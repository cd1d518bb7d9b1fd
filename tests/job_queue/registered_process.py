"""A process that registers as a worker, prints its name, and waits until stdin is closed."""

import sys

import anyio

from orchestrator.clock import SystemClock
from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.store import Database


async def live(url: str) -> None:
    """Register, and hold the lock until standard input is closed."""
    database = Database(url, SystemClock())
    async with register_worker(database) as me:
        sys.stdout.write(f"{me.name}\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)
    await database.close()


if __name__ == "__main__":
    anyio.run(live, sys.argv[1])
