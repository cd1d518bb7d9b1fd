"""Exports at once: the unpublished cap found, every place of it kept busy, few calls refused."""

import random
import sqlite3
import time
from contextlib import AbstractContextManager, closing
from functools import partial
from typing import Any

from benchmarks.arrivals import (
    accepted_per_second,
    bound,
    makespan,
    refused_for,
    running,
    settled,
)
from benchmarks.case import EXPORTED_ONCE, Case, Goal, Measurement
from benchmarks.cloud_and_store import start_cloud_and_store, wait_for_success, wait_until
from benchmarks.simulator_process import SimulatorProcess
from benchmarks.store import BUCKET, Store, make_image_ids

_CAP = 20
_LASTS = 2.0
_WATCHED = 5
"""Durations that pass after a change before the next one."""


def _scene(**settings: Any) -> AbstractContextManager[tuple[SimulatorProcess, Store]]:
    """A cloud with a cap, and a store."""
    return start_cloud_and_store(**{"cap": _CAP, **settings})


def _measured(here: SimulatorProcess, count: int, **more: float) -> Measurement:
    """How the exports filled the cap."""
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
    """Some exports last many times as long as others; their size tells, or it does not."""
    chance = random.Random(7)
    count = 200
    names = make_image_ids(count)
    settings: dict[str, Any] = {
        "duration": {"kind": "lognormal", "seconds": 10.0, "spread": 0.5},
        "any_image": True,
    }
    if by_size:
        sizes = {name: round(100 * chance.lognormvariate(0, 0.5)) for name in names}
        settings["duration"] = {"seconds": 0.0, "per_gib": 0.1}
        settings["images"] = {name: {"sizes": [max(1, size)]} for name, size in sizes.items()}
    else:
        settings["images"] = {name: {"sizes": [50]} for name in names}
    with _scene(**settings) as (here, store):
        store.enqueue(names)
        store.drain()
        return _measured(here, count)


def _moving() -> Measurement:
    """The cap falls from 20 to 8, and rises to 30; each time it is found again."""
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
                "falls, in durations": settled(exports, fell, 8, _LASTS),
                "rises, in durations": settled(exports, rose, 30, _LASTS),
                "refused per image": refused_for(here.requests(), "ExportImageTask") / count,
                "attempts attempts_charged at most": _most_spent(store),
            },
            running(exports, 30),
        )


def _freed() -> Measurement:
    """A neighbour held ten of the places, and lets them go."""
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
                "rises, in durations": settled(exports, freed, _CAP, _LASTS),
                "refused per image": refused_for(here.requests(), "ExportImageTask") / count,
                "attempts attempts_charged at most": _most_spent(store),
            },
            running(exports, _CAP),
        )


def _blind() -> Measurement:
    """The bucket may not be read: no end is ever seen."""
    deny = ["HeadObject", "GetBucket", "ListMultipartUploads", "HeadBucket"]
    settings = {"duration": {"seconds": 5.0}, "buckets": {BUCKET: {"deny": deny}}}
    with _scene(**settings) as (here, store):
        store.enqueue(make_image_ids(200))
        store.drain()
        return _measured(here, 200)


def _closed_region() -> Measurement:
    """Of two regions one takes nothing for half a minute; its images are first in the order."""
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
        time.sleep(30)  # the half minute for which it is closed is what is measured
        probes = sum(one["region"] == shut for one in here.requests())
        here.change_settings(codes=[])
        opened = time.time()
        wait_for_success(run)
        late = max(one["ends_at"] for one in here.exports() if one["region"] == shut) - opened
        meanwhile = [one for one in here.requests() if one["arrived"] < opened]
        there = [one for one in meanwhile if one["region"] == other]
    return Measurement(
        {
            "meanwhile the other, of the limit": accepted_per_second(there) / 20,
            "probes": probes,
            "seconds once open": late,
        }
    )


def _change(here: SimulatorProcess, **settings: int) -> float:
    """Changes the cloud; the moment by its clock."""
    here.change_settings(**settings)
    changed = time.time()
    time.sleep(_WATCHED * _LASTS)  # what happens meanwhile is what is measured
    return changed


def _most_spent(store: Store) -> int:
    """The most attempts that any job has spent."""
    with closing(sqlite3.connect(store.path)) as connection:
        return int(connection.execute("SELECT max(attempts_charged) FROM jobs").fetchone()[0])


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
        "200 images, cap 20, about 10 s each as their sizes tell",
        partial(_lognormal, by_size=True),
        (Goal("makespan, of the bound", 1.06), Goal("refused per image", 0.02), EXPORTED_ONCE),
    ),
    Case(
        "gate-unknown",
        "200 images, cap 20, about 10 s each, and nothing tells",
        partial(_lognormal, by_size=False),
        (Goal("makespan, of the bound", 1.12), Goal("refused per image", 0.02), EXPORTED_ONCE),
    ),
    Case(
        "gate-moves",
        "the cap falls from 20 to 8 and rises to 30",
        _moving,
        (
            Goal("falls, in durations", 3),
            Goal("rises, in durations", 3),
            Goal("attempts attempts_charged at most", 1),
        ),
    ),
    Case(
        "gate-freed",
        "a neighbour lets half of the cap go",
        _freed,
        (Goal("rises, in durations", 3), Goal("attempts attempts_charged at most", 1)),
    ),
    Case(
        "gate-blind",
        "no right to the bucket",
        _blind,
        (Goal("makespan, of the bound", 1.25), Goal("refused per image", 1, 0.5), EXPORTED_ONCE),
    ),
    Case(
        "gate-closed",
        "one of two regions takes nothing for half a minute",
        _closed_region,
        (
            Goal("meanwhile the other, of the limit", 0.93, least=True),
            Goal("probes", 12),
            Goal("seconds once open", 25, 15),
        ),
    ),
)
