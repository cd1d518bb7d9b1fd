"""procrastinate on PostgreSQL: one commit takes a job, another finishes it; jobs are kept.

As its documents advise: asynchronous tasks, all in one worker, and many jobs deferred in one
statement. Its pool has one connection for each request in flight.
"""

import sys

import anyio
import httpx
from procrastinate import App, PsycopgConnector

from benchmarks.export_call_factory import IN_FLIGHT, LIMITS, ExportCall, read_images, read_task_id


async def main(store: str, verb: str) -> None:
    """Enqueue the images on stdin, or work until all are done."""
    app = App(connector=PsycopgConnector(conninfo=store, max_size=IN_FLIGHT))
    async with httpx.AsyncClient(limits=LIMITS) as http, app.open_async():
        calls = ExportCall()

        async def export(image_id: str, region: str) -> int:
            return read_task_id(await http.request(**calls.request(image_id, region)))

        task = app.task(name="export")(export)
        if verb == "enqueue":
            await app.schema_manager.apply_schema_async()
            await task.batch_defer_async(*read_images())
        else:
            await app.run_worker_async(concurrency=IN_FLIGHT, wait=False)
            done = await app.job_manager.list_jobs_async(status="succeeded")
            print(len(list(done)))


anyio.run(main, sys.argv[1], sys.argv[2])
