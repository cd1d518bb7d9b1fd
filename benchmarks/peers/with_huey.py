"""huey on SQLite: one commit takes a job out of the queue, another stores its result.

It uses threads, as its documents advise for tasks that wait, and ``fsync``, because without it a
commit can be lost in a crash of the machine.
"""

import sys
import threading

import httpx
from huey import SqliteHuey
from huey.signals import SIGNAL_COMPLETE

from benchmarks.export_call_factory import IN_FLIGHT, LIMITS, ExportCall, read_images, read_task_id


def main(store: str, verb: str) -> None:
    """Enqueue the images on stdin, or work until all are done."""
    huey = SqliteHuey("night", filename=store, fsync=True)
    calls, http = ExportCall(), httpx.Client(limits=LIMITS)

    def export(image_id: str, region: str) -> int:
        return read_task_id(http.request(**calls.request(image_id, region)))

    task = huey.task()(export)
    if verb == "enqueue":
        for image in read_images():
            task(**image)
    else:
        _work(huey)
        print(huey.result_count())


def _work(huey: SqliteHuey) -> None:
    waiting = threading.Semaphore(0)
    huey.signal(SIGNAL_COMPLETE)(lambda *_: waiting.release())
    count = huey.pending_count()
    consumer = huey.create_consumer(workers=IN_FLIGHT, worker_type="thread", periodic=False)
    consumer.start()
    for _ in range(count):
        waiting.acquire()
    consumer.stop(graceful=True)


main(*sys.argv[1:])
