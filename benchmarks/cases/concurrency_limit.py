"""The concurrency limit: the cap is found, every slot is used, and few requests are refused."""

import random
import sqlite3
import time
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any

from benchmarks.case import EXPORTED_ONCE, Case, Goal, Measurement
from benchmarks.cli_on_store import BUCKET, Store, make_image_ids
from benchmarks.cloud_and_store import start_cloud_and_store, wait_for_success, wait_until
from benchmarks.ledger_figures import (
    accepted_per_second,
    bound,
    makespan,
    refused_for,
    running,
    time_to_reach,
)
from benchmarks.simulator_process import SimulatorProcess

_CAP = 20
_LASTS = 2.0
_WATCHED = 5
"""Durations of an export that are watched after each change of the cap."""


def _scene(**settings: Any) -> AbstractContextManager[tuple[SimulatorProcess, Store]]:
    """Start a simulated cloud with a cap, and make a store."""
    return start_cloud_and_store(**{"cap": _CAP, **settings})


def _measured(here: SimulatorProcess, count: int, **more: float) -> Measurement:
    """Return how well the exports filled the cap."""
    exports = here.exports()
    figures = {
        "makespan, of the bound": makespan(exports) / bound(exports, _CAP),
        "refused per image": refused_for(here.requests(), "ExportImageTask") / count,
        "accepted twice": sum(one["duplicate"] for one in exports),
        **more,
    }
    return Measurement(figures, running(exports, _CAP))


def _fixed() -> Measurement:
    with _scene(duration={"seconds": 2.0}, queue_delay=0.0) as (here, store):
        store.enqueue(make_image_ids(400))
        store.drain()
        return _measured(here, 400)


def _lognormal(*, by_size: bool) -> Measurement:
    """Export images whose durations differ widely.

    Args:
        by_size: whether the sizes of the images predict the durations.
    """
    rng = random.Random(7)
    count = 200
    names = make_image_ids(count)
    settings: dict[str, Any] = {
        "duration": {"kind": "lognormal", "seconds": 10.0, "spread": 0.5},
        "any_image": True,
    }
    if by_size:
        sizes = {name: round(100 * rng.lognormvariate(0, 0.5)) for name in names}
        settings["duration"] = {"seconds": 0.0, "per_gib": 0.1}
        settings["images"] = {name: {"sizes": [max(1, size)]} for name, size in sizes.items()}
    else:
        settings["images"] = {name: {"sizes": [50]} for name in names}
    with _scene(**settings) as (here, store):
        store.enqueue(names)
        store.drain()
        return _measured(here, count)


def _moving() -> Measurement:
    """Lower the cap from 20 to 8, then raise it to 30; each time it is found again."""
    count = 400
    with _scene(duration={"seconds": _LASTS}, queue_delay=0.0) as (here, store):
        store.enqueue(make_image_ids(count))
        run = store.start("run")
        wait_until(lambda: len(here.exports()) > 100, run)
        fell = _change(here, cap=8)
        wait_until(lambda: len(here.exports()) > 200, run)
        rose = _change(here, cap=30)
        wait_for_success(run)
        exports = here.exports()
        return Measurement(
            {
                "falls, in durations": time_to_reach(exports, fell, 8, _LASTS),
                "rises, in durations": time_to_reach(exports, rose, 30, _LASTS),
                "refused per image": refused_for(here.requests(), "ExportImageTask") / count,
                "attempts charged at most": _most_charged(store),
            },
            running(exports, 30),
        )


def _freed() -> Measurement:
    """Let another program hold ten slots, and then free them."""
    count = 300
    with _scene(duration={"seconds": _LASTS}, queue_delay=0.0, occupied=10) as (here, store):
        store.enqueue(make_image_ids(count))
        run = store.start("run")
        wait_until(lambda: len(here.exports()) > 100, run)
        freed = _change(here, occupied=0)
        wait_for_success(run)
        exports = here.exports()
        return Measurement(
            {
                "rises, in durations": time_to_reach(exports, freed, _CAP, _LASTS),
                "refused per image": refused_for(here.requests(), "ExportImageTask") / count,
                "attempts charged at most": _most_charged(store),
            },
            running(exports, _CAP),
        )


