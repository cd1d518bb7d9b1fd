"""Measure how fast a queue is sent to a cloud without limits."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import cycle
from statistics import median
from typing import Any

from benchmarks.cli_on_store import Store, child_cpu_seconds, make_image_ids
from benchmarks.cloud_and_store import start_cloud_and_store
from benchmarks.export_call_factory import IN_FLIGHT
from benchmarks.ledger_figures import accepted_per_second
from orchestrator.simulator.regions import FINANCE_REGIONS, REGIONS

SCOPES = (*REGIONS, *FINANCE_REGIONS)
"""The regions of one account."""

_UNBOUNDED: dict[str, Any] = {
    "cap": None,
    "limits": {"ExportImages": 0, "DescribeImages": 0},
    "duration": {"seconds": 1.0},
}

Sender = Callable[[Store, list[str]], Callable[[], object]]
"""Enqueues these images in a store, and returns a function that sends them all."""


@dataclass(frozen=True)
class Throughput:
    """Requests per second by the cloud's ledger, and the sender's CPU time per request."""

    per_second: float
    milliseconds: float


def measure_throughput(prepare: Sender, count: int) -> Throughput:
    """Measure how fast this many images are sent to a cloud without limits."""
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
    """Return the median of several measurements."""
    return Throughput(
        median(one.per_second for one in speeds), median(one.milliseconds for one in speeds)
    )


def ratio(ours: list[Throughput], theirs: list[Throughput]) -> float:
    """Return the median, over all turns, of our rate divided by their rate.

    The rates of one turn are compared, because the load of the machine varies between turns.
    """
    return median(o.per_second / t.per_second for o, t in zip(ours, theirs, strict=True))


def format_images(image_ids: list[str]) -> str:
    """Return the images as input of `read_images`, with the regions in turn."""
    return "\n".join(map(",".join, zip(image_ids, cycle(SCOPES), strict=False)))


def prepare_run(store: Store, image_ids: list[str]) -> Callable[[], object]:
    """Prepare a run of one process without limits and without verification."""
    store.enqueue(image_ids, *SCOPES)
    how = ("--rate", "0", "--verify", "off", "--concurrency", str(IN_FLIGHT))
    return lambda: store.drain(*how)
