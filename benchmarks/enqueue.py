"""A long manifest enqueued, beside what Python's own sqlite3 takes to write the same rows."""

import sqlite3
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import get_context
from pathlib import Path
from statistics import median

from benchmarks.case import Case, Goal, Measurement
from benchmarks.store import BUCKET, REGION, Store, make_image_ids

_ROWS = 100_000
_TURNS = 3
_TABLES = ("jobs", "job_images", "events")


def _enqueue() -> Measurement:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = folder / "images.csv"
        rows = "".join(f"{one},{REGION},{BUCKET},QCOW2\n" for one in make_image_ids(_ROWS))
        manifest.write_text(f"image_id,region,bucket,format\n{rows}")
        ours, raw = [], []
        for turn in range(_TURNS):
            store = Store(folder / str(turn), {})
            store.folder.mkdir()
            ours.append(store.command("enqueue", str(manifest)).measure())
            raw.append(_apart(store.path, store.folder / "raw.db"))
    seconds = median(one.seconds for one in ours)
    return Measurement(
        {
            "seconds": seconds,
            "of the raw rows": seconds / median(raw),
            "megabytes": max(one.megabytes for one in ours),
        }
    )


def _apart(store: Path, path: Path) -> float:
    """In a process of its own: a child's peak would count what the parent holds when it starts."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(_write, store, path).result()


def _write(store: Path, path: Path) -> float:
    """Seconds to write the rows of a store into an empty one, in one transaction."""
    with closing(sqlite3.connect(store)) as source:
        schema = source.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
        rows = {
            name: source.execute(f"SELECT * FROM {name}").fetchall()  # noqa: S608 - a name from _TABLES, nobody's input
            for name in _TABLES
        }
    with closing(sqlite3.connect(path, isolation_level=None)) as target:
        target.execute("PRAGMA journal_mode = WAL")
        target.execute("PRAGMA synchronous = FULL")
        for (statement,) in schema:
            target.execute(statement)
        began = time.monotonic()
        target.execute("BEGIN IMMEDIATE")
        for name in _TABLES:
            places = ", ".join("?" * len(rows[name][0]))
            insert = f"INSERT INTO {name} VALUES ({places})"  # noqa: S608 - a name from _TABLES, nobody's input
            target.executemany(insert, rows[name])
        target.execute("COMMIT")
        return time.monotonic() - began


CASES = (
    Case(
        "enqueue",
        f"{_ROWS:,} rows of CSV",
        _enqueue,
        (Goal("of the raw rows", 8, 4), Goal("megabytes", 200)),
    ),
)
