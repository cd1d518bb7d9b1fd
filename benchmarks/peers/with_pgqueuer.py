"""pgqueuer on PostgreSQL: a commit takes a batch of jobs, another moves a batch to the log.

As its documents advise: one connection of asyncpg, uvloop, tables that survive a crash, its
setting of autovacuum, and batches above the default for short jobs. It can hold two batches, the
minimum that it allows. The task itself limits the requests in flight.
"""

import json
import sys

import anyio
import asyncpg
import httpx
import uvloop
from pgqueuer import PgQueuer
from pgqueuer.models import Job
from pgqueuer.types import QueueExecutionMode

from benchmarks.export_call_factory import IN_FLIGHT, LIMITS, ExportCall, read_images, read_task_id

_DONE = "SELECT count(*) FROM pgqueuer_log WHERE status = 'successful'"


async def main(store: str, verb: str) -> None:
    """Enqueue the images on stdin, or work until all are done."""
    connection = await asyncpg.connect(store)
    queue = PgQueuer.from_asyncpg_connection(connection)
    if verb == "enqueue":
        await _enqueue(queue)
    else:
        await _work(queue)
        print(await connection.fetchval(_DONE))
    await connection.close()


async def _enqueue(queue: PgQueuer) -> None:
    await queue.qm.queries.install()
    await queue.qm.queries.optimize_autovacuum()
    images = [json.dumps(image).encode() for image in read_images()]
    await queue.qm.queries.enqueue(["export"] * len(images), images, [0] * len(images))


async def _work(queue: PgQueuer) -> None:
    calls, in_flight = ExportCall(), anyio.CapacityLimiter(IN_FLIGHT)
    async with httpx.AsyncClient(limits=LIMITS) as http:

        async def export(job: Job) -> None:
            image = json.loads(job.payload or b"")
            async with in_flight:
                read_task_id(await http.request(**calls.request(**image)))

        queue.entrypoint("export")(export)
        await queue.run(
            batch_size=IN_FLIGHT, max_concurrent_tasks=2 * IN_FLIGHT, mode=QueueExecutionMode.drain
        )


uvloop.run(main(*sys.argv[1:]))
