"""A process of its own: it registers as an instance, says its name, and lives until it is told."""

import sys

import anyio

from orchestrator.clock import SystemClock
from orchestrator.job_queue.worker_registry import register_worker
from orchestrator.store import Database


async def live(url: str) -> None:
    """Holds an instance for as long as standard input stays open."""
    database = Database(url, SystemClock())
    async with register_worker(database) as me:
        sys.stdout.write(f"{me.name}\n")
        sys.stdout.flush()
        await anyio.to_thread.run_sync(sys.stdin.read)
    await database.close()


if __name__ == "__main__":
    anyio.run(live, sys.argv[1])
