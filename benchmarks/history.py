"""A million jobs in the history, and a million in the queue: what it costs to look at them."""

import json
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.case import Case, Goal, Measurement
from benchmarks.process_usage import median_seconds
from benchmarks.simulator_process import start_simulator
from benchmarks.store import Store

_MANY = 1_000_000
_PAST, _QUEUE = 10_000, 1_000
"""The stores beside which the large ones are measured."""
_TURNS = 9
_SECONDS, _TIME_IS_UP = 10, 10
"""For which a run goes on, and its exit code then."""

_FILTERS = (
    *("none", "--batch", "--state", "--region", "--bucket", "--image", "--task-id", "--code"),
    *("--job", "--since", "--until"),
)


def _history() -> Measurement:
    with _stores("past", _PAST, _MANY) as (small, large):
        fewer, all_ = (store.command("history", "--json").measure() for store in (small, large))
        rate, bound = _MANY / all_.seconds, _iterated(large)
        return Measurement(
            {
                **_beside("looks", small, large),
                "all of them, rows a second": round(rate),
                "all of them, of sqlite3's rate": rate / bound,
                "all of them, megabytes": all_.megabytes,
                "of the small store's": all_.megabytes / fewer.megabytes,
            }
        )


def _iterated(store: Store) -> float:
    """Rows a second of the same jobs, when they are fetched and nothing is done with them."""
    with closing(sqlite3.connect(store.path)) as connection:
        began = time.perf_counter()
        count = sum(1 for _ in connection.execute("SELECT * FROM jobs ORDER BY id DESC"))
        return count / (time.perf_counter() - began)


def _queue() -> Measurement:
    with _stores("queue", _QUEUE, _MANY) as (small, large):
        looks = [store.command("status", "--json") for store in (large, small)]
        much, little = median_seconds(_TURNS, *looks)
        claim = _beside("claim_latency", small, large)
        more, less = (_run_for_a_while(store) for store in (large, small))
        return Measurement(
            {
                "status, of the small queue's": much / little,
                "claim, of the small queue's": claim,
                "a run, megabytes": more,
                "more than the small queue's": more - less,
            }
        )


def _run_for_a_while(store: Store) -> float:
    """The memory of a run at its peak, while it sends 20 a second."""
    with start_simulator(store.folder, cap=None, duration={"seconds": 2.0}) as here:
        running = replace(store, variables=here.variables)
        run = running.command("run", "--time-limit", str(_SECONDS))
        return run.measure(ends=_TIME_IS_UP).megabytes


def _beside(what: str, small: Store, large: Store) -> Any:
    return json.loads(large.python(f"benchmarks.{what}", str(small.path), str(large.path)))


@contextmanager
def _stores(kind: str, *counts: int) -> Iterator[list[Store]]:
    """Stores of so many jobs each, which other processes write: their memory would count here."""
    with tempfile.TemporaryDirectory() as name:
        stores = []
        for count in counts:
            folder = Path(name) / str(count)
            folder.mkdir()
            store = Store(folder, {})
            store.run("db", "upgrade")
            store.python("benchmarks.past", kind, str(store.path), str(count))
            stores.append(store)
        yield stores


CASES = (
    Case(
        "history",
        "the newest 50 by each filter of a million, 95th percentile, of those of 10,000",
        _history,
        (
            *(Goal(name, 3, 2) for name in _FILTERS),
            Goal("all of them, of sqlite3's rate", 0.3, 0.5, least=True),
            Goal("of the small store's", 1.2, 1.1),
        ),
    ),
    Case(
        "queue",
        "a million that wait, against 1,000; of the claim the 99th percentile",
        _queue,
        (
            Goal("status, of the small queue's", 10, 2),
            Goal("claim, of the small queue's", 2),
            Goal("more than the small queue's", 20),
        ),
    ),
)
