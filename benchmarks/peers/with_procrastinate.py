"""procrastinate on PostgreSQL: one commit takes a job, another one finishes it; jobs are kept.

As its documents advise: asynchronous tasks, as many at once as wanted in one worker, many jobs
deferred in one statement. Its pool has a connection for each of them.
"""

import sys

import anyio
import httpx
from procrastinate import App, PsycopgConnector

from benchmarks.export_call import IN_FLIGHT, LIMITS, ExportCall, read_images, read_task_id


async def main(store: str, verb: str) -> None:
    """Enqueues what stdin names, or works until all of it is done."""
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