def _blind() -> Measurement:
    """Export into a bucket that may not be read: no end is ever seen.

    Durations differ, as they do in reality. If all exports ended together, the doubling wait could
    leave every slot idle for as long as an export lasts.
    """
    deny = ["HeadObject", "GetBucket", "ListMultipartUploads", "HeadBucket"]
    duration = {"kind": "lognormal", "seconds": 10.0, "spread": 0.5}
    settings = {"duration": duration, "buckets": {BUCKET: {"deny": deny}}}
    with _scene(**settings) as (here, store):
        store.enqueue(make_image_ids(200))
        store.drain()
        return _measured(here, 200)


def _closed_region() -> Measurement:
    """Export to two regions; the first one refuses everything for half a minute."""
    shut, other, count = "ap-singapore", "ap-tokyo", 700
    full = {"code": "LimitExceeded.ExportImageTaskLimitExceeded", "images": make_image_ids(100)}
    with _scene(cap=None, duration={"seconds": 0.5}, queue_delay=0.0, codes=[full]) as (
        here,
        store,
    ):
        store.enqueue(make_image_ids(100), shut)
        store.enqueue(make_image_ids(count, 1000), other)
        run = store.start("run")
        wait_until(lambda: bool(here.requests()), run)
        time.sleep(30)  # what happens in this half minute is measured
        probes = sum(one["region"] == shut for one in here.requests())
        here.change_settings(codes=[])
        opened = time.time()
        wait_for_success(run)
        late = max(one["ends_at"] for one in here.exports() if one["region"] == shut) - opened
        meanwhile = [one for one in here.requests() if one["arrived"] < opened]
        there = [one for one in meanwhile if one["region"] == other]
    return Measurement(
        {
            "the other meanwhile, of the limit": accepted_per_second(there) / 20,
            "probes": probes,
            "seconds once open": late,
        }
    )


def _change(here: SimulatorProcess, **settings: int) -> float:
    """Change the cloud and watch it for a while; return the time of the change."""
    here.change_settings(**settings)
    changed = time.time()
    time.sleep(_WATCHED * _LASTS)  # what happens meanwhile is measured
    return changed


def _most_charged(store: Store) -> int:
    """Return the most attempts that were charged to a job."""
    with closing(sqlite3.connect(store.path)) as connection:
        return int(connection.execute("SELECT max(attempts_charged) FROM jobs").fetchone()[0])


# A cap that has grown is found by the next probe: within the duration of an export, times the root
# of the ceiling. Raising the ceiling takes another duration. While a region refuses everything, the
# wait for the next probe is at most as long as the region has been closed.
CASES = (
    Case(
        "gate-fixed",
        "400 images, cap 20, 2 s each",
        _fixed,
        (
            Goal("makespan, of the bound", 1.06, 1.04),
            Goal("refused per image", 0.02, 0.01),
            EXPORTED_ONCE,
        ),
    ),
    Case(
        "gate-sizes",
        "200 images, cap 20, about 10 s each in proportion to their sizes",
        partial(_lognormal, by_size=True),
        (Goal("makespan, of the bound", 1.06), Goal("refused per image", 0.02), EXPORTED_ONCE),
    ),
    Case(
        "gate-unknown",
        "200 images, cap 20, about 10 s each, of the same size",
        partial(_lognormal, by_size=False),
        (Goal("makespan, of the bound", 1.12), Goal("refused per image", 0.02), EXPORTED_ONCE),
    ),
    Case(
        "gate-moves",
        "the cap falls from 20 to 8 and rises to 30",
        _moving,
        (
            Goal("falls, in durations", 3),
            Goal("rises, in durations", 4.5),
            Goal("attempts charged at most", 1),
        ),
    ),
    Case(
        "gate-freed",
        "another program frees half of the cap",
        _freed,
        (Goal("rises, in durations", 4.5), Goal("attempts charged at most", 1)),
    ),
    Case(
        "gate-blind",
        "200 images, cap 20, about 10 s each, in a bucket that may not be read",
        _blind,
        (Goal("makespan, of the bound", 1.25), Goal("refused per image", 1, 0.5), EXPORTED_ONCE),
    ),
    Case(
        "gate-closed",
        "one of two regions refuses everything for half a minute",
        _closed_region,
        (
            Goal("the other meanwhile, of the limit", 0.93, least=True),
            Goal("probes", 12),
            Goal("seconds once open", 40),
        ),
    ),
)
