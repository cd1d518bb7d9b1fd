"""How fast a queue goes out when nothing outside holds it up."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import Any

from benchmarks.arrivals import accepted_per_second
from benchmarks.cloud_and_store import start_cloud_and_store
from benchmarks.export_call import IN_FLIGHT
from benchmarks.store import Store, child_cpu_seconds, make_image_ids
from orchestrator.simulator.regions import FINANCE_REGIONS, REGIONS

SCOPES = (*REGIONS, *FINANCE_REGIONS)
"""Of one account: a region each."""

_UNBOUNDED: dict[str, Any] = {
    "cap": None,
    "limits": {"ExportImages": 0, "DescribeImages": 0},
    "duration": {"seconds": 1.0},
}

Sender = Callable[[Store, list[str]], Callable[[], object]]
"""Prepares a store with these images; what it gives back sends them all."""


@dataclass(frozen=True)
class Throughput:
    """Requests a second as the cloud's ledger has them, and the sender's processor time for one."""

    per_second: float
    milliseconds: float


def measure_throughput(prepare: Sender, count: int) -> Throughput:
    """How fast so many images are sent to a cloud that refuses nothing."""
    with start_cloud_and_store(**_UNBOUNDED) as (here, store):
        send = prepare(store, make_image_ids(count))
        before = child_cpu_seconds()
        send()
        used = child_cpu_seconds() - before
        requests = here.requests()
    accepted = sum(one["accepted"] for one in requests)
    if accepted != count:
        raise RuntimeError(f"{accepted} of {count} images were accepted")
    return Throughput(accepted_per_second(requests), 1000 * used / count)


def median_throughput(speeds: list[Throughput]) -> Throughput:
    """The median of several."""
    return Throughput(
        median(one.per_second for one in speeds), median(one.milliseconds for one in speeds)
    )


def ratio(ours: list[Throughput], theirs: list[Throughput]) -> float:
    """How many times as fast; of each turn by itself, because the machine is not always alike."""
    return median(o.per_second / t.per_second for o, t in zip(ours, theirs, strict=True))


def format_images(image_ids: list[str]) -> str:
    """The images as a module here reads them, in each scope in turn."""
    return "\n".join(map(",".join, zip(image_ids, cycle(SCOPES), strict=False)))


def prepare_run(store: Store, image_ids: list[str]) -> Callable[[], object]:
    """A run of one process that has nothing to wait for but itself."""
    store.enqueue(image_ids, *SCOPES)
    how = ("--rate", "0", "--verify", "off", "--concurrency", str(IN_FLIGHT))
    return lambda: store.drain(*how)
