"""Read the history, and send from the queue, of a store with a million jobs."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks.case import Case, Goal, Measurement
from benchmarks.cli_on_store import Store
from benchmarks.command_usage import median_seconds
from benchmarks.simulator_process import start_simulator

_MANY = 1_000_000
_PAST, _QUEUE = 10_000, 1_000
"""Jobs in the small stores with which the large ones are compared."""

_TURNS = 9
_RUN_SECONDS = 10
_EXIT_TIME_LIMIT = 10
"""Exit code of a run that ended at its time limit."""

_FILTERS = (
    *("none", "--batch", "--state", "--region", "--bucket", "--image", "--task-id", "--code"),
    *("--job", "--since", "--until"),
)


def _history() -> Measurement:
    with _stores("past", _PAST, _MANY) as (small, large):
        pages = json.loads(large.python("benchmarks.history_pages", str(large.path)))
        few, many = (store.command("history", "--json").measure() for store in (small, large))
        return Measurement(
            {
                **pages,
                "all jobs, per second": round(_MANY / many.seconds),
                "all jobs, megabytes": many.megabytes,
                "megabytes, of the small store's": many.megabytes / few.megabytes,
            }
        )


def _queue() -> Measurement:
    with _stores("queue", _QUEUE, _MANY) as (small, large):
        much, little = median_seconds(
            _TURNS, *(store.command("status", "--json") for store in (large, small))
        )
        claims = large.python("benchmarks.claim_latency", str(small.path), str(large.path))
        more, less = (_run_for_a_while(store) for store in (large, small))
        return Measurement(
            {
                "status, of the small queue's": much / little,
                "claim, of the small queue's": json.loads(claims),
                "a run, megabytes": more,
                "more than the small queue's": more - less,
            }
        )


def _run_for_a_while(store: Store) -> float:
    """Return the peak memory in megabytes of a run that sends 20 requests per second."""
    with start_simulator(store.folder, cap=None, duration={"seconds": 2.0}) as here:
        running = replace(store, variables=here.variables)
        run = running.command("run", "--time-limit", str(_RUN_SECONDS))
        return run.measure(ends=_EXIT_TIME_LIMIT).megabytes


@contextmanager
def _stores(kind: str, *counts: int) -> Iterator[list[Store]]:
    """Make a store with each of these numbers of jobs.

    Other processes write them, because the memory of this process would count as its children's.
    """
    with tempfile.TemporaryDirectory() as name:
        stores = []
        for count in counts:
            folder = Path(name) / str(count)
            folder.mkdir()
            store = Store(folder, {})
            store.run("db", "upgrade")
            store.python("benchmarks.large_store", kind, str(store.path), str(count))
            stores.append(store)
        yield stores


CASES = (
    Case(
        "history",
        "seconds for the newest 50 by each filter of a million jobs; memory beside 10,000 jobs",
        _history,
        (
            *(Goal(name, 1) for name in _FILTERS),
            Goal("megabytes, of the small store's", 1.2, 1.1),
        ),
    ),
    Case(
        "queue",
        "a million queued jobs beside 1,000; of the claim the 99th percentile",
        _queue,
        (
            Goal("status, of the small queue's", 10, 2),
            Goal("claim, of the small queue's", 2),
            Goal("more than the small queue's", 20),
        ),
    ),
)
