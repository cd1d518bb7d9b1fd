"""Enqueue a long manifest, compared with inserting the same rows with Python's sqlite3."""

import sqlite3
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.case import Case, Goal, Measurement
from benchmarks.cli_on_store import BUCKET, REGION, Store, make_image_ids

_ROWS = 100_000
_REPETITIONS = 3
_TABLES = ("jobs", "job_images", "events")


def _measure() -> Measurement:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = folder / "images.csv"
        rows = "".join(
            f"{image_id},{REGION},{BUCKET},QCOW2\n" for image_id in make_image_ids(_ROWS)
        )
        manifest.write_text(f"image_id,region,bucket,format\n{rows}")
        enqueued, raw_seconds = [], []
        for number in range(_REPETITIONS):
            store = Store(folder / str(number), {})
            store.folder.mkdir()
            enqueued.append(store.command("enqueue", str(manifest)).measure())
            raw_seconds.append(_copy_in_new_process(store.path, store.folder / "raw.db"))
    seconds = median(one.seconds for one in enqueued)
    return Measurement(
        {
            "seconds": seconds,
            "of the raw rows": seconds / median(raw_seconds),
            "megabytes": max(one.megabytes for one in enqueued),
        }
    )


def _copy_in_new_process(source: Path, target: Path) -> float:
    # The peak memory of a child process includes what its parent held when it was started, so
    # this process must not load the rows itself.
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_copy_rows, source, target).result()


def _copy_rows(source: Path, target: Path) -> float:
    """Copy the rows of a store to a new one; return how many seconds writing took."""
    with closing(sqlite3.connect(source)) as connection:
        schema = connection.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")
        statements = schema.fetchall()
        rows = {
            name: connection.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608 - a name from _TABLES
            for name in _TABLES
        }
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for (statement,) in statements:
            connection.execute(statement)
        started = time.monotonic()
        connection.execute("BEGIN IMMEDIATE")
        for name in _TABLES:
            marks = ", ".join("?" * len(rows[name][0]))
            insert = f"INSERT INTO {name} VALUES ({marks})"  # noqa: S608 - a name from _TABLES
            connection.executemany(insert, rows[name])
        connection.execute("COMMIT")
        return time.monotonic() - started


CASES = (
    Case(
        "enqueue",
        f"{_ROWS:,} rows of CSV",
        _measure,
        (Goal("of the raw rows", 8, 4), Goal("megabytes", 200)),
    ),
)
